//! Leases come, change and go, others' and our own.

use etcd_client::{Client, PutOptions};
use overlay_common::Reason;
use overlay_tests::{process::wait_until, sandbox::isolated, traffic::Flow};

use crate::ground::{
    LIMIT, await_peer, await_route, await_said, key, key_of, pings, route, said, settings, start, value,
};

#[test]
fn a_lease_in_etcd_is_an_entry_in_the_map_for_as_long_as_it_is_there() {
    isolated(|| {
        let mut cluster = start(&settings(1));
        let (node, etcd) = (&cluster.nodes()[0], cluster.etcd());
        for (host, mac) in [(77, 1), (77, 2), (78, 2)] {
            etcd.put(&key(100), &value(host, mac)).unwrap();
            await_route(node, 100, Some(route(host, mac)));
        }
        // A renewal says what is known.
        etcd.put(&key(100), &value(78, 2)).unwrap();
        etcd.put(&key(101), &value(79, 3)).unwrap();
        await_route(node, 101, Some(route(79, 3)));
        etcd.delete(&key(100)).unwrap();
        await_route(node, 100, None);
        assert_eq!(node.counters().routes().unwrap().len(), 1);
        assert_eq!(said(&mut cluster.nodes_mut()[0], &["route set", "10.1.100.0/24"]), 3);
    });
}

#[test]
fn a_peer_whose_lease_runs_out_is_removed() {
    isolated(|| {
        let cluster = start(&settings(1));
        let put = async |mut client: Client| {
            let lease = client.lease_grant(3, None).await?.id();
            let options = PutOptions::new().with_lease(lease);
            Ok(client.put(key(100), value(77, 1), Some(options)).await.map(drop)?)
        };
        cluster.etcd().client(put).unwrap();
        await_route(&cluster.nodes()[0], 100, Some(route(77, 1)));
        await_route(&cluster.nodes()[0], 100, None);
    });
}

#[test]
fn our_own_key_that_somebody_deleted_is_taken_back() {
    isolated(|| {
        let mut cluster = start(&settings(2));
        let key = key_of(&cluster.nodes()[0]);
        let ours = cluster.etcd().get(&key).unwrap().unwrap();
        assert_eq!(cluster.etcd().delete(&key).unwrap(), 1);
        let back = || cluster.etcd().get(&key).unwrap().as_ref() == Some(&ours);
        wait_until("our lease", LIMIT, back).unwrap();
        await_said(&mut cluster.nodes_mut()[0], &["taken back"], 1);
        await_peer(&cluster);
        assert_eq!(pings(&cluster), 2);
    });
}

#[test]
fn a_stolen_subnet_is_not_shared_and_forwarded_for_again_when_it_is_free() {
    isolated(|| {
        let mut cluster = start(&settings(2));
        assert_eq!(pings(&cluster), 2);
        // A flow that the fast path knows is no exception.
        let [from, to] = [0, 1].map(|number: usize| cluster.nodes()[number].container().clone());
        let flow = Flow::new(&from.netns, &to.netns, to.v4());
        assert_eq!(flow.udp_echo(50, 100).unwrap(), 50);
        let key = key_of(&cluster.nodes()[0]);
        let thief = value(99, 9);
        cluster.etcd().put(&key, &thief).unwrap();
        await_said(&mut cluster.nodes_mut()[0], &["another node holds our subnet", "192.168.50.99"], 1);
        assert_eq!((pings(&cluster), flow.udp_echo(2, 100).unwrap()), (0, 0));
        let drops = cluster.nodes()[0].counters().drops().unwrap();
        assert!(drops.iter().any(|&(reason, count)| reason == Reason::SourceNotOurs && count >= 2), "{drops:?}");
        assert_eq!(cluster.etcd().get(&key).unwrap(), Some(thief), "nobody else's lease is overwritten");

        cluster.etcd().delete(&key).unwrap();
        await_said(&mut cluster.nodes_mut()[0], &["taken back"], 1);
        cluster.wait_converged().unwrap();
        await_peer(&cluster);
        assert_eq!(pings(&cluster), 2);
        assert_eq!(
            said(&mut cluster.nodes_mut()[0], &["WARN", "our subnet"]),
            2,
            "once by the keeper, once by the routes"
        );
    });
}
