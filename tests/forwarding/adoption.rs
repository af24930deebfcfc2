//! What a restarted agent makes of what has changed while none ran.

use std::{net::Ipv4Addr, time::Duration};

use overlay_tests::{
    attached::links,
    cluster::{Backend, Cluster, Settings},
    node::Container,
    process::wait_until,
    sandbox::isolated,
};

const LIMIT: Duration = Duration::from_secs(20);
/// Agents take 10.1.1.0 to 10.1.9.0; the rest is for leases that the test writes.
const NETWORK: &str = r#"{"Network":"10.1.0.0/16","SubnetMax":"10.1.9.0","Backend":{"Type":"vxlan"}}"#;

/// Writes the lease of 10.1.`third`.0/24, of a node with the underlay address 192.168.50.`host`.
fn write_lease(cluster: &Cluster, third: u8, host: u8) {
    let value = format!(
        r#"{{"PublicIP":"192.168.50.{host}","PublicIPv6":null,"BackendType":"vxlan","BackendData":{{"VNI":1,"VtepMAC":"02:00:00:00:00:{host:02x}"}}}}"#
    );
    cluster.etcd().put(&key(third), &value).unwrap();
}

fn key(third: u8) -> String {
    format!("/coreos.com/network/subnets/10.1.{third}.0-24")
}

/// The next hop of the first node's route to 10.1.`third`.0/24, by its last byte.
fn next_hop(cluster: &Cluster, third: u8) -> Option<u8> {
    let routes = cluster.nodes()[0].counters().routes().unwrap();
    routes.get(&Ipv4Addr::new(10, 1, third, 0)).map(|route| route.next_hop().ipv4().unwrap().octets()[3])
}

#[test]
fn a_restarted_agent_changes_what_differs_and_nothing_else() {
    isolated(|| {
        let settings = Settings { backend: Backend::Vxlan, ..Settings::default() };
        let mut cluster = Cluster::new(&settings).unwrap();
        for (third, host) in [(100, 100), (101, 101), (102, 102)] {
            write_lease(&cluster, third, host);
        }
        cluster.bring_up(NETWORK).unwrap();
        let node = &cluster.nodes()[0];
        let (gone, device) = (node.container().clone(), node.netns().ip("-o link show overlay.1").unwrap());
        let before = links(node.run_dir()).unwrap();
        cluster.nodes_mut()[0].agent().kill().unwrap();

        // One lease stays, one goes, one has another node, one is new; a container goes, another one comes.
        cluster.etcd().delete(&key(101)).unwrap();
        write_lease(&cluster, 102, 112);
        write_lease(&cluster, 103, 103);
        let node = &mut cluster.nodes_mut()[0];
        node.netns().ip("link del container").unwrap();
        let new = Container::join(node.netns(), node.subnet(), "newcomer", 3).unwrap();
        node.start_agent().unwrap();
        node.wait_ready().unwrap();

        let log = node.agent().log();
        let said = log.lines().rfind(|line| line.contains("routes in place")).unwrap().to_owned();
        assert!(said.contains("routes=4") && said.contains("changed=3"), "{said}");
        let hops = [100, 101, 102, 103].map(|third| next_hop(&cluster, third));
        assert_eq!(hops, [Some(100), None, Some(112), Some(103)]);
        let node = &cluster.nodes()[0];
        node.wait_endpoint(new.v4()).unwrap();
        let forgotten = || !node.counters().endpoints().unwrap().contains_key(&gone.v4());
        wait_until("the container that is gone to be forgotten", LIMIT, forgotten).unwrap();

        assert_eq!(node.netns().ip("-o link show overlay.1").unwrap(), device, "the device is the one that was there");
        let after = links(node.run_dir()).unwrap();
        let (containers, others): (Vec<_>, Vec<_>) = before.iter().partition(|(name, _)| name.contains("_container-"));
        assert_eq!(containers.len(), 2, "{before:?}");
        for (name, _) in containers {
            assert!(!after.contains_key(name), "{name} is a leftover");
        }
        for (name, link) in others {
            assert_eq!(after[name].id, link.id, "{name} is the link that was there");
        }
        assert_eq!(after.len(), before.len(), "{after:?}");
    });
}
