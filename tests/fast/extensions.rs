//! IPv6's extension headers and fragments of a flow that is on the fast path: they take the long way, and arrive.

use overlay_tests::{
    cluster::Cluster,
    families::Families,
    node::BRIDGE,
    packet_socket::{Frame, PacketSocket, mac},
    packets::{ETHER_IPV6, Extension, Ipv6, PROTO_UDP, checksummed, ethernet, udp},
    two_nodes::Way,
};

use crate::ground::{Conversation, Forwarded, LIMIT, approving, on_two_nodes, two};

/// Runs `test` over each underlay, with a conversation on the fast path.
fn with_conversation(test: impl Fn(&Cluster, &Conversation) + Sync) {
    for underlay in [Families::V4, Families::V6] {
        on_two_nodes(&approving(Way::vxlan(Families::V6, underlay), 60), |cluster| {
            let nodes = two(cluster);
            let conversation = Conversation::between(nodes[0].container(), nodes[1].container());
            conversation.engage(nodes);
            test(cluster, &conversation);
            assert!(conversation.exchange() && nodes.iter().all(|node| conversation.is_fast(node)));
        });
    }
}

#[test]
fn a_packet_with_extension_headers_arrives_with_them() {
    with_conversation(|cluster, conversation| {
        let [one, two] = two(cluster);
        let (from, to) = (one.container(), two.container());
        let ports = [&conversation.near, &conversation.far].map(|socket| socket.local_addr().unwrap().port());
        let socket = PacketSocket::sender(&from.netns, "eth0").unwrap();
        let macs = [mac(one.netns(), BRIDGE).unwrap(), mac(&from.netns, "eth0").unwrap()];
        let (hop_by_hop, destination) = (Extension::HOP_BY_HOP, Extension::DESTINATION);
        for kinds in [&[hop_by_hop][..], &[destination], &[hop_by_hop, destination]] {
            let text = format!("behind {kinds:?}");
            let datagram = checksummed(from.v6(), to.v6(), PROTO_UDP, udp(ports[0], ports[1], text.as_bytes()));
            let extensions: Vec<_> = kinds.iter().map(|kind| Extension::padding(*kind)).collect();
            let packet = Ipv6 { extensions, ..Ipv6::new(from.v6(), to.v6(), PROTO_UDP, datagram) };
            let forwarded = [one, two].map(Forwarded::continued);
            let before = forwarded.each_ref().map(Forwarded::packets);
            let sees = PacketSocket::open(&to.netns, "eth0").unwrap();
            socket.send(&ethernet(macs[0], macs[1], ETHER_IPV6, &packet.bytes())).unwrap();
            let mut heard = [0; 64];
            let length = conversation.far.recv(&mut heard).unwrap();
            assert_eq!(&heard[..length], text.as_bytes());
            let arrived = |frame: &Frame| Ipv6::in_frame(&frame.bytes).filter(|packet| packet.protocol == PROTO_UDP);
            let expected = Ipv6 { hop_limit: packet.hop_limit - 2, ..packet };
            assert_eq!(sees.find("the packet", LIMIT, arrived).unwrap(), expected);
            assert_eq!(
                forwarded.map(|forwarded| forwarded.packets()),
                before.map(|before| before + 1),
                "past netfilter"
            );
        }
    });
}

#[test]
fn a_datagram_in_fragments_arrives_whole() {
    with_conversation(|cluster, conversation| {
        let forwarded = two(cluster).map(Forwarded::continued);
        let sent: Vec<u8> = (0..8000_u32).map(|number| number as u8).collect();
        conversation.near.send(&sent).unwrap();
        let mut heard = vec![0; 9000];
        let length = conversation.far.recv(&mut heard).unwrap();
        assert!(heard[..length] == sent, "{length} bytes arrived");
        assert!(forwarded.iter().all(|forwarded| forwarded.packets() > 0), "past netfilter");
    });
}
