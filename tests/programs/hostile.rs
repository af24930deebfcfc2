//! What no node of ours would send: each is dropped for its own reason and harms nothing.

use std::net::Ipv4Addr;

use overlay_common::{Encapsulation, Reason};
use overlay_tests::{
    packets::{ETHER_ARP, ETHER_IPV4, ETHER_IPV6, Ipv4, ethernet, udp, vxlan},
    programs::{Context, Programs, REMOTE_MAC, REMOTE_SUBNET, VTEP},
};

use crate::{
    BOTH, Case, Expect, FROM_UNDERLAY, Hook, LOCAL, REMOTE, XDP_DECAP, check, exactly, from_wire, inner, tunnel,
    tunnel_bytes,
};

/// A node that holds a lease for another subnet than the one under test.
const THIRD_NODE: Ipv4Addr = Ipv4Addr::new(192, 168, 50, 3);

fn forgeries(encapsulation: Encapsulation) -> Vec<(&'static str, Ipv4, Reason)> {
    let plain = tunnel(encapsulation, &inner(REMOTE, LOCAL));
    let with = |ip: &Ipv4| tunnel(encapsulation, ip);
    let stranger = Ipv4 { source: [192, 168, 50, 66].into(), ..plain.clone() };
    let own = Ipv4 { source: VTEP.address, ..plain.clone() };
    let foreign_source = with(&inner([8, 8, 8, 8].into(), LOCAL));
    let unleased = with(&inner([10, 1, 99, 1].into(), LOCAL));
    let ours = with(&inner([10, 1, 15, 3].into(), LOCAL));
    let not_ours = with(&inner(REMOTE, [10, 1, 99, 1].into()));
    let outside = with(&inner(REMOTE, [8, 8, 8, 8].into()));
    let back = with(&inner(REMOTE, [10, 1, 16, 3].into()));
    let multicast = with(&inner(REMOTE, [224, 0, 0, 1].into()));
    vec![
        ("a stranger's packet", stranger, Reason::UnknownNode),
        ("a packet that claims to come from ourselves", own, Reason::UnknownNode),
        ("a known node with a source outside the network", foreign_source, Reason::SourceNotTheirs),
        ("a known node with a source that nobody leases", unleased, Reason::SourceNotTheirs),
        ("a known node with a source of ours", ours, Reason::SourceNotTheirs),
        ("a destination in no one's subnet", not_ours, Reason::DestinationNotOurs),
        ("a destination outside the network", outside, Reason::DestinationNotOurs),
        ("a destination back at the sender", back, Reason::DestinationNotOurs),
        ("an inner multicast", multicast, Reason::DestinationNotOurs),
        ("a bare packet from an overlay address", inner(REMOTE, LOCAL), Reason::NotEncapsulated),
        (
            "a tunnel in the tunnel that comes from the overlay",
            with(&with_source(&plain, REMOTE)),
            Reason::DestinationNotOurs,
        ),
    ]
}

fn with_source(ip: &Ipv4, source: Ipv4Addr) -> Ipv4 {
    Ipv4 { source, ..ip.clone() }
}

fn lies(encapsulation: Encapsulation) -> Vec<(&'static str, Ipv4, Reason)> {
    let ip = inner(REMOTE, LOCAL);
    let plain = tunnel(encapsulation, &ip);
    let inside = |lie: Ipv4| tunnel(encapsulation, &lie);
    let first_byte = |byte| inside(Ipv4 { version_and_length: Some(byte), ..ip.clone() });
    let length = |length| inside(Ipv4 { total_length: Some(length), ..ip.clone() });
    let udp_length = |length: u16| {
        let mut lie = plain.clone();
        lie.payload[4..6].copy_from_slice(&length.to_be_bytes());
        lie
    };
    let whole = plain.bytes().len() as u16;
    vec![
        ("an inner header of version 6", first_byte(0x65), Reason::BadHeader),
        ("an inner header shorter than 20 bytes", first_byte(0x44), Reason::BadHeader),
        ("an inner length beyond the payload", length(500), Reason::BadLength),
        ("an inner length inside its header", length(19), Reason::BadLength),
        (
            "an outer length beyond the frame",
            Ipv4 { total_length: Some(whole + 1), ..plain.clone() },
            Reason::BadLength,
        ),
        (
            "an outer length short of the datagram",
            Ipv4 { total_length: Some(whole - 1), ..plain.clone() },
            Reason::BadLength,
        ),
        ("an outer length of nothing", Ipv4 { total_length: Some(0), ..plain.clone() }, Reason::BadLength),
        ("a UDP length beyond the packet", udp_length(whole), Reason::BadLength),
        ("a UDP length inside its header", udp_length(7), Reason::BadLength),
        ("a UDP length of nothing", udp_length(0), Reason::BadLength),
    ]
}

fn wrong_vxlan() -> Vec<(&'static str, Ipv4, Reason)> {
    let ip = inner(REMOTE, LOCAL);
    let frame = |mac, ether_type| ethernet(mac, REMOTE_MAC, ether_type, &ip.bytes());
    let outer = |payload: &[u8]| Ipv4 { payload: udp(50_000, VTEP.port, payload), ..tunnel(Encapsulation::Vxlan, &ip) };
    let ours = frame(VTEP.mac, ETHER_IPV4);
    let arp = ethernet([255; 6], REMOTE_MAC, ETHER_ARP, &[0; 46]);
    vec![
        ("another network's number", outer(&vxlan(0x08, 2, &ours)), Reason::WrongVni),
        ("a number that differs in its upper bits", outer(&vxlan(0x08, 0x10_0001, &ours)), Reason::WrongVni),
        ("no number at all", outer(&vxlan(0x00, VTEP.vni, &ours)), Reason::BadVxlanFlags),
        ("a group policy", outer(&vxlan(0x88, VTEP.vni, &ours)), Reason::BadVxlanFlags),
        ("remote checksum offload", outer(&vxlan(0x28, VTEP.vni, &ours)), Reason::BadVxlanFlags),
        ("a protocol other than Ethernet inside", outer(&vxlan(0x0c, VTEP.vni, &ours)), Reason::BadVxlanFlags),
        ("ARP inside", outer(&vxlan(0x08, VTEP.vni, &arp)), Reason::InnerNotIpv4),
        ("IPv6 inside", outer(&vxlan(0x08, VTEP.vni, &frame(VTEP.mac, ETHER_IPV6))), Reason::InnerNotIpv4),
        (
            "another VTEP's frame",
            outer(&vxlan(0x08, VTEP.vni, &frame([2, 9, 9, 9, 9, 9], ETHER_IPV4))),
            Reason::WrongVtepMac,
        ),
        ("a broadcast frame", outer(&vxlan(0x08, VTEP.vni, &frame([255; 6], ETHER_IPV4))), Reason::WrongVtepMac),
    ]
}

fn dropped(rows: Vec<(&'static str, Ipv4, Reason)>) -> Vec<Case> {
    let case = |(name, ip, reason)| Case::new(name, from_wire(&ip), Expect::Dropped(reason));
    rows.into_iter().map(case).collect()
}

fn on_both_hooks(encapsulation: Encapsulation, cases: &[Case]) {
    check(&FROM_UNDERLAY, encapsulation, cases, exactly);
    check(&XDP_DECAP, encapsulation, cases, exactly);
}

#[test]
fn forgeries_are_dropped_each_for_its_reason() {
    for encapsulation in BOTH {
        on_both_hooks(encapsulation, &dropped(forgeries(encapsulation)));
    }
}

#[test]
fn lying_headers_are_dropped() {
    for encapsulation in BOTH {
        on_both_hooks(encapsulation, &dropped(lies(encapsulation)));
    }
}

#[test]
fn vxlan_that_is_not_our_networks_is_dropped() {
    on_both_hooks(Encapsulation::Vxlan, &dropped(wrong_vxlan()));
}

#[test]
fn a_node_may_not_send_from_another_nodes_subnet() {
    for encapsulation in BOTH {
        let mut programs = Programs::load(encapsulation).expect("load the programs");
        programs.set_route([10, 1, 17, 0], THIRD_NODE).expect("add a route");
        let outer = Ipv4 { source: THIRD_NODE, ..tunnel(encapsulation, &inner(REMOTE, LOCAL)) };
        for Hook { program, drop, .. } in [FROM_UNDERLAY, XDP_DECAP] {
            let outcome = programs.run(program, &from_wire(&outer), Context::default()).expect("run the program");
            assert_eq!((outcome.verdict, outcome.counted), (drop, Some(Reason::SourceNotTheirs)), "{program}");
        }
    }
}

#[test]
fn a_forged_first_fragment_does_not_reach_the_kernels_reassembly() {
    for encapsulation in BOTH {
        let mut rows = forgeries(encapsulation);
        rows.retain(|(_, _, reason)| *reason != Reason::NotEncapsulated);
        for (_, ip, _) in &mut rows {
            ip.flags_and_offset = 0x2000;
        }
        on_both_hooks(encapsulation, &dropped(rows));
    }
}

#[test]
fn a_tunnel_packet_cut_at_any_byte_is_dropped_or_passed_whole() {
    for encapsulation in BOTH {
        let mut programs = Programs::load(encapsulation).expect("load the programs");
        let whole = from_wire(&tunnel(encapsulation, &inner(REMOTE, LOCAL)));
        for Hook { program, next, drop, .. } in [FROM_UNDERLAY, XDP_DECAP] {
            // The kernel itself refuses to run a TC program on an IPv4 packet without an IPv4 header.
            let shortest = if program == XDP_DECAP.program { 15 } else { 34 };
            for length in shortest..whole.len() {
                let cut = &whole[..length];
                let outcome = programs.run(program, cut, Context::default()).expect("run the program");
                // Without a whole outer IP header nobody can tell that the packet was for us.
                let passed = outcome.verdict == next && outcome.packet == cut && length < 34;
                let refused = matches!(outcome.counted, Some(Reason::Truncated | Reason::BadLength));
                assert!(passed || (outcome.verdict == drop && refused), "{program} at {length}: {outcome:?}");
            }
        }
    }
}

#[test]
fn an_inner_packet_cut_at_any_byte_is_dropped() {
    for encapsulation in BOTH {
        let mut programs = Programs::load(encapsulation).expect("load the programs");
        let whole = inner(REMOTE, LOCAL).bytes();
        for Hook { program, drop, .. } in [FROM_UNDERLAY, XDP_DECAP] {
            for length in 0..whole.len() {
                let packet = from_wire(&tunnel_bytes(encapsulation, &whole[..length]));
                let outcome = programs.run(program, &packet, Context::default()).expect("run the program");
                let refused = matches!(outcome.counted, Some(Reason::Truncated | Reason::BadLength));
                assert!(outcome.verdict == drop && refused, "{program} at {length}: {outcome:?}");
            }
        }
    }
}

#[test]
fn nothing_is_read_behind_the_end_of_the_outer_packet() {
    for encapsulation in BOTH {
        let whole = tunnel(encapsulation, &inner(REMOTE, LOCAL));
        let payload = &whole.payload[8..];
        let headers = usize::from(encapsulation.overhead::<[u8; 4]>()) - 28 + 20;
        let case = |name, flags_and_offset, length| {
            // Good headers all the same, but the kernel would cut them off and, of a fragment, read others.
            let datagram = udp(50_000, VTEP.port, &payload[..length]);
            let mut input = from_wire(&Ipv4 { flags_and_offset, payload: datagram, ..whole.clone() });
            input.extend_from_slice(&payload[length..]);
            Case::new(name, input, Expect::Dropped(Reason::Truncated))
        };
        let datagrams = (0..headers).map(|length| case("a datagram with its headers in the padding", 0, length));
        let fragments = (0..headers).map(|length| case("a fragment with its headers in the padding", 0x2000, length));
        on_both_hooks(encapsulation, &datagrams.chain(fragments).collect::<Vec<_>>());
    }
}

#[test]
fn a_programs_metadata_cannot_be_forged_from_the_wire() {
    // The mark that xdp_decap leaves, in front of a bare inner packet: on the wire it is only bytes.
    let mut programs = Programs::load(Encapsulation::Vxlan).expect("load the programs");
    let mut packet = overlay_common::XDP_DECAPSULATED.to_ne_bytes().to_vec();
    packet.extend_from_slice(&from_wire(&inner(REMOTE, LOCAL)));
    let outcome = programs.run("from_underlay", &packet, Context::default()).expect("run the program");
    assert_eq!(outcome.verdict, FROM_UNDERLAY.next, "{outcome:?}");
    assert_eq!(programs.traffic(REMOTE_SUBNET).expect("read").decap_packets, 0);
}
