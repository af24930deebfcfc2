//! `from_underlay` and `xdp_decap`: what other nodes send.

use overlay_common::{Encapsulation, LocalNode, Reason};
use overlay_tests::{
    packets::{ETHER_ARP, ETHER_IPV4, ETHER_IPV6, ETHER_VLAN, Ipv4, PROTO_TCP, PROTO_UDP, ethernet, udp},
    programs::{Context, Outcome, Programs, REMOTE_NODE, REMOTE_SUBNET, VTEP},
};

use crate::{
    BOTH, Case, Expect, FROM_UNDERLAY, Hook, LOCAL, REMOTE, XDP_DECAP, check, delivered, exactly, from_wire, inner,
    inner_tcp, marked, tunnel, tunnel_bytes,
};

/// Tunnel packets that are accepted, with the packet that the container gets.
fn accepted(encapsulation: Encapsulation) -> Vec<(&'static str, Vec<u8>, Ipv4)> {
    let plain = inner(REMOTE, LOCAL);
    let of = |ip: &Ipv4| from_wire(&tunnel(encapsulation, ip));
    let rows = vec![
        ("a packet from the node that owns the subnet is decapsulated", plain.clone()),
        ("the smallest IP packet is decapsulated", Ipv4 { payload: Vec::new(), ..plain.clone() }),
        ("a first inner fragment is decapsulated", Ipv4 { flags_and_offset: 0x2000, ..plain.clone() }),
        ("a later inner fragment is decapsulated", Ipv4 { flags_and_offset: 0x00b9, ..plain.clone() }),
        ("inner IP options survive", Ipv4 { options: vec![1, 1, 1, 0], ..plain.clone() }),
        ("the inner TTL is left to the router behind", Ipv4 { ttl: 1, ..plain.clone() }),
        ("a full-size packet is decapsulated", inner_tcp(REMOTE, LOCAL, 1410)),
        ("the other node's own overlay address may send", inner([10, 1, 16, 0].into(), LOCAL)),
        ("our node's own overlay address may receive", inner(REMOTE, [10, 1, 15, 0].into())),
        ("an unused address of our subnet is for the kernel to refuse", inner(REMOTE, [10, 1, 15, 250].into())),
    ];
    let mut rows: Vec<_> = rows.into_iter().map(|(name, ip)| (name, of(&ip), ip)).collect();
    let options = Ipv4 { options: vec![1, 1, 1, 1, 1, 1, 1, 0], ..tunnel(encapsulation, &plain) };
    rows.push(("outer IP options are taken off as well", from_wire(&options), plain.clone()));
    let any_port = Ipv4::new(REMOTE_NODE, VTEP.address, PROTO_UDP, {
        let mut datagram = tunnel(encapsulation, &plain).payload;
        datagram[..2].copy_from_slice(&8285_u16.to_be_bytes());
        datagram
    });
    rows.push(("any outer source port is accepted", from_wire(&any_port), plain.clone()));
    let checksummed = Ipv4 {
        payload: {
            let mut datagram = tunnel(encapsulation, &plain).payload;
            datagram[6..8].copy_from_slice(&[0xbe, 0xef]);
            datagram
        },
        ..tunnel(encapsulation, &plain)
    };
    rows.push(("an outer UDP checksum is the inner packet's business", from_wire(&checksummed), plain));
    rows
}

/// Packets that are none of our business.
fn foreign(encapsulation: Encapsulation) -> Vec<(&'static str, Vec<u8>)> {
    let plain = tunnel(encapsulation, &inner(REMOTE, LOCAL));
    let vlan = ethernet([0x52; 6], [0x53; 6], ETHER_VLAN, &[&[0, 5, 8, 0], plain.bytes().as_slice()].concat());
    let other_port = Ipv4 { payload: udp(50_000, 53, b"query"), ..plain.clone() };
    vec![
        ("ARP passes", ethernet([255; 6], [2; 6], ETHER_ARP, &[0; 46])),
        ("IPv6 passes", ethernet([2; 6], [2; 6], ETHER_IPV6, &[0x60; 60])),
        ("a VLAN's packet is for the VLAN device", vlan),
        ("another UDP port passes", from_wire(&other_port)),
        (
            "an IP header that is none is the kernel's to refuse",
            from_wire(&Ipv4 { version_and_length: Some(0x65), ..plain.clone() }),
        ),
        ("another protocol passes", from_wire(&Ipv4 { protocol: PROTO_TCP, ..plain.clone() })),
        (
            "a tunnel packet for another node passes",
            from_wire(&Ipv4 { destination: [192, 168, 50, 9].into(), ..plain.clone() }),
        ),
        ("a later outer fragment goes to the kernel", from_wire(&Ipv4 { flags_and_offset: 0x00b9, ..plain.clone() })),
        ("a first outer fragment goes to the kernel", from_wire(&Ipv4 { flags_and_offset: 0x2000, ..plain })),
    ]
}

fn cases(encapsulation: Encapsulation, deliver: fn(Vec<u8>, &Ipv4) -> Expect) -> Vec<Case> {
    let taken = accepted(encapsulation).into_iter().map(|(name, input, ip)| {
        let expect = deliver(input.clone(), &ip);
        Case::new(name, input, expect)
    });
    let passed = foreign(encapsulation).into_iter().map(|(name, input)| Case::new(name, input, Expect::Untouched));
    taken.chain(passed).collect()
}

#[test]
fn from_underlay_decapsulates_udp() {
    let cases = cases(Encapsulation::Udp, |_, ip| Expect::Becomes(delivered(ip)));
    check(&FROM_UNDERLAY, Encapsulation::Udp, &cases, exactly);
}

#[test]
fn from_underlay_leaves_accepted_vxlan_to_the_kernels_device() {
    let cases = cases(Encapsulation::Vxlan, |_, _| Expect::Untouched);
    check(&FROM_UNDERLAY, Encapsulation::Vxlan, &cases, exactly);
}

#[test]
fn xdp_decap_decapsulates_both() {
    for encapsulation in BOTH {
        let mut cases = cases(encapsulation, |_, ip| Expect::Becomes(marked(ip)));
        let bare = ethernet([2; 6], [2; 6], ETHER_IPV4, &[0x45]);
        cases.push(Case::new("what ends before an outer IP header passes", bare, Expect::Untouched));
        check(&XDP_DECAP, encapsulation, &cases, exactly);
    }
}

/// RFC 6040, figure 4: ECN fields inside, outside, and after decap (`None`: dropped).
const ECN: [(u8, u8, Option<u8>); 16] = [
    (0b00, 0b00, Some(0b00)),
    (0b00, 0b10, Some(0b00)),
    (0b00, 0b01, Some(0b00)),
    (0b00, 0b11, None),
    (0b10, 0b00, Some(0b10)),
    (0b10, 0b10, Some(0b10)),
    (0b10, 0b01, Some(0b01)),
    (0b10, 0b11, Some(0b11)),
    (0b01, 0b00, Some(0b01)),
    (0b01, 0b10, Some(0b01)),
    (0b01, 0b01, Some(0b01)),
    (0b01, 0b11, Some(0b11)),
    (0b11, 0b00, Some(0b11)),
    (0b11, 0b10, Some(0b11)),
    (0b11, 0b01, Some(0b11)),
    (0b11, 0b11, Some(0b11)),
];

fn ecn_cases(encapsulation: Encapsulation, deliver: fn(&Ipv4) -> Vec<u8>) -> Vec<Case> {
    let dscp = 0xb8;
    let case = |(inside, outside, after): (u8, u8, Option<u8>)| {
        let ip = Ipv4 { tos: dscp | inside, ..inner(REMOTE, LOCAL) };
        let outer = Ipv4 { tos: outside, ..tunnel(encapsulation, &ip) };
        let expect = match after {
            Some(ecn) => Expect::Becomes(deliver(&Ipv4 { tos: dscp | ecn, ..ip })),
            None => Expect::Dropped(Reason::CeOnNotEct),
        };
        Case::new("ECN is combined as RFC 6040 says", from_wire(&outer), expect)
    };
    ECN.into_iter().map(case).collect()
}

#[test]
fn congestion_marks_follow_rfc_6040() {
    check(&FROM_UNDERLAY, Encapsulation::Udp, &ecn_cases(Encapsulation::Udp, delivered), exactly);
    for encapsulation in BOTH {
        check(&XDP_DECAP, encapsulation, &ecn_cases(encapsulation, marked), exactly);
    }
}

#[test]
fn padding_of_a_short_frame_is_no_part_of_the_inner_packet() {
    let ip = Ipv4 { payload: Vec::new(), ..inner(REMOTE, LOCAL) };
    let mut input = from_wire(&tunnel(Encapsulation::Udp, &ip));
    input.extend_from_slice(&[0; 12]);
    let mut expected = delivered(&ip);
    expected.extend_from_slice(&[0; 12]);
    let case = Case::new("the inner length says where it ends", input, Expect::Becomes(expected));
    check(&FROM_UNDERLAY, Encapsulation::Udp, &[case], exactly);
}

#[test]
fn datagrams_that_the_kernel_merged_are_not_taken_for_one_packet() {
    // UDP GRO of the underlay would hand over several datagrams with the headers of the first alone.
    let ip = inner(REMOTE, LOCAL);
    let merged = tunnel_bytes(Encapsulation::Udp, &[ip.bytes(), ip.bytes()].concat());
    let size = ip.bytes().len() as u32;
    let case = Case {
        context: Context { gso_size: size, gso_segs: 2 },
        ..Case::new("merged datagrams are refused", from_wire(&merged), Expect::Dropped(Reason::BadLength))
    };
    check(&FROM_UNDERLAY, Encapsulation::Udp, &[case], exactly);
}

#[test]
fn what_is_accepted_is_counted_by_subnet() {
    for (program, encapsulation) in [
        ("from_underlay", Encapsulation::Udp),
        ("from_underlay", Encapsulation::Vxlan),
        ("xdp_decap", Encapsulation::Udp),
        ("xdp_decap", Encapsulation::Vxlan),
    ] {
        let mut programs = Programs::load(encapsulation).expect("load the programs");
        let ip = inner(REMOTE, LOCAL);
        for _ in 0..3 {
            let packet = from_wire(&tunnel(encapsulation, &ip));
            programs.run(program, &packet, Context::default()).expect("run the program");
        }
        let traffic = programs.traffic(REMOTE_SUBNET).expect("read TRAFFIC");
        assert_eq!((traffic.decap_packets, traffic.decap_bytes), (3, 3 * ip.bytes().len() as u64), "{program}");
        assert_eq!((traffic.encap_packets, traffic.encap_bytes), (0, 0));
    }
}

#[test]
fn what_is_dropped_for_a_congestion_mark_is_not_counted_as_accepted() {
    for (program, encapsulation) in
        [("from_underlay", Encapsulation::Udp), ("xdp_decap", Encapsulation::Udp), ("xdp_decap", Encapsulation::Vxlan)]
    {
        let mut programs = Programs::load(encapsulation).expect("load the programs");
        let marked = Ipv4 { tos: 0b11, ..tunnel(encapsulation, &inner(REMOTE, LOCAL)) };
        let outcome = programs.run(program, &from_wire(&marked), Context::default()).expect("run the program");
        assert_eq!(outcome.counted, Some(Reason::CeOnNotEct), "{program}");
        let traffic = programs.traffic(REMOTE_SUBNET).expect("read TRAFFIC");
        assert_eq!((traffic.decap_packets, traffic.decap_bytes), (0, 0), "{program} on {encapsulation:?}");
    }
}

#[test]
fn everything_passes_until_the_agent_has_said_who_we_are() {
    for encapsulation in BOTH {
        let mut programs = Programs::load(encapsulation).expect("load the programs");
        programs.set_node(LocalNode::new(0)).expect("write LOCAL_NODE");
        for Hook { program, next, .. } in [FROM_UNDERLAY, XDP_DECAP] {
            for ip in [inner(REMOTE, LOCAL), tunnel(encapsulation, &inner(REMOTE, LOCAL))] {
                let packet = from_wire(&ip);
                let outcome = programs.run(program, &packet, Context::default()).expect("run the program");
                assert_eq!(outcome, Outcome { verdict: next, packet, counted: None }, "{program}");
            }
        }
    }
}
