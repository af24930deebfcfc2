//! `from_underlay` and `xdp_decap`: what comes in over either underlay.

use std::net::Ipv6Addr;

use overlay_common::{Reason, XDP_DECAPSULATED};
use overlay_tests::{
    packets::{ETHER_ARP, Extension, Ip, Ipv6, PROTO_TCP, PROTO_UDP, ethernet, udp, vxlan},
    programs::{Context, Programs, REMOTE_MAC, REMOTE_NODE_V6, VTEP, VTEP_V6},
};

use super::{
    LOCAL, OUTSIDE, REMOTE, UNDERLAYS, Underlay, extended, first_fragment, inner_frame, later_fragment, to_local,
};
use crate::{FROM_UNDERLAY, Hook, XDP_DECAP};

/// What `xdp_decap` leaves of an inner packet: in front of it the mark, as the kernel shows it.
fn marked<I: Ip>(inner: &I) -> Vec<u8> {
    let mac = if I::ETHER_TYPE == Ipv6::ETHER_TYPE { VTEP_V6.mac } else { VTEP.mac };
    [&XDP_DECAPSULATED.to_ne_bytes(), ethernet(mac, [0; 6], I::ETHER_TYPE, &inner.to_bytes()).as_slice()].concat()
}

fn assert_accepted<I: Ip>(programs: &mut Programs, underlay: Underlay, name: &str, outside: u8, inner: &I, after: u8) {
    let packet = underlay.tunnel(inner, outside);
    // On TC the kernel's own device decapsulates.
    let outcome = programs.run("from_underlay", &packet, Context::default()).expect("run from_underlay");
    assert_eq!((outcome.verdict, outcome.counted), (FROM_UNDERLAY.next, None), "{name} over {underlay:?}");
    assert_eq!(outcome.packet, packet, "{name} over {underlay:?}");
    let outcome = programs.run("xdp_decap", &packet, Context::default()).expect("run xdp_decap");
    assert_eq!((outcome.verdict, outcome.counted), (XDP_DECAP.taken, None), "{name} over {underlay:?}");
    assert_eq!(outcome.packet, marked(&inner.clone().with_tos(after)), "{name} over {underlay:?}");
}

#[test]
fn every_inner_family_comes_in_over_every_underlay() {
    let (v4, v6) = to_local();
    for underlay in UNDERLAYS {
        let mut programs = underlay.programs(0);
        assert_accepted(&mut programs, underlay, "IPv4", 0, &v4, 0);
        assert_accepted(&mut programs, underlay, "IPv6", 0, &v6, 0);
        assert_accepted(&mut programs, underlay, "IPv4, marked on the way", 0b11, &v4.clone().with_tos(0xba), 0xbb);
        assert_accepted(&mut programs, underlay, "IPv6, marked on the way", 0b11, &v6.clone().with_tos(0xba), 0xbb);
        assert_accepted(&mut programs, underlay, "IPv6, DSCP outside", 0xb8, &v6.clone().with_tos(0x01), 0x01);
        assert_accepted(&mut programs, underlay, "hop limit 1", 0, &Ipv6 { hop_limit: 1, ..v6.clone() }, 0);
        assert_accepted(&mut programs, underlay, "a fragment", 0, &later_fragment(&v6), 0);
        let options = extended(&v6, Extension::padding(Extension::DESTINATION));
        assert_accepted(&mut programs, underlay, "extension headers", 0, &options, 0);
    }
}

fn assert_dropped(programs: &mut Programs, name: &str, packet: &[u8], reason: Reason) {
    for Hook { program, drop, .. } in [FROM_UNDERLAY, XDP_DECAP] {
        let outcome = programs.run(program, packet, Context::default()).expect("run the program");
        assert_eq!((outcome.verdict, outcome.counted), (drop, Some(reason)), "{name}: {program}");
    }
}

#[test]
fn forged_and_broken_inner_packets_are_dropped_each_for_its_reason() {
    let (v4, v6) = to_local();
    let unleased = Ipv6Addr::new(0xfd00, 1, 0, 99, 0, 0, 0, 1);
    for underlay in UNDERLAYS {
        let mut programs = underlay.programs(0);
        for (name, ip, reason) in [
            ("a source outside the network", Ipv6 { source: OUTSIDE, ..v6.clone() }, Reason::SourceNotTheirs),
            ("a source that nobody leases", Ipv6 { source: unleased, ..v6.clone() }, Reason::SourceNotTheirs),
            ("a source of ours", Ipv6 { source: LOCAL, ..v6.clone() }, Reason::SourceNotTheirs),
            ("a destination outside", Ipv6 { destination: OUTSIDE, ..v6.clone() }, Reason::DestinationNotOurs),
            ("a destination back there", Ipv6 { destination: REMOTE, ..v6.clone() }, Reason::DestinationNotOurs),
            ("version 4", Ipv6 { version: Some(4), ..v6.clone() }, Reason::BadHeader),
            ("a length beyond the payload", Ipv6 { payload_length: Some(500), ..v6.clone() }, Reason::BadLength),
        ] {
            assert_dropped(&mut programs, name, &underlay.tunnel(&ip, 0), reason);
        }
        assert_dropped(&mut programs, "a mark without ECN", &underlay.tunnel(&v6, 0b11), Reason::CeOnNotEct);
        let arp = ethernet(underlay.mac(), REMOTE_MAC, ETHER_ARP, &[0; 46]);
        assert_dropped(&mut programs, "ARP inside", &underlay.tunnel_frame(&arp, 0), Reason::InnerNotIpv4);
        let other = ethernet([2, 9, 9, 9, 9, 9], REMOTE_MAC, Ipv6::ETHER_TYPE, &v6.bytes());
        assert_dropped(&mut programs, "another VTEP's frame", &underlay.tunnel_frame(&other, 0), Reason::WrongVtepMac);
        let lying = ethernet(underlay.mac(), REMOTE_MAC, Ipv6::ETHER_TYPE, &v4.bytes());
        assert_dropped(
            &mut programs,
            "IPv4 that says it is IPv6",
            &underlay.tunnel_frame(&lying, 0),
            Reason::BadHeader,
        );
    }
}

/// The outer packet over IPv6 that carries `inner`.
fn outer(inner: &impl Ip) -> Ipv6 {
    let payload = vxlan(0x08, VTEP.vni, &inner_frame(Underlay::Ipv6, inner));
    Ipv6::new(REMOTE_NODE_V6, VTEP_V6.address, PROTO_UDP, udp(50_000, VTEP.port, &payload))
}

fn frame(outer: &Ipv6) -> Vec<u8> {
    ethernet([0x52, 0, 0, 0, 0, 1], [0x52, 0, 0, 0, 0, 2], Ipv6::ETHER_TYPE, &outer.bytes())
}

#[test]
fn outer_ipv6_headers_that_lie_or_come_from_strangers_are_dropped() {
    let (v4, v6) = to_local();
    let plain = outer(&v6);
    let mut programs = Underlay::Ipv6.programs(0);
    let stranger = Ipv6Addr::new(0xfd50, 0, 0, 0, 0, 0, 0, 9);
    for (name, ip, reason) in [
        ("a stranger", Ipv6 { source: stranger, ..plain.clone() }, Reason::UnknownNode),
        ("a stranger with IPv4 inside", Ipv6 { source: stranger, ..outer(&v4) }, Reason::UnknownNode),
        ("an overlay address without a tunnel", v6.clone(), Reason::NotEncapsulated),
        ("a length beyond the frame", Ipv6 { payload_length: Some(1400), ..plain.clone() }, Reason::BadLength),
        ("a length short of the datagram", Ipv6 { payload_length: Some(60), ..plain.clone() }, Reason::BadLength),
        ("a stranger's fragment", Ipv6 { source: stranger, ..first_fragment(&plain) }, Reason::UnknownNode),
    ] {
        assert_dropped(&mut programs, name, &frame(&ip), reason);
    }
}

#[test]
fn outer_ipv6_that_is_none_of_ours_passes() {
    let plain = outer(&to_local().1);
    let neighbour = Ipv6Addr::new(0xfd50, 0, 0, 0, 0, 0, 0, 7);
    let mut programs = Underlay::Ipv6.programs(0);
    for (name, ip) in [
        ("for another node", Ipv6 { destination: neighbour, ..plain.clone() }),
        ("another port", Ipv6 { payload: udp(50_000, 53, b"query"), ..plain.clone() }),
        ("another protocol", Ipv6 { protocol: PROTO_TCP, ..plain.clone() }),
        ("a later fragment", later_fragment(&plain)),
        ("a first fragment, which the kernel reassembles", first_fragment(&plain)),
        ("an outer header of another version", Ipv6 { version: Some(5), ..plain.clone() }),
    ] {
        for Hook { program, next, .. } in [FROM_UNDERLAY, XDP_DECAP] {
            let outcome = programs.run(program, &frame(&ip), Context::default()).unwrap();
            assert_eq!((outcome.verdict, outcome.counted), (next, None), "{name}: {program}");
            assert_eq!(outcome.packet, frame(&ip), "{name}: {program}");
        }
    }
}

#[test]
fn a_tunnel_packet_over_ipv6_cut_at_any_byte_is_dropped_or_passed_whole() {
    let whole = frame(&outer(&to_local().1));
    let mut programs = Underlay::Ipv6.programs(0);
    for Hook { program, next, drop, .. } in [FROM_UNDERLAY, XDP_DECAP] {
        // The kernel itself refuses to run a TC program on an IPv6 packet without an IPv6 header.
        let shortest = if program == XDP_DECAP.program { 15 } else { 54 };
        for length in shortest..whole.len() {
            let cut = &whole[..length];
            let outcome = programs.run(program, cut, Context::default()).unwrap();
            let passed = outcome.verdict == next && outcome.packet == cut && length < 54;
            let refused = matches!(outcome.counted, Some(Reason::Truncated | Reason::BadLength));
            assert!(passed || (outcome.verdict == drop && refused), "{program} at {length}: {outcome:?}");
        }
    }
}
