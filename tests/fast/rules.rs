//! Netfilter's word holds for running flows, a little later.

use std::time::Duration;

use overlay_tests::{node::Node, process::wait_until};

use crate::ground::{Conversation, LIMIT, approving, for_each_family, nft, on_two_nodes, two};

/// The default of `--fast-path-approval`, in seconds.
const APPROVAL: u32 = 2;

/// Drops the packets that `filter` matches on `node`, lets the flow be tried, and allows them again.
fn drop_for_a_while(conversation: &Conversation, node: &Node, nodes: [&Node; 2], filter: &str) {
    conversation.engage(nodes);
    nft(
        node,
        &format!(
            "add table inet filter
             add chain inet filter forward {{ type filter hook forward priority 0; }}
             add rule inet filter forward {filter} drop"
        ),
    );
    let limit = Duration::from_secs(u64::from(APPROVAL) + 1);
    let [near, far] = conversation.last_arrivals_within(limit + Duration::from_secs(1));
    let last = if filter.contains("daddr") { far } else { near };
    eprintln!("{filter} on {}: the last packet arrived {last:?} after the rule", node.name());
    assert!(last < limit, "{filter} on {}: packets still passed after {last:?}", node.name());
    assert!(!conversation.exchange());
    nft(node, "delete table inet filter");
    wait_until("the flow to go on", LIMIT, || conversation.exchange()).unwrap();
    conversation.engage(nodes);
}

for_each_family! {
    fn a_new_drop_rule_bites_on_a_running_flow_and_its_removal_lets_it_go_on(way) {
        on_two_nodes(&approving(way, APPROVAL), |cluster| {
            let [one, two] = two(cluster);
            let conversation = Conversation::between(one.container(), two.container());
            let (ip, address) = (if way.overlay.has_v4() { "ip" } else { "ip6" }, two.container().address());
            for node in [one, two] {
                for direction in ["daddr", "saddr"] {
                    drop_for_a_while(&conversation, node, [one, two], &format!("{ip} {direction} {address}"));
                }
            }
        });
    }
}
