//! Containers with IPv6, beside IPv4 of the overlay or beside Docker's own.

use std::net::{IpAddr, TcpListener, TcpStream};

use overlay_tests::{
    docker::DockerContainer,
    families::{Families, v6_among},
    node::Node,
    process::{output, wait_until},
    underlay::Underlay,
};

use crate::ground::{Ground, LIMIT, dns, flow_to, on_two_dockers_with, report};

const QUERIES: u32 = 100;
const BULK: u64 = 16 << 20;
const PINGS: u32 = 3;

/// The addresses of `container` that are the overlay's.
fn overlay_addresses(node: &Node, container: &DockerContainer) -> Vec<IpAddr> {
    let subnets: Vec<_> = node.subnet().networks().collect();
    let ours = |address: &IpAddr| subnets.iter().any(|subnet| subnet.contains(*address));
    let addresses: Vec<_> = container.container.addresses.iter().copied().filter(ours).collect();
    assert_eq!(addresses.len(), subnets.len(), "{container:?} in {subnets:?}");
    addresses
}

/// Both containers talk in every way, both ways, at each of their addresses in the overlay.
fn talk(ground: &Ground, [here, there]: [&DockerContainer; 2]) {
    let [one, two] = ground.nodes();
    for (docker, from, to, node) in [(&ground.dockers[0], here, there, two), (&ground.dockers[1], there, here, one)] {
        for address in overlay_addresses(node, to) {
            docker.exec(&from.name, &format!("ping -c {PINGS} -i 0.1 -W 5 {address}")).unwrap();
            let flow = flow_to(from, to, address);
            dns(&flow, QUERIES);
            assert!(flow.tcp_transfer(BULK).unwrap().bytes >= BULK, "{address}");
        }
    }
}

/// Drops what is addressed to `container` over IPv6 and comes in by another interface than Docker's bridge: as Docker does
/// from version 28 on.
fn drop_what_is_routed_here(node: &Node, container: &DockerContainer) {
    let address = v6_among(&container.container.addresses).unwrap();
    let rules = |arguments: &str| {
        output(node.netns().command("ip6tables").args(["-t", "raw"]).args(arguments.split(' '))).unwrap()
    };
    rules(&format!("-A PREROUTING -d {address} ! -i docker0 -j DROP"));
    wait_until("the agent to accept overlay traffic in front", LIMIT, || {
        rules("-S PREROUTING").contains("-j OVERLAY-PREROUTING-")
    })
    .unwrap();
}

/// `container` reaches a machine outside over IPv6, under the address of its node, the first one.
fn reaches_the_outside(ground: &Ground, container: &DockerContainer) {
    let outside = ground.cluster.attach("outside", 78).unwrap().0;
    let (address, its_node) = (Underlay::v6(78), Underlay::v6(1));
    let listener = outside.run(|| TcpListener::bind((address, 80))).unwrap();
    let connect = || TcpStream::connect_timeout(&(address, 80).into(), LIMIT);
    let _client = container.container.netns.run(connect).unwrap();
    assert_eq!(listener.accept().unwrap().1.ip(), its_node);
}

fn containers_talk(families: Families) {
    on_two_dockers_with(families, |ground| {
        let [here, there] = ground.containers();
        talk(ground, [&here, &there]);
        reaches_the_outside(ground, &here);
        for (node, container) in ground.nodes().into_iter().zip([&here, &there]) {
            drop_what_is_routed_here(node, container);
        }
        talk(ground, [&here, &there]);
        let [one, two] = ground.nodes();
        for subnet in two.subnet().networks() {
            let traffic = one.counters().traffic(subnet.network()).unwrap();
            assert!(traffic.encap_fast_packets > 0, "{subnet}: {traffic:?}");
        }
        report(format_args!(
            "{families:?} containers across nodes, where Docker drops what it forwards over IPv6: 2 pairs, twice, each with \
             {PINGS} pings, {QUERIES} DNS-like queries and {} MiB over TCP in each family, 0 lost",
            BULK >> 20
        ));
    });
}

#[test]
fn dual_stack_containers_of_two_dockers_talk_over_both_families() {
    containers_talk(Families::Dual);
}

#[test]
fn ipv6_containers_of_two_dockers_talk_beside_dockers_own_ipv4() {
    containers_talk(Families::V6);
}
