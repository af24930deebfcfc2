//! What routing does to a packet's header happens on the fast path as well.

use std::net::IpAddr;

use overlay_tests::{
    headers::{set_tos, set_ttl},
    node::Container,
    packet_socket::{Frame, PacketSocket},
    packets::{Complaint, Either, PROTO_UDP},
    process::{wait_for, wait_until},
};

use crate::ground::{
    Conversation, Forwarded, LIMIT, approving, for_every_way, gateway, on_two_nodes, raise_container_mtu, two,
};

/// What `pick` makes of the next packet for `container`.
fn find<T>(sees: &PacketSocket, what: &str, container: &Container, pick: impl Fn(&Either) -> Option<T>) -> T {
    let ours =
        |frame: &Frame| Either::in_frame(&frame.bytes).filter(|packet| packet.destination == container.address());
    sees.find(what, LIMIT, |frame| pick(&ours(frame)?)).unwrap()
}

/// The next UDP packet for `container`, as it comes in.
fn arrival(sees: &PacketSocket, container: &Container) -> Either {
    find(sees, "the packet", container, |packet| (packet.protocol == PROTO_UDP).then(|| packet.clone()))
}

/// What ICMP complains of next to `container`, and whom that is from.
pub(crate) fn complaint(sees: &PacketSocket, container: &Container) -> (IpAddr, Complaint) {
    find(sees, "a complaint", container, |packet| Some((packet.source, packet.complaint()?)))
}

for_every_way! {
    fn each_node_takes_one_from_the_ttl(way) {
        // Long enough that nothing goes past netfilter to be renewed.
        on_two_nodes(&approving(way, 60), |cluster| {
            let [one, two] = two(cluster);
            let conversation = Conversation::between(one.container(), two.container());
            conversation.engage([one, two]);
            let forwarded = [one, two].map(|node| Forwarded::count(node, "udp sport > 0"));
            for ttl in [3, 64, 255] {
                let sees = [one, two].map(|node| PacketSocket::open(&node.container().netns, "eth0").unwrap());
                for socket in [&conversation.near, &conversation.far] {
                    set_ttl(socket, ttl).unwrap();
                }
                assert!(conversation.exchange());
                for (sees, node) in sees.iter().zip([two, one].into_iter().rev()) {
                    assert_eq!(arrival(sees, node.container()).ttl, ttl - 2);
                }
            }
            assert_eq!(forwarded.map(|forwarded| forwarded.packets()), [0, 0], "past netfilter");
        });
    }

    fn a_packet_whose_ttl_ends_is_reported_by_the_node_where_it_does(way) {
        on_two_nodes(&approving(way, 60), |cluster| {
            let [one, two] = two(cluster);
            let conversation = Conversation::between(one.container(), two.container());
            conversation.engage([one, two]);
            let sees = PacketSocket::open(&one.container().netns, "eth0").unwrap();
            for (ttl, router) in [(1, gateway(one).ip()), (2, gateway(two).network())] {
                set_ttl(&conversation.near, ttl).unwrap();
                conversation.near.send(b"trace").unwrap();
                assert_eq!(complaint(&sees, one.container()), (router, Complaint::TimeExceeded), "TTL {ttl}");
            }
            set_ttl(&conversation.near, 64).unwrap();
            assert!(conversation.exchange(), "the flow goes on");
        });
    }

    fn a_packet_that_does_not_fit_the_overlay_is_refused_with_its_mtu(way) {
        on_two_nodes(&approving(way, 60), |cluster| {
            let [one, two] = two(cluster);
            raise_container_mtu(one);
            let conversation = Conversation::between(one.container(), two.container());
            conversation.engage([one, two]);
            let sees = PacketSocket::open(&one.container().netns, "eth0").unwrap();
            let mtu = 1500 - way.overhead();
            let fits = (mtu - way.inner_header() - 8) as usize;
            conversation.near.send(&vec![0; fits]).unwrap();
            assert_eq!(conversation.far.recv(&mut [0; 2000]).unwrap(), fits, "what just fits");
            // With DF, as Linux sends UDP.
            conversation.near.send(&vec![0; fits + 1]).unwrap();
            assert_eq!(complaint(&sees, one.container()), (gateway(one).ip(), Complaint::TooBig { mtu }));
            let told = wait_for("the sender to be told", LIMIT, || Ok(conversation.near.take_error()?)).unwrap();
            assert_eq!(told.raw_os_error(), Some(nix::libc::EMSGSIZE));
            assert!(conversation.exchange(), "the flow goes on");
        });
    }

    fn a_smaller_mtu_of_the_underlay_holds_for_running_flows(way) {
        on_two_nodes(&approving(way, 60), |cluster| {
            let [one, two] = two(cluster);
            let conversation = Conversation::between(one.container(), two.container());
            conversation.engage([one, two]);
            let sees = PacketSocket::open(&one.container().netns, "eth0").unwrap();
            one.netns().ip("link set dev eth0 mtu 1400").unwrap();
            let mtu = 1400 - way.overhead();
            let device = || one.netns().ip(&format!("link show dev {}", way.device())).unwrap();
            wait_until("the overlay device's MTU", LIMIT, || device().contains(&format!("mtu {mtu} "))).unwrap();
            conversation.near.send(&vec![0; (mtu + 50 - way.inner_header() - 8) as usize]).unwrap();
            assert_eq!(complaint(&sees, one.container()), (gateway(one).ip(), Complaint::TooBig { mtu }));
        });
    }

    fn dscp_and_ecn_arrive_as_they_were_sent(way) {
        on_two_nodes(&approving(way, 60), |cluster| {
            let [one, two] = two(cluster);
            let conversation = Conversation::between(one.container(), two.container());
            conversation.engage([one, two]);
            let forwarded = [one, two].map(|node| Forwarded::count(node, "udp sport > 0"));
            for tos in [0xb8, 0xba, 0x01, 0x03, 0x00] {
                set_tos(&conversation.near, tos).unwrap();
                let sees = PacketSocket::open(&two.container().netns, "eth0").unwrap();
                assert!(conversation.exchange());
                assert_eq!(arrival(&sees, two.container()).tos, tos);
            }
            assert_eq!(forwarded.map(|forwarded| forwarded.packets()), [0, 0], "past netfilter");
        });
    }
}
