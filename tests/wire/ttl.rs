//! The inner TTL, as routing over two nodes would treat it.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use overlay_tests::{
    headers::set_ttl,
    packet_socket::{Frame, PacketSocket},
    packets::{Complaint, Either, PROTO_UDP},
};

use crate::ground::{LIMIT, flow, for_every_way, gateway, on_two_nodes, settings, two};

/// Where traceroute's packets go: a port that nobody listens on.
const PORT: u16 = 33_434;

for_every_way! {
    fn traceroute_shows_both_nodes(way) {
        on_two_nodes(&settings(way), |cluster| {
            let [one, two] = two(cluster);
            let (here, there) = (one.container(), two.container());
            let sees = PacketSocket::open(&here.netns, "eth0").unwrap();
            let socket = here.netns.run(|| UdpSocket::bind((here.address(), 0))).unwrap();
            let mut hops = Vec::new();
            for ttl in 1..=3 {
                set_ttl(&socket, ttl).unwrap();
                // A port unreachable from before shows as an error here, and is over then.
                socket.send_to(b"trace", SocketAddr::new(there.address(), PORT)).unwrap();
                let ours = |frame: &Frame| Either::in_frame(&frame.bytes).filter(|packet| packet.destination == here.address());
                let answer = |frame: &Frame| ours(frame).and_then(|packet| Some((packet.source, packet.complaint()?)));
                hops.push(sees.find(&format!("an answer to TTL {ttl}"), LIMIT, answer).unwrap());
            }
            let overlay_device = gateway(two).network();
            let expected: [(IpAddr, Complaint); 3] = [
                (gateway(one).ip(), Complaint::TimeExceeded),
                (overlay_device, Complaint::TimeExceeded),
                (there.address(), Complaint::PortUnreachable),
            ];
            assert_eq!(hops, expected);
        });
    }

    fn each_node_takes_one_from_the_ttl(way) {
        on_two_nodes(&settings(way), |cluster| {
            let [one, two] = two(cluster);
            for (from, to) in [(one, two), (two, one)] {
                let sees = PacketSocket::open(&to.container().netns, "eth0").unwrap();
                assert_eq!(flow(from, to).udp_echo(1, 100).unwrap(), 1);
                let arrived = |packet: &Either| packet.protocol == PROTO_UDP && packet.destination == to.container().address();
                let pick = |frame: &Frame| Either::in_frame(&frame.bytes).filter(arrived);
                assert_eq!(sees.find("the packet", LIMIT, pick).unwrap().ttl, 62);
            }
        });
    }
}
