//! Tables of IPv6 packets, and of each family in each: what the model says of them, in the words of the issue.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::*;
use crate::packets::{
    self, ETHER_IPV4, ETHER_IPV6, Extension, Ipv4, Ipv6, PROTO_ICMPV6, PROTO_UDP, checksummed, echo_request, ethernet,
    is_checksum_right, udp, vxlan,
};

const OURS: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 15, 0, 0, 0, 2);
const THEIRS: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 16, 0, 0, 0, 2);
const UNLEASED: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 99, 0, 0, 0, 2);

/// Two nodes with both families inside and outside.
#[derive(Debug, Clone, Copy)]
struct Side {
    v4_mac: [u8; 6],
    v6_mac: [u8; 6],
    last: u8,
}

const US: Side = Side { v4_mac: [2, 0, 0, 0, 4, 15], v6_mac: [2, 0, 0, 0, 6, 15], last: 15 };
const THEM: Side = Side { v4_mac: [2, 0, 0, 0, 4, 16], v6_mac: [2, 0, 0, 0, 6, 16], last: 16 };

impl Side {
    fn underlay(self, family: Family) -> IpAddr {
        match family {
            Family::V4 => Ipv4Addr::new(192, 168, 50, self.last).into(),
            Family::V6 => Ipv6Addr::new(0xfd50, 0, 0, 0, 0, 0, 0, self.last.into()).into(),
        }
    }

    fn subnet(self, family: Family) -> IpNetwork {
        let text = match family {
            Family::V4 => format!("10.1.{}.0/24", self.last),
            Family::V6 => format!("fd00:0:0:{:x}::/64", self.last),
        };
        text.parse().expect("a subnet")
    }

    fn container(self, family: Family) -> IpAddr {
        self.subnet(family).iter().nth(2).expect("a subnet has three addresses")
    }

    fn mac(self, family: Family) -> [u8; 6] {
        if family == Family::V4 { self.v4_mac } else { self.v6_mac }
    }
}

fn network(family: Family) -> IpNetwork {
    if family == Family::V4 { "10.1.0.0/16" } else { "fd00::/48" }.parse().expect("a network")
}

const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

/// What the node on our side knows, when it reaches the other one over `outer`.
fn facts(us: Side, them: Side, outer: Family) -> Facts {
    let end = |family| Some(End { address: us.underlay(family), mac: us.mac(family) });
    let range = |family| Some(Range { network: network(family), subnet: us.subnet(family) });
    let hop = Hop { address: them.underlay(outer), mac: them.mac(outer), direct: false };
    Facts {
        encapsulation: Encapsulation::Vxlan,
        node: Some(Node {
            ends: PerFamily { v4: end(Family::V4), v6: end(Family::V6) },
            port: 8472,
            vni: 1,
            ranges: PerFamily { v4: range(Family::V4), v6: range(Family::V6) },
        }),
        routes: FAMILIES.map(|inner| (them.subnet(inner), hop)).into(),
    }
}

/// A packet between containers, with a checksum.
fn inner(source: IpAddr, destination: IpAddr) -> (u16, Vec<u8>) {
    let datagram = checksummed(source, destination, PROTO_UDP, udp(1, 2, b"hello"));
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            (ETHER_IPV4, Ipv4 { tos: 0xb8, ..Ipv4::new(source, destination, PROTO_UDP, datagram) }.bytes())
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let ip = Ipv6::new(source, destination, PROTO_UDP, datagram);
            (ETHER_IPV6, Ipv6 { traffic_class: 0xb8, flow_label: 0x1_2345, ..ip }.bytes())
        }
        _ => panic!("{source} to {destination}"),
    }
}

fn becomes(expected: Expected) -> Vec<u8> {
    match expected.fate {
        Fate::Becomes(bytes) => bytes,
        fate => panic!("{fate:?}"),
    }
}

#[test]
fn each_family_in_each_arrives_as_it_was_sent_and_costs_50_bytes_over_ipv4_and_70_over_ipv6() {
    for (inner_family, outer) in FAMILIES.into_iter().flat_map(|inner| FAMILIES.map(|outer| (inner, outer))) {
        let (from, to) = (US.container(inner_family), THEM.container(inner_family));
        let (ether_type, packet) = inner(from, to);
        let frame = ethernet([0; 6], [0; 6], ether_type, &packet);
        let sent = expect(&facts(US, THEM, outer), Program::ToOverlay, &frame, None);
        assert_eq!(sent.counted.map(|(subnet, _)| subnet), Some(THEM.subnet(inner_family).network()));
        let outer_frame = becomes(sent);
        let overhead = if outer == Family::V4 { 50 } else { 70 };
        assert_eq!(outer_frame.len(), frame.len() + overhead, "{inner_family:?} over {outer:?}");

        let there = facts(THEM, US, outer);
        let received = expect(&there, Program::XdpDecap, &outer_frame, None);
        assert_eq!(received.counted.map(|(subnet, _)| subnet), Some(US.subnet(inner_family).network()));
        // Behind the mark in its metadata; on the device that its own family takes, whichever it came over.
        assert_eq!(becomes(received)[4..], ethernet(THEM.mac(inner_family), [0; 6], ether_type, &packet));
        let found_good = expect(&there, Program::FromUnderlay, &outer_frame, None);
        assert_eq!((found_good.fate, found_good.counted.is_some()), (Fate::Untouched, true));
    }
}

#[test]
fn the_outer_ipv6_header_is_that_of_a_tunnel_without_a_checksum() {
    let frame = ethernet([0; 6], [0; 6], ETHER_IPV6, &inner(OURS.into(), THEIRS.into()).1);
    let bytes = becomes(expect(&facts(US, THEM, Family::V6), Program::ToOverlay, &frame, None));
    let outer = Ipv6::in_frame(&bytes).unwrap();
    assert_eq!((outer.traffic_class, outer.hop_limit, outer.protocol), (0xb8, 64, PROTO_UDP));
    assert_eq!(outer.payload[6..8], [0, 0], "RFC 6935");
    let mut as_sent = bytes.clone();
    as_sent[15..18].copy_from_slice(&[0x8a, 0xbc, 0xde]);
    as_sent[54..56].copy_from_slice(&50_001_u16.to_be_bytes());
    assert_eq!(canonical(&as_sent), Ok(bytes), "flow label and source port are the node's choice");
    as_sent[54..56].copy_from_slice(&80_u16.to_be_bytes());
    assert!(canonical(&as_sent).unwrap_err().contains("dynamic range"));
}

#[test]
fn encap_drops_for_the_same_reasons_as_with_ipv4() {
    let good = Ipv6::new(OURS, THEIRS, PROTO_UDP, udp(1, 2, b"hello"));
    let to = |address: &str| Ipv6 { destination: address.parse().unwrap(), ..good.clone() }.bytes();
    let rows = [
        ("another version", Ipv6 { version: Some(4), ..good.clone() }.bytes(), Reason::BadHeader),
        ("longer than it is", Ipv6 { payload_length: Some(999), ..good.clone() }.bytes(), Reason::BadLength),
        ("a header cut short", good.bytes()[..39].to_vec(), Reason::Truncated),
        ("multicast", to("ff02::1"), Reason::NotUnicast),
        ("link-local", to("fe80::1"), Reason::NotUnicast),
        ("loopback", to("::1"), Reason::NotUnicast),
        ("nobody", to("::"), Reason::NotUnicast),
        ("somewhere else", to("2001:db8::1"), Reason::OutsideNetwork),
        ("our own subnet", to("fd00:0:0:f::9"), Reason::OwnSubnet),
        ("a forged source", Ipv6 { source: THEIRS, ..good.clone() }.bytes(), Reason::SourceNotOurs),
    ];
    let facts = facts(US, THEM, Family::V6);
    for (name, packet, reason) in rows {
        let frame = ethernet([0; 6], [0; 6], ETHER_IPV6, &packet);
        assert_eq!(expect(&facts, Program::ToOverlay, &frame, None).fate, Fate::Dropped(reason), "{name}");
    }
}

#[test]
fn a_node_without_ipv6_inside_carries_none() {
    let mut facts = facts(US, THEM, Family::V4);
    facts.node.as_mut().unwrap().ranges.v6 = None;
    facts.routes.retain(|subnet, _| subnet.is_ipv4());
    let packet = inner(OURS.into(), THEIRS.into()).1;
    let frame = ethernet([0; 6], [0; 6], ETHER_IPV6, &packet);
    assert_eq!(expect(&facts, Program::ToOverlay, &frame, None).fate, Fate::Dropped(Reason::NotIpv4));
    let back = inner(THEIRS.into(), OURS.into()).1;
    assert_eq!(outer_fate(&facts, &Ipv6::parse(&back).unwrap(), |_| ()), Fate::Dropped(Reason::InnerNotIpv4));
}

#[test]
fn a_packet_for_an_unleased_subnet_is_answered_unless_that_is_forbidden_or_too_hard() {
    let facts = facts(US, THEM, Family::V6);
    let icmp = |message| Ipv6::new(OURS, UNLEASED, PROTO_ICMPV6, checksummed(OURS, UNLEASED, PROTO_ICMPV6, message));
    let error = [vec![1, 4, 0, 0, 0, 0, 0, 0], vec![0; 40]].concat();
    let datagram = Ipv6::new(OURS, UNLEASED, PROTO_UDP, udp(1, 2, &[7; 100]));
    let extended = Ipv6 { extensions: vec![Extension::padding(Extension::HOP_BY_HOP)], ..datagram.clone() };
    let short = Ipv6::new(OURS, UNLEASED, PROTO_UDP, udp(1, 2, b""));
    let cases = [
        ("a datagram", datagram, Some(40 + 20)),
        ("a short one", short, Some(40 + 8)),
        ("an echo request", icmp(echo_request(1, 1, &[0; 40])), Some(40 + 20)),
        ("an ICMP error", icmp(error), None),
        ("with an extension header", extended, None),
    ];
    for (name, packet, quoted) in cases {
        let frame = ethernet([0; 6], [0; 6], ETHER_IPV6, &packet.bytes());
        let fate = expect(&facts, Program::ToOverlay, &frame, None).fate;
        let Some(quoted) = quoted else {
            assert_eq!(fate, Fate::Dropped(Reason::NoRoute), "{name}");
            continue;
        };
        let Fate::Answered(Reason::NoRoute, answer) = fate else { panic!("{name}: {fate:?}") };
        assert_eq!(answer[..6], US.v6_mac);
        let answer = Ipv6::in_frame(&answer).unwrap();
        assert_eq!((answer.source, answer.destination, answer.protocol), (UNLEASED, OURS, PROTO_ICMPV6), "{name}");
        assert_eq!(answer.payload[..2], [1, 0], "no route to destination");
        assert_eq!(answer.payload[8..], packet.bytes()[..quoted], "{name}");
        assert!(is_checksum_right(UNLEASED, OURS, PROTO_ICMPV6, &answer.payload), "{name}");
    }
}

/// What happens to an outer packet on its way.
type Change = fn(&mut Ipv6);

/// What becomes of `inner` from the other node over IPv6, changed by `change` on its way.
fn outer_fate(facts: &Facts, inner: &Ipv6, change: impl Fn(&mut Ipv6)) -> Fate {
    let (IpAddr::V6(from), IpAddr::V6(to)) = (THEM.underlay(Family::V6), US.underlay(Family::V6)) else { panic!() };
    let frame = ethernet(US.v6_mac, [0; 6], ETHER_IPV6, &inner.bytes());
    let mut outer = Ipv6::new(from, to, PROTO_UDP, udp(50_000, 8472, &vxlan(0x08, 1, &frame)));
    change(&mut outer);
    expect(facts, Program::XdpDecap, &ethernet([0; 6], [0; 6], ETHER_IPV6, &outer.bytes()), None).fate
}

#[test]
fn decap_takes_from_ipv6_what_it_takes_from_ipv4() {
    let facts = facts(US, THEM, Family::V6);
    let good = Ipv6::new(THEIRS, OURS, PROTO_UDP, udp(1, 2, b"hello"));
    let fate = |change: Change| outer_fate(&facts, &good, change);
    assert!(matches!(fate(|_| ()), Fate::Becomes(_)));
    let checked: Change =
        |outer| outer.payload = checksummed(outer.source, outer.destination, PROTO_UDP, outer.payload.clone());
    assert!(matches!(fate(checked), Fate::Becomes(_)), "a checksum is no reason to refuse");

    let untouched: [(&str, Change); 4] = [
        ("another address", |outer| outer.destination = "fd50::99".parse().unwrap()),
        ("another port", |outer| outer.payload[3] ^= 1),
        ("a fragment", |outer| outer.extensions = vec![Extension::fragment(0, true, 1)]),
        ("options", |outer| outer.extensions = vec![Extension::padding(Extension::DESTINATION)]),
    ];
    for (name, change) in untouched {
        assert_eq!(fate(change), Fate::Untouched, "{name} is for the kernel");
    }
    let dropped: [(&str, Change, Reason); 5] = [
        ("a stranger", |outer| outer.source = "fd50::99".parse().unwrap(), Reason::UnknownNode),
        ("a bare packet", |outer| outer.source = THEIRS, Reason::NotEncapsulated),
        ("a wrong length", |outer| outer.payload[5] ^= 1, Reason::BadLength),
        ("a wrong VNI", |outer| outer.payload[14] ^= 1, Reason::WrongVni),
        ("a mark on what cannot bear it", |outer| outer.traffic_class = 0b11, Reason::CeOnNotEct),
    ];
    for (name, change, reason) in dropped {
        assert_eq!(fate(change), Fate::Dropped(reason), "{name}");
    }
    let inside = |packet: Ipv6| outer_fate(&facts, &packet, |_| ());
    let forged = inside(Ipv6 { source: UNLEASED, ..good.clone() });
    assert_eq!(forged, Fate::Dropped(Reason::SourceNotTheirs));
    let elsewhere = inside(Ipv6 { destination: UNLEASED, ..good.clone() });
    assert_eq!(elsewhere, Fate::Dropped(Reason::DestinationNotOurs));
    let Fate::Becomes(marked) = outer_fate(&facts, &Ipv6 { traffic_class: 0xba, flow_label: 7, ..good }, |outer| {
        outer.traffic_class = 0b11;
    }) else {
        panic!("a mark on what can bear it")
    };
    let marked = packets::Ipv6::in_frame(&marked[4..]).unwrap();
    assert_eq!((marked.traffic_class, marked.flow_label), (0xbb, 7), "RFC 6040");
}
