//! What tells routers on the underlay one flow from another: the outer source port and, over IPv6, the flow label.

use std::collections::BTreeSet;

use overlay_tests::{
    node::{Node, UNDERLAY_DEVICE},
    packet_socket::{Frame, PacketSocket},
    packets::{Either, PROTO_UDP},
};

use crate::ground::{Conversation, approving, flow, for_every_way, on_two_nodes, two};

/// So many that two of one mark are bad luck, and four are not.
const FLOWS: usize = 24;

/// What the outer packets of `from` to `to` bear while `work` is done: source port, and flow label if there is one.
fn marks([from, to]: [&Node; 2], work: impl FnOnce()) -> BTreeSet<(u16, Option<u32>)> {
    let sees = PacketSocket::open(from.netns(), UNDERLAY_DEVICE).unwrap();
    work();
    let sent = |frame: &Frame| {
        let packet = Either::in_frame(&frame.bytes).filter(|packet| packet.protocol == PROTO_UDP)?;
        let port = u16::from_be_bytes([packet.payload[0], packet.payload[1]]);
        (frame.outgoing && to.addresses().contains(&packet.destination)).then_some((port, packet.label))
    };
    sees.drain(sent).unwrap().into_iter().collect()
}

for_every_way! {
    fn each_flow_keeps_one_mark_on_the_underlay_on_either_path_and_others_have_others(way) {
        on_two_nodes(&approving(way, 60), |cluster| {
            let nodes = two(cluster);
            let [one, two] = nodes;
            let mut all = BTreeSet::new();
            for _ in 0..FLOWS {
                let conversation = Conversation::between(one.container(), two.container());
                let slow = marks(nodes, || assert!(conversation.exchange()));
                conversation.engage(nodes);
                let fast = marks(nodes, || conversation.exchange_many(10));
                assert_eq!((slow.len(), &slow), (1, &fast), "on the long way, and on the short one");
                all.extend(slow);
            }
            // The kernel's super-packets too, and its acknowledgements on their way back.
            for nodes in [nodes, [two, one]] {
                let stream = marks(nodes, || assert!(flow(one, two).tcp_transfer(4 << 20).is_ok()));
                assert_eq!(stream.len(), 1, "{stream:?}");
            }
            let ports: BTreeSet<_> = all.iter().map(|(port, _)| port).collect();
            let labels: BTreeSet<_> = all.iter().filter_map(|(_, label)| label.as_ref()).collect();
            assert!(ports.len() > FLOWS - 3, "{ports:?}");
            assert!(ports.iter().all(|port| **port >= 49_152), "{ports:?}");
            let expected = if way.underlay.has_v6() { FLOWS - 2..=FLOWS } else { 0..=0 };
            assert!(expected.contains(&labels.len()), "{labels:x?}");
        });
    }
}
