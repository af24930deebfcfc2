//! What the tests stand on: a cluster whose agents keep to a few subnets, and leases that tests write for nodes that are
//! not there.

use std::{net::Ipv4Addr, time::Duration};

use overlay_common::Route;
use overlay_tests::{
    cluster::{Backend, Cluster, Settings},
    node::Node,
    process::wait_until,
    traffic::ping,
};

/// Longer than anything takes that works, even when the agent has first to find out that nobody answers.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// Agents take 10.1.1.0 to 10.1.9.0; the rest is for leases that tests write.
pub(crate) const NETWORK: &str = r#"{"Network":"10.1.0.0/16","SubnetMax":"10.1.9.0","Backend":{"Type":"vxlan"}}"#;

const SUBNETS: &str = "/coreos.com/network/subnets/";

/// Settings of a cluster of `nodes` nodes with vxlan.
pub(crate) fn settings(nodes: u8) -> Settings {
    Settings { nodes, backend: Backend::Vxlan, ..Settings::default() }
}

/// Makes a cluster, gives it [`NETWORK`], and starts everything.
pub(crate) fn start(settings: &Settings) -> Cluster {
    let mut cluster = Cluster::new(settings).unwrap();
    cluster.write_config(NETWORK).unwrap();
    start_agents(&mut cluster);
    cluster
}

/// Starts all agents, and a container on each node.
pub(crate) fn start_agents(cluster: &mut Cluster) {
    for node in cluster.nodes_mut() {
        node.start_agent().unwrap();
    }
    for node in cluster.nodes_mut() {
        node.wait_ready().unwrap();
        node.add_container().unwrap();
    }
    cluster.wait_converged().unwrap();
}

/// The etcd key of 10.1.`third`.0/24.
pub(crate) fn key(third: u8) -> String {
    format!("{SUBNETS}10.1.{third}.0-24")
}

/// The etcd key of a node's lease.
pub(crate) fn key_of(node: &Node) -> String {
    key(node.subnet().subnet().octets()[2])
}

/// The lease's value of a vxlan node with underlay address 192.168.50.`host` and a MAC address that ends in `mac`.
pub(crate) fn value(host: u8, mac: u8) -> String {
    format!(
        r#"{{"PublicIP":"192.168.50.{host}","PublicIPv6":null,"BackendType":"vxlan","BackendData":{{"VNI":1,"VtepMAC":"02:00:00:00:00:{mac:02x}"}}}}"#
    )
}

/// The route that such a lease makes.
pub(crate) fn route(host: u8, mac: u8) -> Route {
    Route::new(Ipv4Addr::new(192, 168, 50, host), [2, 0, 0, 0, 0, mac])
}

/// The network address of 10.1.`third`.0/24.
pub(crate) fn subnet(third: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 1, third, 0)
}

/// Waits until the node's route to 10.1.`third`.0/24 is `wanted`.
#[track_caller]
pub(crate) fn await_route(node: &Node, third: u8, wanted: Option<Route>) {
    let what = format!("10.1.{third}.0/24 at {} to be {wanted:?}", node.name());
    let is = || node.counters().routes().unwrap().get(&subnet(third)).copied() == wanted;
    wait_until(&what, LIMIT, is).unwrap();
}

/// Waits until the second node's agent knows the first's subnet at the first's address: what an agent says of its own
/// lease, its peers hear a moment later.
#[track_caller]
pub(crate) fn await_peer(cluster: &Cluster) {
    let [one, two, ..] = cluster.nodes() else { panic!("two nodes") };
    let (subnet, hop) = (one.subnet().subnet(), one.address());
    let knows = || two.counters().routes().unwrap().get(&subnet).is_some_and(|route| route.next_hop().ip() == hop);
    wait_until("the peer's route to us", LIMIT, knows).unwrap();
}

/// How often the node's agent has said `words` on one line.
pub(crate) fn said(node: &mut Node, words: &[&str]) -> usize {
    node.agent().log().lines().filter(|line| words.iter().all(|word| line.contains(word))).count()
}

/// Waits until the agent has said `words` on one line `times` times.
#[track_caller]
pub(crate) fn await_said(node: &mut Node, words: &[&str], times: usize) {
    let what = format!("the agent to say {words:?} {times} times");
    let outcome = wait_until(&what, LIMIT, || said(node, words) >= times);
    assert!(outcome.is_ok(), "{what}\n{}", node.agent().tail());
    assert_eq!(said(node, words), times, "{words:?} in:\n{}", node.agent().log());
}

/// How many of two pings from the first node's container to the second's are answered.
pub(crate) fn pings(cluster: &Cluster) -> u32 {
    let [one, two, ..] = cluster.nodes() else { panic!("two nodes") };
    ping(&one.container().netns, two.container().v4(), 2).unwrap().received
}

/// Packets that the first node has sent into the subnet of the second, since the route was made.
pub(crate) fn sent(cluster: &Cluster) -> u64 {
    let [one, two, ..] = cluster.nodes() else { panic!("two nodes") };
    one.counters().traffic(two.subnet().subnet()).unwrap().encap_packets
}
