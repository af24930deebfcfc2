//! The way to the other node's MAC address, while a flow is on the fast path.

use std::net::IpAddr;

use overlay_tests::{node::Node, process::wait_until};

use crate::ground::{Conversation, LIMIT, approving, for_every_way, on_two_nodes, two};

const OLD: &str = "02:00:00:00:aa:01";
const NEW: &str = "02:00:00:00:aa:02";

/// Where the other nodes reach `node`.
fn end(node: &Node) -> IpAddr {
    node.addresses()[0]
}

/// Gives the underlay interface of `node` another MAC address, and tells `neighbour` as a failover would.
fn change_mac(node: &Node, neighbour: &Node, mac: &str) {
    node.netns().ip(&format!("link set eth0 address {mac}")).unwrap();
    neighbour.netns().ip(&format!("neighbour replace {} lladdr {mac} dev eth0 nud reachable", end(node))).unwrap();
}

/// The state of the kernel's neighbour entry for `to` on `node`.
fn neighbour_state(node: &Node, to: &Node) -> String {
    node.netns().ip(&format!("neighbour show {} dev eth0", end(to))).unwrap()
}

for_every_way! {
    fn a_node_that_changes_its_mac_address_is_followed(way) {
        on_two_nodes(&approving(way, 60), |cluster| {
            let [one, two] = two(cluster);
            change_mac(two, one, OLD);
            let conversation = Conversation::between(one.container(), two.container());
            conversation.engage([one, two]);
            conversation.exchange_many(100);
            change_mac(two, one, NEW);
            wait_until("packets to reach the new address", LIMIT, || conversation.exchange()).unwrap();
            conversation.exchange_many(100);
            assert!(conversation.is_fast(one));
        });
    }

    fn the_kernel_keeps_its_neighbour_entry_resolved_for_a_flow_that_it_does_not_see(way) {
        on_two_nodes(&approving(way, 60), |cluster| {
            let [one, two] = two(cluster);
            let conversation = Conversation::between(one.container(), two.container());
            conversation.engage([one, two]);
            // An entry that nobody uses would stay stale; one in use is asked for, and reachable again.
            let stale = format!("neighbour replace {} dev eth0 nud stale", end(two));
            let family = if end(two).is_ipv4() { "ipv4" } else { "ipv6" };
            one.netns().sysctl(&format!("net.{family}.neigh.eth0.delay_first_probe_time"), "1").unwrap();
            one.netns().ip(&stale).unwrap();
            wait_until("the neighbour to be reachable again", LIMIT, || {
                conversation.exchange() && neighbour_state(one, two).contains("REACHABLE")
            })
            .unwrap_or_else(|error| panic!("{error:#}: {}", neighbour_state(one, two)));
            // And one that is gone is resolved.
            one.netns().ip(&format!("neighbour delete {} dev eth0", end(two))).unwrap();
            wait_until("the neighbour to be found again", LIMIT, || {
                conversation.exchange() && neighbour_state(one, two).contains("lladdr")
            })
            .unwrap();
            assert!(conversation.is_fast(one));
        });
    }
}
