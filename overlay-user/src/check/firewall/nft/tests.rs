//! Rules as `nft --json` lists them, and what becomes of packets of either family.

use serde_json::json;

use super::{
    super::{
        packet::{Packet, Payload},
        ruleset::Fate,
    },
    *,
};

/// What a chain of `table` with one rule and the policy to drop, or to accept, does with a packet for `destination`.
fn fate(table: &str, policy: &str, rule: &[Value], destination: &str, payload: Payload) -> Fate {
    let listing = json!({ "nftables": [
        { "metainfo": { "version": "1.0.6" } },
        { "chain": { "family": table, "table": "guard", "name": "in", "hook": "input", "policy": policy } },
        { "rule": { "family": table, "table": "guard", "chain": "in", "expr": rule } },
    ]});
    let packet = Packet { interface: "eth0", source: None, destination: destination.parse().unwrap(), payload };
    parse(&listing.to_string(), &[]).fate("input", &packet)
}

fn matching(op: &str, left: &Value, right: &Value) -> Value {
    json!({ "match": { "op": op, "left": left, "right": right } })
}

fn field(protocol: &str, field: &str) -> Value {
    json!({ "payload": { "protocol": protocol, "field": field } })
}

fn meta(key: &str) -> Value {
    json!({ "meta": { "key": key } })
}

fn accept() -> Value {
    json!({ "accept": null })
}

fn dropping() -> Value {
    json!({ "drop": null })
}

const TUNNEL: Payload = Payload::Udp(8472);

/// Whether tunnel packets over IPv4 and IPv6 are dropped.
fn tunnels_are_dropped(table: &str, policy: &str, rule: &[Value]) -> [bool; 2] {
    ["192.168.50.1", "fd50::1"].map(|address| match fate(table, policy, rule, address, TUNNEL) {
        Fate::Accepted => false,
        Fate::Dropped(_) => true,
        Fate::Perhaps(by) => panic!("perhaps, by {by}"),
    })
}

#[test]
fn a_table_of_one_family_is_for_its_packets_alone() {
    for (table, dropped) in [("ip", [true, false]), ("ip6", [false, true]), ("inet", [true, true])] {
        assert_eq!(tunnels_are_dropped(table, "drop", &[]), dropped, "{table}");
    }
    for table in ["bridge", "netdev", "arp"] {
        assert_eq!(tunnels_are_dropped(table, "drop", &[]), [false, false], "{table}");
    }
}

#[test]
fn a_match_on_a_header_is_about_packets_that_have_it() {
    let network = json!({ "prefix": { "addr": "fd51::", "len": 64 } });
    for (op, left, right, dropped) in [
        ("==", field("ip", "daddr"), json!("192.168.50.1"), [true, false]),
        ("!=", field("ip", "daddr"), json!("192.168.50.9"), [true, false]),
        ("==", field("ip6", "daddr"), json!("fd50::1"), [false, true]),
        ("!=", field("ip6", "daddr"), network.clone(), [false, true]),
        ("==", field("ip6", "daddr"), network, [false, false]),
        ("==", field("ip6", "nexthdr"), json!("udp"), [false, true]),
        ("!=", field("tcp", "dport"), json!(22), [false, false]),
        ("!=", field("udp", "dport"), json!(8472), [false, false]),
        ("==", field("udp", "dport"), json!({ "set": [53, { "range": [8000, 9000] }] }), [true, true]),
        ("!=", field("icmpv6", "type"), json!("echo-request"), [false, false]),
        ("==", meta("nfproto"), json!("ipv6"), [false, true]),
        ("!=", meta("nfproto"), json!("ipv6"), [true, false]),
        ("==", meta("protocol"), json!("ip6"), [false, true]),
        ("==", meta("l4proto"), json!({ "set": ["tcp", 17] }), [true, true]),
        ("in", json!({ "ct": { "key": "state" } }), json!(["established", "new"]), [true, true]),
    ] {
        let rule = [matching(op, &left, &right), dropping()];
        assert_eq!(tunnels_are_dropped("inet", "accept", &rule), dropped, "{left} {op} {right}");
    }
}

#[test]
fn what_is_compared_in_another_way_is_left_open() {
    let rule = [matching("<", &field("udp", "dport"), &json!(1024)), dropping()];
    assert!(matches!(fate("inet", "accept", &rule, "fd50::1", TUNNEL), Fate::Perhaps(_)));
}

#[test]
fn neighbour_solicitations_are_told_from_other_packets() {
    for (conditions, is_accepted) in [
        (vec![matching("==", &field("udp", "dport"), &json!(8472))], false),
        (vec![matching("==", &meta("l4proto"), &json!("ipv6-icmp"))], true),
        (
            vec![matching("==", &field("icmpv6", "type"), &json!({ "set": ["echo-request", "nd-neighbor-solicit"] }))],
            true,
        ),
        (vec![matching("==", &field("icmpv6", "type"), &json!("nd-router-advert"))], false),
        (vec![matching("==", &field("icmp", "type"), &json!("echo-request"))], false),
        (vec![matching("==", &field("ip6", "hoplimit"), &json!(255))], true),
        (vec![matching("in", &json!({ "ct": { "key": "state" } }), &json!(["established", "related"]))], false),
    ] {
        let rule = [conditions.as_slice(), &[accept()]].concat();
        let fate = fate("ip6", "drop", &rule, "ff02::1:ff00:1", Payload::NeighbourSolicitation);
        assert_eq!(fate == Fate::Accepted, is_accepted, "{conditions:?}: {fate:?}");
    }
}

#[test]
fn what_was_read_through_iptables_is_not_read_twice() {
    let chain = |family: &str| json!({ "chain": { "family": family, "table": "filter", "name": "INPUT", "hook": "input", "policy": "drop" } });
    let listing = json!({ "nftables": [chain("ip"), chain("ip6")] }).to_string();
    for (read, dropped) in [
        (&[][..], [true, true]),
        (&[Family::Ipv4], [false, true]),
        (&[Family::Ipv6], [true, false]),
        (&Family::ALL, [false, false]),
    ] {
        let fates = ["192.168.50.1", "fd50::1"].map(|address| {
            let destination = address.parse().unwrap();
            let packet = Packet { interface: "eth0", source: None, destination, payload: TUNNEL };
            parse(&listing, read).fate("input", &packet) != Fate::Accepted
        });
        assert_eq!(fates, dropped, "{read:?}");
    }
}
