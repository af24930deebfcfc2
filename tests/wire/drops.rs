//! What is never encapsulated, and how it is counted.

use std::net::{Ipv4Addr, UdpSocket};

use overlay_common::Reason;
use overlay_tests::{
    node::UNDERLAY_DEVICE,
    packet_socket::{Frame, PacketSocket},
    packets::{ETHER_ARP, ETHER_IPV4, ETHER_IPV6, Ipv4, PROTO_UDP, ethernet, udp},
    process::wait_until,
    traffic::ping,
};

use crate::{
    ground::{Backend, LIMIT, dropped, for_either_backend, on_two_nodes, settings, two},
    hostile::{mac, port_and_device},
};

const PAYLOAD: &[u8] = b"this must not leave";

fn carries(frame: &Frame) -> Option<Frame> {
    frame.bytes.windows(PAYLOAD.len()).any(|window| window == PAYLOAD).then(|| frame.clone())
}

/// What is sent into the overlay device, and why it goes no further. `own` and `remote` are addresses in this node's
/// subnet and in another's.
fn cases(own: Ipv4Addr, remote: Ipv4Addr) -> Vec<(&'static str, Reason, u16, Vec<u8>)> {
    let packet =
        |source: Ipv4Addr, destination: Ipv4Addr| Ipv4::new(source, destination, PROTO_UDP, udp(1, 2, PAYLOAD)).bytes();
    let to = |destination: [u8; 4]| packet(own, destination.into());
    vec![
        ("IPv6", Reason::NotIpv4, ETHER_IPV6, [&[0x60; 40], PAYLOAD].concat()),
        ("ARP", Reason::NotIpv4, ETHER_ARP, [&[0; 28], PAYLOAD].concat()),
        ("broadcast", Reason::NotUnicast, ETHER_IPV4, to([255; 4])),
        ("multicast", Reason::NotUnicast, ETHER_IPV4, to([224, 0, 0, 251])),
        ("link-local", Reason::NotUnicast, ETHER_IPV4, to([169, 254, 1, 1])),
        ("loopback", Reason::NotUnicast, ETHER_IPV4, to([127, 0, 0, 1])),
        ("this network", Reason::NotUnicast, ETHER_IPV4, to([0, 0, 0, 1])),
        ("reserved", Reason::NotUnicast, ETHER_IPV4, to([240, 0, 0, 1])),
        ("outside the network", Reason::OutsideNetwork, ETHER_IPV4, to([192, 0, 2, 1])),
        ("our own subnet", Reason::OwnSubnet, ETHER_IPV4, packet(own, own)),
        ("another node's source", Reason::SourceNotOurs, ETHER_IPV4, packet(remote, remote)),
        ("an outside source", Reason::SourceNotOurs, ETHER_IPV4, packet([192, 0, 2, 1].into(), remote)),
    ]
}

for_either_backend! {
    fn what_no_node_may_send_is_dropped_and_counted_under_its_reason(backend) {
        on_two_nodes(&settings(backend), |cluster| {
            let [one, two] = two(cluster);
            let (_, device) = port_and_device(backend);
            let (socket, device_mac) = (PacketSocket::open(one.netns(), device).unwrap(), mac(one.netns(), device));
            let sees = PacketSocket::open(one.netns(), UNDERLAY_DEVICE).unwrap();
            for (name, reason, ether_type, packet) in cases(one.container().v4(), two.container().v4()) {
                let before = dropped(one, reason);
                // The sender is told of the drop as of a full queue.
                socket.send(&ethernet([2; 6], device_mac, ether_type, &packet)).unwrap_err();
                wait_until(&format!("{name} to be dropped for {reason:?}"), LIMIT, || dropped(one, reason) == before + 1)
                    .unwrap_or_else(|error| panic!("{error:#}; drops: {:?}", one.counters().drops()));
            }
            assert_eq!(sees.drain(carries).unwrap(), [], "on the underlay");
        });
    }

    fn a_containers_broadcasts_and_multicasts_reach_no_other_node(backend) {
        on_two_nodes(&settings(backend), |cluster| {
            let [one, two] = two(cluster);
            let sees = PacketSocket::open(&two.container().netns, "eth0").unwrap();
            let here = one.container();
            let socket = here.netns.run(|| UdpSocket::bind((here.v4(), 0))).unwrap();
            socket.set_broadcast(true).unwrap();
            let remote = two.subnet().address(255);
            for to in [[255; 4].into(), [224, 0, 0, 251].into(), [10, 1, 255, 255].into(), remote] {
                socket.send_to(PAYLOAD, (to, 4242)).unwrap();
            }
            let v6 = here.netns.run(|| UdpSocket::bind("[::]:0")).unwrap();
            // No address yet is as good as none at all.
            v6.send_to(PAYLOAD, "[ff02::1%eth0]:4242").ok();
            assert_eq!(ping(&here.netns, two.container().v4(), 1).unwrap().received, 1);
            assert_eq!(sees.drain(carries).unwrap(), [], "in the other container");
        });
    }
}
