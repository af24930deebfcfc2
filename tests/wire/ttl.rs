//! The inner TTL, as routing over two nodes would treat it.

use std::net::{Ipv4Addr, UdpSocket};

use overlay_tests::{
    packet_socket::PacketSocket,
    packets::{Ipv4, PROTO_ICMP, PROTO_UDP},
};

use crate::ground::{Backend, LIMIT, flow, for_either_backend, on_two_nodes, settings, two};

/// Where traceroute's packets go: a port that nobody listens on.
const PORT: u16 = 33_434;

/// ICMP: destination unreachable, and its code for a port.
const PORT_UNREACHABLE: [u8; 2] = [3, 3];
/// ICMP: time exceeded in transit.
const TIME_EXCEEDED: [u8; 2] = [11, 0];

for_either_backend! {
    fn traceroute_shows_both_nodes(backend) {
        on_two_nodes(&settings(backend), |cluster| {
            let [one, two] = two(cluster);
            let (here, there) = (one.container(), two.container());
            let sees = PacketSocket::open(&here.netns, "eth0").unwrap();
            let socket = here.netns.run(|| UdpSocket::bind((here.v4(), 0))).unwrap();
            let mut hops = Vec::new();
            for ttl in 1..=3 {
                socket.set_ttl(ttl).unwrap();
                // A port unreachable from before shows as an error here, and is over then.
                socket.send_to(b"trace", (there.v4(), PORT)).unwrap();
                let answer = |packet: &Ipv4| packet.protocol == PROTO_ICMP && packet.destination == here.v4();
                let pick = |frame: &overlay_tests::packet_socket::Frame| Ipv4::in_frame(&frame.bytes).filter(answer);
                let packet = sees.find(&format!("an answer to TTL {ttl}"), LIMIT, pick).unwrap();
                hops.push((packet.source, [packet.payload[0], packet.payload[1]]));
            }
            let overlay_device = two.subnet().subnet();
            let expected: [(Ipv4Addr, [u8; 2]); 3] = [
                (one.subnet().gateway(), TIME_EXCEEDED),
                (overlay_device, TIME_EXCEEDED),
                (there.v4(), PORT_UNREACHABLE),
            ];
            assert_eq!(hops, expected);
        });
    }

    fn each_node_takes_one_from_the_ttl(backend) {
        on_two_nodes(&settings(backend), |cluster| {
            let [one, two] = two(cluster);
            for (from, to) in [(one, two), (two, one)] {
                let sees = PacketSocket::open(&to.container().netns, "eth0").unwrap();
                assert_eq!(flow(from, to).udp_echo(1, 100).unwrap(), 1);
                let arrived = |packet: &Ipv4| packet.protocol == PROTO_UDP && packet.destination == to.container().v4();
                let pick = |frame: &overlay_tests::packet_socket::Frame| Ipv4::in_frame(&frame.bytes).filter(arrived);
                assert_eq!(sees.find("the packet", LIMIT, pick).unwrap().ttl, 62);
            }
        });
    }
}
