//! Super-packets, and what hardware does or does not do with them; flows and the receive queues they spread over.

use std::{collections::BTreeSet, net::UdpSocket};

use overlay_tests::{
    cluster::Cluster,
    node::{Node, UNDERLAY_DEVICE},
    packet_socket::PacketSocket,
    packets::Ipv4,
};

use crate::ground::{Backend, flow, for_either_backend, on_two_nodes, settings, two};

/// An Ethernet header and what the underlay's MTU allows.
const LONGEST_FRAME: usize = 1514;

const OFFLOADS: [&str; 4] = ["tso", "gso", "tx", "gro"];

/// Sends a stream both ways and returns the length of the longest frame that each node sent into the underlay.
fn longest_frames(cluster: &Cluster) -> [usize; 2] {
    let nodes = two(cluster);
    let sees = nodes.map(|node| PacketSocket::open(node.netns(), UNDERLAY_DEVICE).unwrap());
    for [from, to] in [nodes, [nodes[1], nodes[0]]] {
        flow(from, to).tcp_transfer(4 << 20).unwrap();
        assert_eq!(flow(from, to).udp_echo(2, 1400).unwrap(), 2);
    }
    sees.map(|sees| sees.drain(|frame| frame.outgoing.then_some(frame.bytes.len())).unwrap().into_iter().max().unwrap())
}

/// Switches what the underlay does for the nodes, at both ends of their cables.
fn offload(cluster: &Cluster, on: bool) {
    for node in cluster.nodes() {
        node.netns().offload(UNDERLAY_DEVICE, &OFFLOADS, on).unwrap();
        cluster.underlay().offload(node.name(), &OFFLOADS, on).unwrap();
    }
}

/// The outer source ports of `flows` UDP flows.
fn source_ports(from: &Node, to: &Node, flows: usize) -> Vec<u16> {
    let sees = PacketSocket::open(from.netns(), UNDERLAY_DEVICE).unwrap();
    for _ in 0..flows {
        let socket = from.container().netns.run(|| UdpSocket::bind((from.container().v4(), 0))).unwrap();
        socket.send_to(b"flow", (to.container().v4(), 4242)).unwrap();
    }
    let ports = |outer: Ipv4| {
        (outer.destination == to.address()).then(|| u16::from_be_bytes([outer.payload[0], outer.payload[1]]))
    };
    sees.drain(|frame| frame.outgoing.then(|| Ipv4::in_frame(&frame.bytes)).flatten().and_then(ports)).unwrap()
}

for_either_backend! {
    fn super_packets_cross_whole_where_the_underlay_takes_them_and_in_segments_where_not(backend) {
        on_two_nodes(&settings(backend), |cluster| {
            let whole = longest_frames(cluster);
            assert!(whole.iter().all(|longest| *longest > 8 * LONGEST_FRAME), "{whole:?}");
            offload(cluster, false);
            let segments = longest_frames(cluster);
            assert!(segments.iter().all(|longest| *longest <= LONGEST_FRAME), "{segments:?}");
            offload(cluster, true);
            longest_frames(cluster);
            for node in cluster.nodes() {
                assert_eq!(node.counters().drops().unwrap(), []);
            }
        });
    }

    fn flows_spread_over_outer_source_ports(backend) {
        on_two_nodes(&settings(backend), |cluster| {
            let [one, two] = two(cluster);
            let ports = source_ports(one, two, 200);
            assert_eq!(ports.len(), 200);
            let distinct: BTreeSet<_> = ports.iter().collect();
            assert!(distinct.len() > 160, "{} ports for 200 flows", distinct.len());
        });
    }

    fn a_flow_keeps_its_outer_source_port(backend) {
        on_two_nodes(&settings(backend), |cluster| {
            let [one, two] = two(cluster);
            let sees = PacketSocket::open(one.netns(), UNDERLAY_DEVICE).unwrap();
            assert_eq!(flow(one, two).udp_echo(20, 100).unwrap(), 20);
            let port = |outer: Ipv4| {
                (outer.destination == two.address()).then(|| [outer.payload[0], outer.payload[1]])
            };
            let ports =
                sees.drain(|frame| frame.outgoing.then(|| Ipv4::in_frame(&frame.bytes)).flatten().and_then(port)).unwrap();
            assert_eq!(ports, vec![ports[0]; 20]);
        });
    }
}
