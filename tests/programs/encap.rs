//! `to_overlay`: what containers send to other nodes.

use std::collections::BTreeSet;

use overlay_common::{Encapsulation, Reason};
use overlay_tests::{
    packets::{
        ETHER_ARP, ETHER_IPV4, ETHER_IPV6, Ipv4, PROTO_ICMP, PROTO_UDP, ethernet, internet_checksum, udp, vxlan,
    },
    programs::{Context, Programs, REMOTE_MAC, REMOTE_NODE, REMOTE_SUBNET, VTEP},
};

use crate::{BOTH, Case, Expect, LOCAL, REMOTE, TO_OVERLAY, check, from_kernel, inner, inner_tcp};

/// The source port and the identification that `normalise` puts into an outer packet.
const SOURCE_PORT: u16 = 49_152;
const ID: u16 = 0;

/// Takes out what an encapsulating node may choose: the source port in the dynamic range and the identification.
fn normalise(packet: &mut [u8]) {
    let is_outer = packet.len() > 42 && packet[30..34] == REMOTE_NODE.octets();
    if !is_outer {
        return;
    }
    let port = u16::from_be_bytes([packet[34], packet[35]]);
    assert!(port >= SOURCE_PORT, "source port {port} is below the dynamic range");
    assert_eq!(internet_checksum(&packet[14..34]), 0, "wrong checksum of the outer header");
    packet[34..36].copy_from_slice(&SOURCE_PORT.to_be_bytes());
    packet[18..20].copy_from_slice(&ID.to_be_bytes());
    packet[24..26].copy_from_slice(&[0; 2]);
    let checksum = internet_checksum(&packet[14..34]);
    packet[24..26].copy_from_slice(&checksum.to_be_bytes());
}

fn encapsulated(encapsulation: Encapsulation, inner: &Ipv4) -> Expect {
    Expect::Becomes(encapsulated_bytes(encapsulation, inner, &inner.bytes()))
}

fn encapsulated_bytes(encapsulation: Encapsulation, inner: &Ipv4, bytes: &[u8]) -> Vec<u8> {
    let payload = match encapsulation {
        Encapsulation::Udp => bytes.to_vec(),
        Encapsulation::Vxlan => vxlan(0x08, VTEP.vni, &ethernet(REMOTE_MAC, VTEP.mac, ETHER_IPV4, bytes)),
    };
    let outer = Ipv4 {
        tos: inner.tos,
        id: ID,
        ttl: 64,
        ..Ipv4::new(VTEP.address, REMOTE_NODE, PROTO_UDP, udp(SOURCE_PORT, VTEP.port, &payload))
    };
    from_kernel(&outer)
}

fn carried() -> Vec<(&'static str, Ipv4)> {
    let plain = inner(LOCAL, REMOTE);
    vec![
        ("a packet for a leased subnet is encapsulated", plain.clone()),
        ("the smallest IP packet is encapsulated", Ipv4 { payload: Vec::new(), ..plain.clone() }),
        ("DSCP and ECN are copied to the outer header", Ipv4 { tos: 0xb9, ..plain.clone() }),
        ("a congestion mark is copied to the outer header", Ipv4 { tos: 0x03, ..plain.clone() }),
        ("a first fragment is carried as it is", Ipv4 { flags_and_offset: 0x2000, ..plain.clone() }),
        ("a later fragment is carried by its address", Ipv4 { flags_and_offset: 0x00b9, ..plain.clone() }),
        ("IP options are carried", Ipv4 { options: vec![1, 1, 1, 0], ..plain.clone() }),
        ("an inner DF bit stays inside", Ipv4 { flags_and_offset: 0x4000, ..plain.clone() }),
        ("a protocol that nobody knows is carried", Ipv4 { protocol: 253, ..plain.clone() }),
        ("ICMP is carried", Ipv4 { protocol: PROTO_ICMP, ..plain.clone() }),
        ("a full-size packet is encapsulated", inner_tcp(LOCAL, REMOTE, 1410)),
        ("a subnet's network address is reachable", inner(LOCAL, [10, 1, 16, 0].into())),
    ]
}

fn refused() -> Vec<(&'static str, Vec<u8>, Reason)> {
    let to = |destination: [u8; 4]| from_kernel(&inner(LOCAL, destination.into()));
    let plain = inner(LOCAL, REMOTE);
    let lie = |first_byte| from_kernel(&Ipv4 { version_and_length: Some(first_byte), ..plain.clone() });
    let length = |length| from_kernel(&Ipv4 { total_length: Some(length), ..plain.clone() });
    vec![
        ("ARP stays on the node", ethernet([255; 6], VTEP.mac, ETHER_ARP, &[0; 46]), Reason::NotIpv4),
        ("IPv6 has no way in an IPv4 network", ethernet(VTEP.mac, VTEP.mac, ETHER_IPV6, &[0x60; 60]), Reason::NotIpv4),
        ("limited broadcast stays on the node", to([255; 4]), Reason::NotUnicast),
        ("multicast stays on the node", to([224, 0, 0, 1]), Reason::NotUnicast),
        ("loopback stays on the node", to([127, 0, 0, 1]), Reason::NotUnicast),
        ("link-local stays on the node", to([169, 254, 1, 1]), Reason::NotUnicast),
        ("'this network' stays on the node", to([0, 1, 2, 3]), Reason::NotUnicast),
        ("reserved addresses stay on the node", to([240, 0, 0, 1]), Reason::NotUnicast),
        ("an address outside the network is refused", to([8, 8, 8, 8]), Reason::OutsideNetwork),
        ("our own subnet is never encapsulated", to([10, 1, 15, 77]), Reason::OwnSubnet),
        (
            "another subnet's source is a forgery",
            from_kernel(&inner([10, 1, 99, 1].into(), REMOTE)),
            Reason::SourceNotOurs,
        ),
        ("the receiver's own source is a forgery", from_kernel(&inner(REMOTE, REMOTE)), Reason::SourceNotOurs),
        ("an underlay source is a forgery", from_kernel(&inner(VTEP.address, REMOTE)), Reason::SourceNotOurs),
        ("a header of version 5 is malformed", lie(0x55), Reason::BadHeader),
        ("a header shorter than 20 bytes is malformed", lie(0x44), Reason::BadHeader),
        ("a length beyond the packet is a lie", length(1400), Reason::BadLength),
        ("a length inside the header is a lie", length(19), Reason::BadLength),
    ]
}

#[test]
fn encap_follows_the_table() {
    for encapsulation in BOTH {
        let mut cases: Vec<Case> = carried()
            .into_iter()
            .map(|(name, ip)| Case::new(name, from_kernel(&ip), encapsulated(encapsulation, &ip)))
            .collect();
        cases
            .extend(refused().into_iter().map(|(name, input, reason)| Case::new(name, input, Expect::Dropped(reason))));
        check(&TO_OVERLAY, encapsulation, &cases, normalise);
    }
}

#[test]
fn bytes_behind_the_inner_packet_stay_out_of_the_outer_one() {
    for encapsulation in BOTH {
        let ip = inner(LOCAL, REMOTE);
        let mut input = from_kernel(&ip);
        input.extend_from_slice(b"padding");
        let mut expected = encapsulated_bytes(encapsulation, &ip, &ip.bytes());
        expected.extend_from_slice(b"padding");
        let case = Case::new("the outer lengths leave out the padding", input, Expect::Becomes(expected));
        check(&TO_OVERLAY, encapsulation, &[case], normalise);
    }
}

#[test]
fn flows_spread_over_source_ports_and_one_flow_keeps_its_own() {
    let mut programs = Programs::load(Encapsulation::Vxlan).expect("load the programs");
    let mut port_of = |flow: u16| {
        let ip = Ipv4::new(LOCAL, REMOTE, PROTO_UDP, udp(1024 + flow, 53, b"query"));
        let outcome = programs.run("to_overlay", &from_kernel(&ip), Context::default()).expect("run the program");
        u16::from_be_bytes([outcome.packet[34], outcome.packet[35]])
    };
    let ports: BTreeSet<u16> = (0..256).map(&mut port_of).collect();
    assert!(ports.len() > 200, "256 flows share {} source ports", ports.len());
    assert_eq!(port_of(7), port_of(7));
}

#[test]
fn fragments_of_one_datagram_keep_together() {
    let mut programs = Programs::load(Encapsulation::Vxlan).expect("load the programs");
    let mut port_of = |flags_and_offset| {
        let ip = Ipv4 { flags_and_offset, ..inner(LOCAL, REMOTE) };
        let outcome = programs.run("to_overlay", &from_kernel(&ip), Context::default()).expect("run the program");
        u16::from_be_bytes([outcome.packet[34], outcome.packet[35]])
    };
    assert_eq!(port_of(0x2000), port_of(0x00b9), "first and later fragment take different ways");
}

#[test]
fn what_is_encapsulated_is_counted_by_subnet() {
    for encapsulation in BOTH {
        let mut programs = Programs::load(encapsulation).expect("load the programs");
        let ip = inner(LOCAL, REMOTE);
        for _ in 0..3 {
            programs.run("to_overlay", &from_kernel(&ip), Context::default()).expect("run the program");
        }
        let traffic = programs.traffic(REMOTE_SUBNET).expect("read TRAFFIC");
        assert_eq!((traffic.encap_packets, traffic.encap_bytes), (3, 3 * ip.bytes().len() as u64));
        assert_eq!((traffic.decap_packets, traffic.decap_bytes), (0, 0));
    }
}

#[test]
fn bytes_behind_the_inner_packet_are_not_counted() {
    for encapsulation in BOTH {
        let mut programs = Programs::load(encapsulation).expect("load the programs");
        let ip = inner(LOCAL, REMOTE);
        let padded = [from_kernel(&ip).as_slice(), b"padding"].concat();
        programs.run("to_overlay", &padded, Context::default()).expect("run the program");
        let traffic = programs.traffic(REMOTE_SUBNET).expect("read TRAFFIC");
        assert_eq!(traffic.encap_bytes, ip.bytes().len() as u64);
    }
}
