//! The socket on the port of UDP encapsulation.

use std::net::{Ipv4Addr, UdpSocket};
use std::time::Duration;

use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::Ipv4Tos;
use overlay_user::link::set_up;
use overlay_user::listener::{Listener, ListenerError, Received, Sources};
use tokio::time::timeout;

use crate::node::{Node, udp};

const PORT: u16 = 8285;
const UNDERLAY: Ipv4Addr = Ipv4Addr::new(192, 168, 50, 1);

/// The peer with 10.1.16.0/24; ours is 10.1.15.0/24.
struct OnePeer;

impl Sources for OnePeer {
    fn accepts(&self, node: Ipv4Addr, inner_source: Ipv4Addr) -> bool {
        node == Ipv4Addr::new(192, 168, 50, 2) && inner_source.octets()[..3] == [10, 1, 16]
    }
    fn is_ours(&self, inner_destination: Ipv4Addr) -> bool {
        inner_destination.octets()[..3] == [10, 1, 15]
    }
}

/// An IPv4 packet with a UDP datagram (no checksum) from 10.1.16.2 to 10.1.15.1, port 7000.
fn inner(payload: &[u8]) -> Vec<u8> {
    let total = u16::try_from(28 + payload.len()).unwrap().to_be_bytes();
    let udp = u16::try_from(8 + payload.len()).unwrap().to_be_bytes();
    let mut packet = vec![0x45, 0, total[0], total[1], 0, 0, 0x40, 0, 64, 17, 0, 0, 10, 1, 16, 2, 10, 1, 15, 1];
    let sum: u32 = packet.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let checksum = !((sum & 0xffff) + (sum >> 16)) as u16;
    packet[10..12].copy_from_slice(&checksum.to_be_bytes());
    packet.extend([0x1b, 0x58, 0x1b, 0x58, udp[0], udp[1], 0, 0]);
    packet.extend(payload);
    packet
}

#[test]
fn a_taken_port_is_refused_with_the_name_of_who_has_it() {
    let node = Node::new();
    let _holder = node.netns.run(|| UdpSocket::bind(("0.0.0.0", PORT))).unwrap();
    let refused = node.netns.block_on(Listener::bind(UNDERLAY, PORT)).unwrap_err();
    assert!(matches!(refused, ListenerError::InUse { .. }), "{refused}");
    let text = refused.to_string();
    let pid = format!("(pid {})", std::process::id());
    assert!(text.contains("port 8285/udp is in use by") && text.contains(&pid), "{text}");
}

#[test]
fn a_packet_in_outer_fragments_still_arrives() {
    let node = Node::new();
    node.netns.bridge("docker0").unwrap();
    node.netns.ip("address add 10.1.15.1/24 dev docker0").unwrap();
    let payload = vec![7u8; 3000];
    let sender = node.peer.run(|| UdpSocket::bind("192.168.50.2:0")).unwrap();
    let container = node.netns.run(|| UdpSocket::bind("10.1.15.1:7000")).unwrap();
    container.set_nonblocking(true).unwrap();
    let received = node.run(async |handle| {
        let link = set_up(handle, &udp()).await.unwrap();
        let listener = Listener::bind(UNDERLAY, PORT).await.unwrap();
        let container = tokio::net::UdpSocket::from_std(container).unwrap();
        let tap = link.tap.as_ref().unwrap();
        // 3028 bytes over an MTU of 1500: the sender's kernel makes three fragments.
        sender.send_to(&inner(&payload), (UNDERLAY, PORT)).unwrap();
        let mut buffer = vec![0; 4000];
        tokio::select! {
            failed = listener.run(tap, link.mac, &OnePeer, |_| ()) => panic!("{failed:?}"),
            received = timeout(Duration::from_secs(10), container.recv_from(&mut buffer)) => {
                let (length, from) = received.expect("the packet within the deadline").unwrap();
                assert_eq!(from.to_string(), "10.1.16.2:7000");
                buffer.truncate(length);
            }
        }
        buffer
    });
    assert_eq!(received, payload);
}

/// What the listener counts when it receives `packet` from `sender`.
fn totals(node: &Node, sender: &UdpSocket, packet: &[u8]) -> Received {
    node.run(async |handle| {
        let link = set_up(handle, &udp()).await.unwrap();
        let listener = Listener::bind(UNDERLAY, PORT).await.unwrap();
        sender.send_to(packet, (UNDERLAY, PORT)).unwrap();
        let (report, mut totals) = tokio::sync::mpsc::unbounded_channel();
        let tap = link.tap.as_ref().unwrap();
        tokio::select! {
            failed = listener.run(tap, link.mac, &OnePeer, |total| report.send(total).unwrap()) => panic!("{failed:?}"),
            total = timeout(Duration::from_secs(10), totals.recv()) => total.expect("a report").unwrap(),
        }
    })
}

#[test]
fn packets_from_strangers_are_counted_and_dropped() {
    let node = Node::new();
    node.peer.ip("address add 192.168.50.3/24 dev eth0").unwrap();
    let stranger = node.peer.run(|| UdpSocket::bind("192.168.50.3:0")).unwrap();
    assert_eq!(totals(&node, &stranger, &inner(b"let me in")), Received { accepted: 0, refused: 1 });
}

#[test]
fn congestion_that_the_inner_packet_cannot_report_drops_it() {
    for (outer, expected) in [(2, Received { accepted: 1, refused: 0 }), (3, Received { accepted: 0, refused: 1 })] {
        let node = Node::new();
        let sender = node.peer.run(|| UdpSocket::bind("192.168.50.2:0")).unwrap();
        setsockopt(&sender, Ipv4Tos, &outer).unwrap();
        assert_eq!(totals(&node, &sender, &inner(b"not capable of ECN")), expected, "outer ECN {outer:02b}");
    }
}
