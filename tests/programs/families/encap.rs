//! `to_overlay`: what leaves over either underlay.

use std::net::Ipv6Addr;

use overlay_common::Reason;
use overlay_tests::{
    packets::{Extension, Ip, Ipv6, PROTO_ICMPV6, PROTO_TCP, PROTO_UDP, ethernet, internet_checksum, udp, vxlan},
    programs::{Context, Programs, REMOTE_MAC, REMOTE_SUBNET, REMOTE_SUBNET_V6, VTEP},
};

use super::{
    LOCAL, OUTSIDE, REMOTE, UNDERLAYS, Underlay, datagram, extended, first_fragment, from_kernel, icmpv6,
    later_fragment, to_remote,
};
use crate::{TO_OVERLAY, tcp};

/// What a header says that nothing follows (RFC 8200, section 4.7).
const NO_NEXT_HEADER: u8 = 59;
/// In a subnet that nobody leases.
const NOBODY: Ipv6Addr = Ipv6Addr::new(0xfd00, 1, 0, 99, 0, 0, 0, 1);

/// Puts fixed values where an encapsulating node may choose: source port, IPv4 identification, IPv6 flow label. Returns the
/// flow label, 0 over IPv4.
fn normalise(underlay: Underlay, packet: &mut [u8]) -> u32 {
    let port = underlay.headers();
    assert!(u16::from_be_bytes([packet[port], packet[port + 1]]) >= 49_152, "a source port below the dynamic range");
    packet[port..port + 2].copy_from_slice(&[0; 2]);
    match underlay {
        Underlay::Ipv4 => {
            assert_eq!(internet_checksum(&packet[14..34]), 0, "wrong checksum of the outer header");
            packet[18..20].copy_from_slice(&[0; 2]);
            packet[24..26].copy_from_slice(&[0; 2]);
            0
        }
        Underlay::Ipv6 => {
            let label = u32::from_be_bytes([0, packet[15] & 0x0f, packet[16], packet[17]]);
            packet[15] &= 0xf0;
            packet[16..18].copy_from_slice(&[0; 2]);
            label
        }
    }
}

/// What carries `inner` to the other node, normalised.
fn encapsulated<I: Ip>(underlay: Underlay, inner: &I) -> Vec<u8> {
    let frame = ethernet(REMOTE_MAC, underlay.mac(), I::ETHER_TYPE, &inner.to_bytes());
    let datagram = udp(50_000, VTEP.port, &vxlan(0x08, VTEP.vni, &frame));
    let mut packet = underlay.frame([VTEP.mac; 2], true, inner.tos(), datagram);
    // Outer headers start with TTL 64.
    match underlay {
        Underlay::Ipv4 => {
            packet[22] = 64;
            packet[24..26].copy_from_slice(&[0; 2]);
            let checksum = internet_checksum(&packet[14..34]);
            packet[24..26].copy_from_slice(&checksum.to_be_bytes());
        }
        Underlay::Ipv6 => packet[21] = 64,
    }
    normalise(underlay, &mut packet);
    packet
}

fn assert_carried<I: Ip>(programs: &mut Programs, underlay: Underlay, name: &str, inner: &I) {
    let outcome = programs.run("to_overlay", &from_kernel(inner), Context::default()).expect("run to_overlay");
    assert_eq!((outcome.verdict, outcome.counted), (TO_OVERLAY.taken, None), "{name} over {underlay:?}");
    let mut packet = outcome.packet;
    normalise(underlay, &mut packet);
    // The kernel writes the Ethernet header of what it finds the way of.
    assert_eq!(packet[14..], encapsulated(underlay, inner)[14..], "{name} over {underlay:?}");
}

#[test]
fn every_inner_family_leaves_over_every_underlay() {
    let (v4, v6) = to_remote();
    for underlay in UNDERLAYS {
        let mut programs = underlay.programs(0);
        assert_carried(&mut programs, underlay, "IPv4", &v4);
        assert_carried(&mut programs, underlay, "IPv4 with DSCP and ECN", &v4.clone().with_tos(0xb9));
        for (name, ip) in [
            ("IPv6", v6.clone()),
            ("DSCP and ECN", Ipv6 { traffic_class: 0xb9, ..v6.clone() }),
            ("a flow label of its own", Ipv6 { flow_label: 0xf_ffff, ..v6.clone() }),
            ("a first fragment", first_fragment(&v6)),
            ("a later fragment", later_fragment(&v6)),
            ("hop-by-hop options", extended(&v6, Extension::padding(Extension::HOP_BY_HOP))),
            ("ICMPv6", Ipv6 { protocol: PROTO_ICMPV6, ..v6.clone() }),
            ("nothing behind the header", Ipv6 { payload: Vec::new(), protocol: NO_NEXT_HEADER, ..v6.clone() }),
            ("a full-size packet", Ipv6::new(LOCAL, REMOTE, PROTO_TCP, tcp(1370))),
        ] {
            assert_carried(&mut programs, underlay, name, &ip);
        }
    }
}

#[test]
fn ipv6_that_may_not_leave_is_dropped_for_its_reason() {
    let (_, v6) = to_remote();
    let to = |destination| from_kernel(&Ipv6 { destination, ..v6.clone() });
    let from = |source| from_kernel(&Ipv6 { source, ..v6.clone() });
    let ip = |text: &str| text.parse::<Ipv6Addr>().unwrap();
    let rows = [
        ("multicast", to(ip("ff02::1")), Reason::NotUnicast),
        ("link-local", to(ip("fe80::1")), Reason::NotUnicast),
        ("loopback", to(ip("::1")), Reason::NotUnicast),
        ("unspecified", to(ip("::")), Reason::NotUnicast),
        ("an IPv4-mapped address", to(ip("::ffff:10.1.16.2")), Reason::NotUnicast),
        ("outside the network", to(OUTSIDE), Reason::OutsideNetwork),
        ("our own subnet", to(ip("fd00:1:0:f::77")), Reason::OwnSubnet),
        ("another subnet's source", from(ip("fd00:1:0:63::1")), Reason::SourceNotOurs),
        ("a source outside", from(OUTSIDE), Reason::SourceNotOurs),
        ("version 4", from_kernel(&Ipv6 { version: Some(4), ..v6.clone() }), Reason::BadHeader),
        (
            "a length beyond the packet",
            from_kernel(&Ipv6 { payload_length: Some(1400), ..v6.clone() }),
            Reason::BadLength,
        ),
    ];
    let mut programs = Underlay::Ipv6.programs(0);
    for (name, packet, reason) in rows {
        let outcome = programs.run("to_overlay", &packet, Context::default()).unwrap();
        assert_eq!((outcome.verdict, outcome.counted), (TO_OVERLAY.drop, Some(reason)), "{name}");
    }
}

#[test]
fn one_flow_keeps_its_flow_label_and_others_have_others() {
    let mut programs = Underlay::Ipv6.programs(0);
    let mut label = |port: u16| {
        let ip = Ipv6::new(LOCAL, REMOTE, PROTO_UDP, udp(port, 53, b"query"));
        let mut outcome = programs.run("to_overlay", &from_kernel(&ip), Context::default()).unwrap();
        normalise(Underlay::Ipv6, &mut outcome.packet)
    };
    assert_eq!(label(1000), label(1000));
    let labels: std::collections::BTreeSet<_> = (0..64).map(|port| label(1000 + port)).collect();
    assert!(labels.len() > 60, "{} of 64", labels.len());
}

#[test]
fn each_family_is_counted_by_its_own_subnets() {
    let (v4, v6) = to_remote();
    for underlay in UNDERLAYS {
        let mut programs = underlay.programs(0);
        programs.run("to_overlay", &from_kernel(&v4), Context::default()).unwrap();
        programs.run("to_overlay", &from_kernel(&v6), Context::default()).unwrap();
        let sums = [programs.traffic(REMOTE_SUBNET).unwrap(), programs.traffic(REMOTE_SUBNET_V6).unwrap()];
        let lengths = [v4.bytes().len() as u64, v6.bytes().len() as u64];
        assert_eq!(sums.map(|sum| (sum.encap_packets, sum.encap_bytes)), lengths.map(|length| (1, length)));
    }
}

#[test]
fn who_calls_a_subnet_that_nobody_leases_is_told_that_there_is_no_route() {
    let ip = Ipv6 { traffic_class: 0xbb, ..datagram(LOCAL, NOBODY, &[7; 30]) };
    let tcp = Ipv6::new(LOCAL, NOBODY, PROTO_TCP, tcp(1000));
    let short = Ipv6 { payload: udp(1, 2, b""), ..ip.clone() };
    let ping = Ipv6 { protocol: PROTO_ICMPV6, payload: icmpv6(LOCAL, NOBODY, 128, 0, &[7; 30]), ..ip.clone() };
    let mut programs = Underlay::Ipv6.programs(0);
    for (name, ip, quoted) in
        [("UDP", &ip, 60), ("TCP", &tcp, 60), ("UDP without data", &short, 48), ("ping", &ping, 60)]
    {
        let outcome = programs.run("to_overlay", &from_kernel(ip), Context::default()).unwrap();
        assert_eq!((outcome.verdict, outcome.counted), (TO_OVERLAY.taken, Some(Reason::NoRoute)), "{name}");
        let quote = [&[0; 4], &ip.bytes()[..quoted]].concat();
        let answer = Ipv6 {
            traffic_class: ip.traffic_class & !3,
            flow_label: 0,
            hop_limit: 64,
            ..Ipv6::new(NOBODY, LOCAL, PROTO_ICMPV6, icmpv6(NOBODY, LOCAL, 1, 0, &quote))
        };
        let expected = ethernet(Underlay::Ipv6.mac(), [0; 6], Ipv6::ETHER_TYPE, &answer.bytes());
        assert_eq!(outcome.packet, expected, "{name}");
    }
    for (name, ip) in [
        ("an error", Ipv6 { payload: icmpv6(LOCAL, NOBODY, 1, 0, &[7; 60]), ..ping.clone() }),
        ("a later fragment", later_fragment(&ip)),
        ("less than the quote takes", Ipv6 { payload: vec![0; 4], ..ip }),
    ] {
        let outcome = programs.run("to_overlay", &from_kernel(&ip), Context::default()).unwrap();
        assert_eq!((outcome.verdict, outcome.counted), (TO_OVERLAY.drop, Some(Reason::NoRoute)), "{name}");
    }
}
