//! What tells routers on the underlay one flow from another is the same on either path.

use std::collections::BTreeSet;

use overlay_tests::marks::{Mark, Marks};

use crate::ground::{Conversation, approving, flow, for_every_way, on_two_nodes, two};

/// The one mark of all packets since the last.
fn only(marks: &Marks<'_>) -> Mark {
    let taken: BTreeSet<_> = marks.take().unwrap().into_iter().collect();
    assert_eq!(taken.len(), 1, "{taken:x?}");
    *taken.first().unwrap()
}

for_every_way! {
    fn a_flow_keeps_its_outer_source_port_and_flow_label_on_either_path(way) {
        on_two_nodes(&approving(way, 60), |cluster| {
            let nodes = two(cluster);
            let [one, two] = nodes;
            let [there, back] = [(one, two), (two, one)].map(|(from, to)| Marks::watch(from, to).unwrap());
            let conversation = Conversation::between(one.container(), two.container());
            assert!(conversation.exchange());
            let slow = [only(&there), only(&back)];
            conversation.engage(nodes);
            assert_eq!([only(&there), only(&back)], slow);
            conversation.exchange_many(10);
            assert_eq!([only(&there), only(&back)], slow, "on the fast path");
            // The super-packets of a stream too, and its acknowledgements.
            flow(one, two).tcp_transfer(4 << 20).unwrap();
            let stream = [only(&there), only(&back)];
            assert!(stream[0] != slow[0] && stream[1] != slow[1], "another flow's: {stream:x?}, {slow:x?}");
        });
    }
}
