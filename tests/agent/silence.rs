//! An etcd that does not answer: nobody is removed for it, and its return changes what has changed.

use etcd_client::Client;
use nix::sys::signal::Signal;
use overlay_tests::{
    cluster::{Cluster, Settings},
    etcd::Etcd,
    node::UNDERLAY_DEVICE,
    process::wait_until,
    sandbox::isolated,
};

use crate::{
    ground::{
        LIMIT, NETWORK, await_route, await_said, key, pings, route, said, sent, settings, start, start_agents, subnet,
        value,
    },
    users,
};

const ETCD: &str = "192.168.50.254";

#[test]
fn a_partition_removes_nobody_and_its_end_is_a_difference() {
    isolated(|| {
        let mut cluster = start(&settings(2));
        for third in [100, 101] {
            cluster.etcd().put(&key(third), &value(third, 1)).unwrap();
            await_route(&cluster.nodes()[0], third, Some(route(third, 1)));
        }
        assert_eq!(pings(&cluster), 2);
        // What the first node sends to etcd goes nowhere.
        let netns = cluster.nodes()[0].netns().clone();
        let way = format!("neighbour replace {ETCD} lladdr 02:00:00:00:00:01 dev {UNDERLAY_DEVICE} nud permanent");
        netns.ip(&way).unwrap();
        await_said(&mut cluster.nodes_mut()[0], &["datastore is silent"], 1);
        // One leaves, one stays, one moves in; and etcd forgets how it came to that.
        cluster.etcd().delete(&key(100)).unwrap();
        cluster.etcd().put(&key(102), &value(102, 1)).unwrap();
        compact(cluster.etcd());
        assert_eq!(pings(&cluster), 2);
        assert!(cluster.nodes()[0].counters().routes().unwrap().contains_key(&subnet(100)));

        netns.ip(&format!("neighbour delete {ETCD} dev {UNDERLAY_DEVICE}")).unwrap();
        await_route(&cluster.nodes()[0], 102, Some(route(102, 1)));
        await_route(&cluster.nodes()[0], 100, None);
        assert_eq!(pings(&cluster), 2);
        assert_eq!(sent(&cluster), 6, "the counters of a route that stays go on");
        let node = &mut cluster.nodes_mut()[0];
        assert_eq!(said(node, &["route set", "10.1.101.0/24"]), 1);
        assert_eq!(said(node, &["route removed"]), 1);
        await_said(node, &["datastore answers again"], 1);
    });
}

/// Throws away etcd's history up to now.
fn compact(etcd: &Etcd) {
    let compact = async |mut client: Client| {
        let revision = client.get("x", None).await?.header().map_or(0, etcd_client::ResponseHeader::revision);
        client.compact(revision, None).await?;
        Ok(())
    };
    etcd.client(compact).unwrap();
}

#[test]
fn a_stopped_etcd_stops_nothing() {
    isolated(|| {
        let mut cluster = start(&settings(2));
        cluster.etcd_mut().pause().unwrap();
        await_said(&mut cluster.nodes_mut()[0], &["datastore is silent"], 1);
        assert_eq!(pings(&cluster), 2);
        cluster.etcd_mut().resume().unwrap();
        await_said(&mut cluster.nodes_mut()[0], &["datastore answers again"], 1);
        cluster.etcd().put(&key(100), &value(100, 1)).unwrap();
        await_route(&cluster.nodes()[0], 100, Some(route(100, 1)));
        assert_eq!((pings(&cluster), sent(&cluster)), (2, 4));
    });
}

#[test]
fn endpoints_may_die_one_after_another_and_without_a_leader_all_goes_on() {
    isolated(|| {
        let mut cluster = start(&Settings { etcd_members: 3, ..settings(2) });
        cluster.parts_mut().1[0].kill().unwrap();
        let put = |cluster: &mut Cluster, third| {
            let etcd = &cluster.parts_mut().1[2];
            wait_until("a write by two", LIMIT, || etcd.put(&key(third), &value(third, 1)).is_ok()).unwrap();
        };
        put(&mut cluster, 100);
        await_route(&cluster.nodes()[0], 100, Some(route(100, 1)));

        // The death of the first may have shown, or not.
        let before = said(&mut cluster.nodes_mut()[0], &["datastore is silent"]);
        cluster.parts_mut().1[1].kill().unwrap();
        await_said(&mut cluster.nodes_mut()[0], &["datastore is silent"], before + 1);
        assert_eq!(pings(&cluster), 2);
        let (_, members) = cluster.parts_mut();
        members[0].relaunch().unwrap();
        members[0].wait_healthy().unwrap();
        put(&mut cluster, 101);
        await_route(&cluster.nodes()[0], 101, Some(route(101, 1)));
        assert_eq!(pings(&cluster), 2);
        assert_eq!(said(&mut cluster.nodes_mut()[0], &["route removed"]), 0);
    });
}

#[test]
fn a_revoked_user_degrades_the_agent_and_no_packet_is_lost_for_it() {
    isolated(|| {
        let arguments = users::options("overlay").to_vec();
        let mut cluster = Cluster::new(&Settings { agent_arguments: arguments, ..settings(2) }).unwrap();
        cluster.write_config(NETWORK).unwrap();
        users::require(cluster.etcd(), "overlay");
        start_agents(&mut cluster);
        users::delete(cluster.etcd(), "overlay");
        // What is open stays open; what is opened anew is refused.
        cluster.etcd_mut().restart().unwrap();
        await_said(&mut cluster.nodes_mut()[0], &["degraded", "lease"], 1);
        assert_eq!(pings(&cluster), 2);
        assert_eq!(said(&mut cluster.nodes_mut()[0], &[users::PASSWORD]), 0);
        assert_eq!(said(&mut cluster.nodes_mut()[0], &["route removed"]), 0);

        users::add(cluster.etcd(), "overlay");
        await_said(&mut cluster.nodes_mut()[0], &["our lease is in order again"], 1);
        await_said(&mut cluster.nodes_mut()[0], &["datastore answers again"], 1);
        assert_eq!((pings(&cluster), sent(&cluster)), (2, 4));
    });
}

#[test]
fn an_agent_that_was_stopped_for_a_while_catches_up() {
    isolated(|| {
        let mut cluster = start(&settings(2));
        cluster.nodes_mut()[0].agent().signal(Signal::SIGSTOP).unwrap();
        cluster.etcd().put(&key(100), &value(100, 1)).unwrap();
        compact(cluster.etcd());
        assert_eq!(pings(&cluster), 2);
        cluster.nodes_mut()[0].agent().signal(Signal::SIGCONT).unwrap();
        await_route(&cluster.nodes()[0], 100, Some(route(100, 1)));
        assert_eq!((pings(&cluster), sent(&cluster)), (2, 4));
    });
}
