//! What routing does to a packet's header happens on the fast path as well.

use nix::sys::socket::{setsockopt, sockopt};
use overlay_tests::{
    node::{BRIDGE, Container, Node},
    packet_socket::{Frame, PacketSocket},
    packets::{Ipv4, PROTO_ICMP, PROTO_UDP},
    process::{wait_for, wait_until},
};

use crate::ground::{Backend, Conversation, Forwarded, LIMIT, approving, for_either_backend, on_two_nodes, two};

/// ICMP: time exceeded in transit.
const TIME_EXCEEDED: [u8; 2] = [11, 0];
/// ICMP: fragmentation needed and DF set.
const FRAG_NEEDED: [u8; 2] = [3, 4];

/// The next packet that `wanted` likes.
fn find(sees: &PacketSocket, what: &str, wanted: impl Fn(&Ipv4) -> bool) -> Ipv4 {
    sees.find(what, LIMIT, |frame: &Frame| Ipv4::in_frame(&frame.bytes).filter(&wanted)).unwrap()
}

/// The next UDP packet for `container`, as it comes in.
fn arrival(sees: &PacketSocket, container: &Container) -> Ipv4 {
    find(sees, "the packet", |packet| packet.protocol == PROTO_UDP && packet.destination == container.v4())
}

/// The next ICMP message for `container`: whom it is from, its type and code.
fn complaint(sees: &PacketSocket, container: &Container) -> (std::net::Ipv4Addr, [u8; 2]) {
    let packet =
        find(sees, "a complaint", |packet| packet.protocol == PROTO_ICMP && packet.destination == container.v4());
    (packet.source, [packet.payload[0], packet.payload[1]])
}

fn raise_container_mtu(node: &Node) {
    node.netns().ip("link set dev container mtu 9000").unwrap();
    node.netns().ip(&format!("link set dev {BRIDGE} mtu 9000")).unwrap();
    node.container().netns.ip("link set dev eth0 mtu 9000").unwrap();
}

for_either_backend! {
    fn each_node_takes_one_from_the_ttl(backend) {
        // Long enough that nothing goes past netfilter to be renewed.
        on_two_nodes(&approving(backend, 60), |cluster| {
            let [one, two] = two(cluster);
            let conversation = Conversation::between(one.container(), two.container());
            conversation.engage([one, two]);
            let forwarded = [one, two].map(|node| Forwarded::count(node, "udp sport > 0"));
            for ttl in [3, 64, 255] {
                let sees = [one, two].map(|node| PacketSocket::open(&node.container().netns, "eth0").unwrap());
                for socket in [&conversation.near, &conversation.far] {
                    socket.set_ttl(ttl).unwrap();
                }
                assert!(conversation.exchange());
                for (sees, node) in sees.iter().zip([two, one].into_iter().rev()) {
                    assert_eq!(u32::from(arrival(sees, node.container()).ttl), ttl - 2);
                }
            }
            assert_eq!(forwarded.map(|forwarded| forwarded.packets()), [0, 0], "past netfilter");
        });
    }

    fn a_packet_whose_ttl_ends_is_reported_by_the_node_where_it_does(backend) {
        on_two_nodes(&approving(backend, 60), |cluster| {
            let [one, two] = two(cluster);
            let conversation = Conversation::between(one.container(), two.container());
            conversation.engage([one, two]);
            let sees = PacketSocket::open(&one.container().netns, "eth0").unwrap();
            for (ttl, router) in [(1, one.subnet().gateway()), (2, two.subnet().subnet())] {
                conversation.near.set_ttl(ttl).unwrap();
                conversation.near.send(b"trace").unwrap();
                assert_eq!(complaint(&sees, one.container()), (router, TIME_EXCEEDED), "TTL {ttl}");
            }
            conversation.near.set_ttl(64).unwrap();
            assert!(conversation.exchange(), "the flow goes on");
        });
    }

    fn a_packet_that_does_not_fit_the_overlay_is_refused_with_its_mtu(backend) {
        on_two_nodes(&approving(backend, 60), |cluster| {
            let [one, two] = two(cluster);
            raise_container_mtu(one);
            let conversation = Conversation::between(one.container(), two.container());
            conversation.engage([one, two]);
            let sees = PacketSocket::open(&one.container().netns, "eth0").unwrap();
            let mtu = usize::try_from(one.subnet().mtu).unwrap();
            conversation.near.send(&vec![0; mtu - 28]).unwrap();
            assert_eq!(conversation.far.recv(&mut [0; 2000]).unwrap(), mtu - 28, "what just fits");
            // With DF, as Linux sends UDP.
            conversation.near.send(&vec![0; mtu - 27]).unwrap();
            assert_eq!(complaint(&sees, one.container()), (one.subnet().gateway(), FRAG_NEEDED));
            let told = wait_for("the sender to be told", LIMIT, || Ok(conversation.near.take_error()?)).unwrap();
            assert_eq!(told.raw_os_error(), Some(nix::libc::EMSGSIZE));
            assert!(conversation.exchange(), "the flow goes on");
        });
    }

    fn a_smaller_mtu_of_the_underlay_holds_for_running_flows(backend) {
        on_two_nodes(&approving(backend, 60), |cluster| {
            let [one, two] = two(cluster);
            let conversation = Conversation::between(one.container(), two.container());
            conversation.engage([one, two]);
            let sees = PacketSocket::open(&one.container().netns, "eth0").unwrap();
            let before = one.subnet().mtu;
            one.netns().ip("link set dev eth0 mtu 1400").unwrap();
            let device = if backend == Backend::Udp { "overlay.0" } else { "overlay.1" };
            let followed = || one.netns().ip(&format!("link show dev {device}")).unwrap().contains(&format!("mtu {} ", before - 100));
            wait_until("the overlay device's MTU", LIMIT, followed).unwrap();
            conversation.near.send(&vec![0; usize::try_from(before).unwrap() - 28 - 50]).unwrap();
            assert_eq!(complaint(&sees, one.container()), (one.subnet().gateway(), FRAG_NEEDED));
        });
    }

    fn dscp_and_ecn_arrive_as_they_were_sent(backend) {
        on_two_nodes(&approving(backend, 60), |cluster| {
            let [one, two] = two(cluster);
            let conversation = Conversation::between(one.container(), two.container());
            conversation.engage([one, two]);
            let forwarded = [one, two].map(|node| Forwarded::count(node, "udp sport > 0"));
            for tos in [0xb8, 0xba, 0x01, 0x03, 0x00] {
                setsockopt(&conversation.near, sockopt::Ipv4Tos, &tos).unwrap();
                let sees = PacketSocket::open(&two.container().netns, "eth0").unwrap();
                assert!(conversation.exchange());
                assert_eq!(i32::from(arrival(&sees, two.container()).tos), tos);
            }
            assert_eq!(forwarded.map(|forwarded| forwarded.packets()), [0, 0], "past netfilter");
        });
    }
}
