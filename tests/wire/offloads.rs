//! Super-packets, and what hardware does or does not do with them; flows and the receive queues they spread over.

use std::{
    collections::BTreeSet,
    net::{SocketAddr, UdpSocket},
};

use overlay_tests::{cluster::Cluster, marks::Marks, node::UNDERLAY_DEVICE, packet_socket::PacketSocket};

use crate::ground::{drops, flow, for_every_way, on_two_nodes, settings, two};

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

/// How many flows go one way.
const FLOWS: u16 = 200;

for_every_way! {
    fn super_packets_cross_whole_where_the_underlay_takes_them_and_in_segments_where_not(way) {
        on_two_nodes(&settings(way), |cluster| {
            let whole = longest_frames(cluster);
            assert!(whole.iter().all(|longest| *longest > 8 * LONGEST_FRAME), "{whole:?}");
            offload(cluster, false);
            let segments = longest_frames(cluster);
            assert!(segments.iter().all(|longest| *longest <= LONGEST_FRAME), "{segments:?}");
            offload(cluster, true);
            longest_frames(cluster);
            for node in cluster.nodes() {
                assert_eq!(drops(node), []);
            }
        });
    }

    fn flows_spread_over_outer_source_ports_and_flow_labels(way) {
        on_two_nodes(&settings(way), |cluster| {
            let [one, two] = two(cluster);
            let marks = Marks::watch(one, two).unwrap();
            let (from, to) = (one.container(), SocketAddr::new(two.container().address(), 4242));
            let sockets = (0..FLOWS).map(|_| from.netns.run(|| UdpSocket::bind((from.address(), 0))).unwrap());
            // All at once, so that no two have one port.
            let sockets: Vec<_> = sockets.collect();
            for socket in &sockets {
                socket.send_to(b"flow", to).unwrap();
            }
            let marks = marks.take().unwrap();
            assert_eq!(marks.len(), usize::from(FLOWS));
            let ports: BTreeSet<_> = marks.iter().map(|mark| mark.port).collect();
            assert!(ports.len() > 160 && ports.iter().all(|port| *port >= 49_152), "{} ports: {ports:?}", ports.len());
            let labels: BTreeSet<_> = marks.iter().filter_map(|mark| mark.label).collect();
            let expected = if way.underlay.has_v6() { 160..=usize::from(FLOWS) } else { 0..=0 };
            assert!(expected.contains(&labels.len()), "{} labels: {labels:x?}", labels.len());
        });
    }
}
