//! What the fast path carries, and what it leaves.

use std::time::Duration;

use overlay_tests::{cluster::Cluster, node::Node};

use crate::ground::{
    Backend, Conversation, Forwarded, approving, drops, flow, for_either_backend, gateway, on_two_nodes, slow, two, xdp,
};

/// Packets of each direction.
const PACKETS: u32 = 2000;

/// How many packets `from` has sent to `to`, and how many `to` has received from `from`, by the nodes' counters.
fn counted(from: &Node, to: &Node) -> [u64; 2] {
    let sent = from.counters().traffic(gateway(to).network()).unwrap().encap_packets;
    [sent, to.counters().traffic(gateway(from).network()).unwrap().decap_packets]
}

/// How many packets `node` has taken the fast way, to and from `peer`, by its own counters.
fn fast(node: &Node, peer: &Node) -> u64 {
    let traffic = node.counters().traffic(gateway(peer).network()).unwrap();
    traffic.encap_fast_packets + traffic.decap_fast_packets
}

/// Lets the containers exchange [`PACKETS`], and returns how many of them netfilter saw on each node, both directions
/// together.
fn seen_by_netfilter(cluster: &Cluster, engage: bool) -> [u64; 2] {
    let [one, two] = two(cluster);
    let conversation = Conversation::between(one.container(), two.container());
    assert!(conversation.exchange());
    if engage {
        conversation.engage([one, two]);
    }
    let forwarded = [one, two].map(|node| Forwarded::count(node, "udp sport > 0"));
    let fast_counts = || [fast(one, two), fast(two, one)];
    let (before, fast_before) = ([counted(one, two), counted(two, one)], fast_counts());
    conversation.exchange_many(PACKETS);
    let after = [counted(one, two), counted(two, one)];
    let expected = before.map(|counts| counts.map(|count| count + u64::from(PACKETS)));
    assert_eq!(after, expected, "packets encapsulated and decapsulated, there and back");
    let seen = forwarded.map(|forwarded| forwarded.packets());
    // Each node has sent and received all of them; what netfilter has not seen has gone the fast way.
    let fast_expected = [0, 1].map(|node| fast_before[node] + u64::from(2 * PACKETS) - seen[node]);
    assert_eq!(fast_counts(), fast_expected, "packets counted as fast");
    seen
}

/// Fails unless netfilter sees hardly a packet of a flow that both nodes carry on the fast path, and the counters all.
pub(crate) fn assert_hardly_seen(cluster: &Cluster) {
    let seen = seen_by_netfilter(cluster, true);
    assert!(seen.iter().all(|&packets| packets < u64::from(PACKETS) / 20), "{seen:?}");
}

/// Fails unless streams arrive whole, and nothing is dropped.
pub(crate) fn assert_streams_arrive(cluster: &Cluster) {
    let [one, two] = two(cluster);
    for (from, to) in [(one, two), (two, one)] {
        flow(from, to).tcp_transfer(4 << 20).unwrap();
    }
    assert_eq!((drops(one), drops(two)), (vec![], vec![]));
}

for_either_backend! {
    fn of_an_approved_flow_netfilter_sees_hardly_a_packet_and_the_counters_all(backend) {
        on_two_nodes(&approving(backend, 2), |cluster| assert_hardly_seen(cluster));
    }

    fn what_native_xdp_has_decapsulated_takes_the_fast_path_too(backend) {
        on_two_nodes(&xdp(backend), |cluster| {
            assert_hardly_seen(cluster);
            assert_streams_arrive(cluster);
        });
    }

    fn an_approval_is_renewed_by_a_few_packets(backend) {
        on_two_nodes(&approving(backend, 1), |cluster| {
            let [one, two] = two(cluster);
            let conversation = Conversation::between(one.container(), two.container());
            conversation.engage([one, two]);
            let forwarded = [one, two].map(|node| Forwarded::count(node, "udp sport > 0"));
            let time = Duration::from_secs(4);
            assert!(conversation.last_arrivals_within(time).iter().all(|&last| last > time * 9 / 10));
            assert!([one, two].iter().all(|node| conversation.is_fast(node)));
            // At least one a second; at most one in a sixteenth of a second, each direction.
            let seen = forwarded.map(|forwarded| forwarded.packets());
            assert!(seen.iter().all(|packets| (6..=128).contains(packets)), "{seen:?}");
        });
    }

    fn without_the_fast_path_netfilter_sees_every_packet(backend) {
        on_two_nodes(&slow(backend), |cluster| {
            assert_eq!(seen_by_netfilter(cluster, false), [u64::from(2 * PACKETS); 2]);
            for node in cluster.nodes() {
                assert_eq!(node.counters().flows().unwrap(), []);
            }
        });
    }

    fn a_long_stream_takes_the_fast_path_and_arrives_whole(backend) {
        on_two_nodes(&approving(backend, 60), |cluster| {
            let [one, two] = two(cluster);
            for (from, to) in [(one, two), (two, one)] {
                let forwarded = [one, two].map(|node| Forwarded::count(node, "tcp sport > 0"));
                let before = [one, two].map(|node| node.counters().traffic(other(node, one, two)).unwrap());
                flow(from, to).tcp_transfer(64 << 20).unwrap();
                for (node, (forwarded, before)) in [one, two].into_iter().zip(forwarded.iter().zip(before)) {
                    let traffic = node.counters().traffic(other(node, one, two)).unwrap();
                    let packets = traffic.encap_packets + traffic.decap_packets - before.encap_packets - before.decap_packets;
                    assert!(packets > (64 << 20) / 1500, "{packets} packets counted on {}", node.name());
                    let seen = forwarded.packets();
                    assert!(seen < 100, "netfilter saw {seen} on {}", node.name());
                    crate::ground::nft(node, "delete table inet probe");
                }
            }
            assert_eq!((one.counters().drops().unwrap(), two.counters().drops().unwrap()), (vec![], vec![]));
        });
    }
}

/// The subnet of the node that `node` is not.
fn other(node: &Node, one: &Node, two: &Node) -> std::net::Ipv4Addr {
    let other = if node.name() == one.name() { two } else { one };
    other.subnet().subnet()
}
