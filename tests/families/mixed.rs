//! Our nodes and one that flannel has set up, with the kernel's VXLAN devices alone.

use std::{net::IpAddr, time::Duration};

use ipnetwork::IpNetwork;
use overlay_tests::{
    cluster::{CONFIG_KEY, Cluster},
    families::Families,
    kernel_vxlan::{KernelNode, TunnelEnd},
    netns::Netns,
    node::Node,
    process::{output, wait_until},
    traffic::{Flow, ping},
    underlay::Underlay,
};

use crate::ground::{all_talk, devices, on_cluster, settings};

const LIMIT: Duration = Duration::from_secs(20);

/// The peer's number on the underlay, and its subnets: far from any that our nodes would draw early.
const PEER: u8 = 77;
const SUBNETS: [&str; 2] = ["10.1.200.0/24", "fd00:10:1:200::/64"];
const KEY: &str = "10.1.200.0-24&fd00:10:1:200::-64";

fn subnets() -> [IpNetwork; 2] {
    SUBNETS.map(|subnet| subnet.parse().unwrap())
}

/// The tunnel ends of our nodes, as their leases describe them.
fn our_ends(cluster: &Cluster) -> Vec<TunnelEnd> {
    let leases = cluster.etcd().list(&CONFIG_KEY.replace("config", "subnets/")).unwrap();
    let ours = leases.iter().filter(|(key, _)| !key.ends_with(KEY));
    ours.flat_map(|(key, value)| TunnelEnd::of_lease(key, value).unwrap()).collect()
}

/// Puts a node like flannel's beside ours, and its lease beside theirs.
fn join(cluster: &Cluster) -> KernelNode {
    let (netns, ipv4) = cluster.attach("peer", PEER).unwrap();
    let peer = KernelNode::new(netns, &[ipv4.into(), Underlay::v6(PEER).into()], &subnets(), 1500).unwrap();
    our_ends(cluster).iter().for_each(|end| peer.learn(end).unwrap());
    cluster.etcd().put(&CONFIG_KEY.replace("config", &format!("subnets/{KEY}")), &peer.lease().unwrap()).unwrap();
    for node in cluster.nodes() {
        let knows = |subnet: IpNetwork| node.counters().route(subnet.network()).unwrap().is_some();
        wait_until("routes to the peer", LIMIT, || subnets().into_iter().all(knows)).unwrap();
    }
    peer
}

/// Each end pings the other at each address, and exchanges UDP packets, small and in fragments, and a TCP stream with it.
#[track_caller]
fn talk(from: &Netns, to: &Netns, addresses: &[IpAddr]) {
    for &address in addresses {
        assert_eq!(ping(from, address, 2).unwrap().received, 2, "pings to {address}");
        let flow = Flow::new(from, to, address);
        flow.tcp_transfer(4 << 20).unwrap_or_else(|error| panic!("TCP to {address}: {error:#}"));
        // flannel tells its containers of an MTU that is too large for IPv6: they find out by an answer that gets lost.
        flow.udp_echo(1, 8000).unwrap();
        for size in [1, 1300, 8000] {
            assert_eq!(flow.udp_echo(3, size).unwrap(), 3, "UDP of {size} bytes to {address}");
        }
    }
}

/// What the overlay device over IPv6 sends by itself: its forwarding entries.
fn forwarded(node: &Node) -> String {
    let shown = output(node.netns().command("bridge").args(["fdb", "show", "dev", "overlay-v6.1"])).unwrap();
    shown.lines().filter(|line| line.contains(" dst ")).map(|line| format!("{line}\n")).collect()
}

fn has_device(node: &Node) -> bool {
    devices(node).contains(&"overlay-v6.1".to_owned())
}

#[test]
fn our_nodes_and_a_dual_stack_kernel_node_talk_over_each_family() {
    on_cluster(&settings(2, Families::Dual, Families::Dual), |cluster| {
        let peer = join(cluster);
        for node in cluster.nodes() {
            let (ours, theirs) = (node.container(), &peer.container);
            talk(&ours.netns, &theirs.netns, &theirs.addresses);
            talk(&theirs.netns, &ours.netns, &ours.addresses);
        }
        let [one, two] = cluster.nodes() else { panic!("two nodes") };
        let checksum = |subnet: IpNetwork| one.counters().route(subnet.network()).unwrap().unwrap().wants_checksum();
        assert_eq!(subnets().map(checksum), [false, true]);
        assert!(!two.subnet().networks().any(checksum), "our own nodes take packets without");
        for subnet in subnets() {
            let traffic = one.counters().traffic(subnet.network()).unwrap();
            assert!(traffic.encap_packets > 10 && traffic.decap_packets > 10, "{subnet}: {traffic:?}");
        }
        let told = forwarded(one);
        assert!(told.lines().count() == 1 && told.contains(&format!("dst {}", Underlay::v6(PEER))), "{told}");
        let one = &mut cluster.nodes_mut()[0];
        one.agent().kill().unwrap();
        talk(&one.container().netns, &peer.container.netns, &peer.container.addresses);
        one.start_agent().unwrap();
        one.wait_ready().unwrap();
        assert_eq!(forwarded(one), told);
        one.netns().ip("link delete overlay-v6.1").unwrap();
        let is_told = || has_device(one) && forwarded(one) == told;
        wait_until("the device to be there again and to know the peer", LIMIT, is_told).unwrap();
        cluster.etcd().delete(&CONFIG_KEY.replace("config", &format!("subnets/{KEY}"))).unwrap();
        for node in cluster.nodes() {
            wait_until("the peer to be forgotten", LIMIT, || forwarded(node).is_empty()).unwrap();
        }
        all_talk(cluster.nodes());
    });
}
