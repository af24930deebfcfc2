//! Packets as the programs may meet them: mostly good, and every field now and then a near miss.
//!
//! Of which families they are, inside and outside, follows from the world's routes.

mod address;
mod ip;

use overlay_common::Encapsulation;
use overlay_tests::{
    model::{End, Family, Hop, Node, Program},
    packets::{
        ETHER_ARP, ETHER_IPV4, ETHER_IPV6, ETHER_VLAN, PROTO_ICMP, PROTO_ICMPV6, PROTO_TCP, PROTO_UDP, echo_request,
        ethernet, udp, vxlan,
    },
};

use self::{
    address::{a_route, address_near, near_miss},
    ip::{Ip, inner},
};
use crate::{chance::Chance, world::World};

/// IP protocols that have met tunnels before: IGMP, IPIP, IPv6 in IPv4, GRE, ESP, SCTP, an experimental one.
const PROTOCOLS: [u8; 8] = [2, 4, 41, 47, 50, 132, 253, 255];
/// EtherTypes that are not IPv4: also MPLS, QinQ, a length (802.3), and IPv4's with one bit changed.
const OTHER_ETHER_TYPES: [u16; 8] = [ETHER_ARP, ETHER_IPV6, ETHER_VLAN, 0x8847, 0x88a8, 0x002e, 0x0801, 0x0000];

/// A frame for `program`, in nine of ten cases one of its own kind.
pub(crate) fn frame(chance: &mut Chance, world: &World, program: Program) -> Vec<u8> {
    let outward = (program == Program::ToOverlay) != chance.one_in(10);
    let ip = if outward { container_packet(chance, world, 1) } else { tunnel_packet(chance, world) };
    let ether_type = if chance.one_in(25) { chance.pick(&OTHER_ETHER_TYPES) } else { ip.ether_type() };
    let mut payload = ip.bytes();
    if ether_type == ETHER_VLAN {
        payload.splice(..0, [[0x00, 0x07], ip.ether_type().to_be_bytes()].concat());
    }
    let mut frame = ethernet(chance.array(), chance.array(), ether_type, &payload);
    if chance.one_in(5) {
        let length = 1 + chance.below(64);
        frame.extend(trailer(chance, world, length));
    }
    frame
}

/// What stands behind a packet in a frame: nothing, noise, or what a reader beyond the end would like to find.
fn trailer(chance: &mut Chance, world: &World, length: usize) -> Vec<u8> {
    match chance.below(3) {
        0 => vec![0; length],
        1 => (0..length).map(|_| chance.byte()).collect(),
        _ => tunnel(chance, world).payload,
    }
}

/// A packet that a container here sends to a container elsewhere. `depth`: how many tunnels it may hold.
fn container_packet(chance: &mut Chance, world: &World, depth: u8) -> Ip {
    let (subnet, _) = a_route(chance, world);
    let source = address_near(chance, world, world.own_subnet(subnet));
    let destination = address_near(chance, world, subnet);
    let transport = transport(chance, world, Family::of(destination), depth);
    inner(chance, source, destination, transport)
}

/// The protocol number of what a packet carries, and that.
fn transport(chance: &mut Chance, world: &World, family: Family, depth: u8) -> (u8, Vec<u8>) {
    let length = chance.pick(&[0, 0, 1, 7, 8, 20, 33, 64, 200, 1400]);
    let data = vec![0x5a; length];
    match chance.below(8) {
        0 if family == Family::V6 => (PROTO_ICMPV6, echo_request(1, 1, &data)),
        0 => (PROTO_ICMP, [&[8, 0, 0, 0, 0, 1, 0, 1], data.as_slice()].concat()),
        1 | 2 => {
            let mut segment = vec![0; 20];
            segment[..4].copy_from_slice(&chance.array::<4>());
            segment[12] = 5 << 4;
            segment.extend(data);
            (PROTO_TCP, segment)
        }
        3 if depth > 0 => (PROTO_UDP, tunnel(chance, world).datagram),
        4 => (chance.pick(&PROTOCOLS), data),
        _ => (PROTO_UDP, udp(chance.word(), chance.mostly(53, 3, &[world.node.port]), &data)),
    }
}

/// A packet that another node sends us.
fn tunnel_packet(chance: &mut Chance, world: &World) -> Ip {
    if chance.one_in(30) {
        let (subnet, _) = a_route(chance, world);
        let source = address_near(chance, world, subnet);
        let destination = address_near(chance, world, world.own_subnet(subnet));
        let transport = transport(chance, world, Family::of(destination), 1);
        return inner(chance, source, destination, transport);
    }
    let Tunnel { datagram, hop, end, .. } = tunnel(chance, world);
    let (mut source, mut destination) = (hop.address, end.address);
    let protocol = chance.mostly(PROTO_UDP, 40, &[PROTO_TCP, 16, 0]);
    if chance.one_in(16) {
        source = near_miss(chance, world, source);
    }
    if chance.one_in(30) {
        destination = near_miss(chance, world, destination);
    }
    // The unmarked, mostly: a mark on a packet without ECN is dropped.
    let tos = chance.byte() & if chance.one_in(3) { 0xff } else { 0xfc };
    let mut ip = Ip::new(source, destination, protocol, datagram, tos);
    ip.vary(chance);
    ip
}

/// A packet for us in a UDP datagram.
struct Tunnel {
    datagram: Vec<u8>,
    /// What is in the datagram.
    payload: Vec<u8>,
    hop: Hop,
    /// Our end that it comes to.
    end: End,
}

fn tunnel(chance: &mut Chance, world: &World) -> Tunnel {
    let (subnet, hop) = a_route(chance, world);
    let source = address_near(chance, world, subnet);
    let destination = address_near(chance, world, world.own_subnet(subnet));
    let transport = transport(chance, world, Family::of(destination), 0);
    let inner = inner(chance, source, destination, transport);
    let end = *world.node.ends.of(Family::of(hop.address)).expect("routes lead over families that we have");
    let is_vxlan = (world.facts.encapsulation == Encapsulation::Vxlan) != chance.one_in(40);
    let payload = if is_vxlan { vxlan_payload(chance, &world.node, &end, &inner) } else { inner.bytes() };
    let port = world.node.port;
    let port = chance.mostly(port, 40, &[port ^ 1, port.swap_bytes(), 8285, 8472, 4789, 0]);
    let mut datagram = udp(chance.word(), port, &payload);
    if chance.one_in(4) {
        datagram[6..8].copy_from_slice(&chance.array::<2>());
    }
    if chance.one_in(40) {
        let length = datagram.len() as u16;
        let lie = chance.pick(&[0, 7, 8, 9, length - 1, length + 1, 0xffff]);
        datagram[4..6].copy_from_slice(&lie.to_be_bytes());
    }
    Tunnel { datagram, payload, hop, end }
}

fn vxlan_payload(chance: &mut Chance, node: &Node, end: &End, inner: &Ip) -> Vec<u8> {
    let ether_type = if chance.one_in(30) { chance.pick(&OTHER_ETHER_TYPES) } else { inner.ether_type() };
    let mac = end.mac;
    let mut flipped = mac;
    flipped[chance.below(6)] ^= 1 << chance.below(8);
    let mac = chance.mostly(mac, 30, &[[0xff; 6], [0; 6], [1, 0, 0x5e, 0, 0, 1], flipped]);
    let vni = node.vni;
    let bit = 1 << chance.below(24);
    let vni = chance.mostly(vni, 30, &[0, vni ^ bit, vni.swap_bytes() >> 8, (vni + 1) & 0xff_ffff]);
    let flags = chance.mostly(0x08, 30, &[0x00, 0x88, 0x0c, 0x28, 0x48, 0x80, 0xf7, 0xff]);
    vxlan(flags, vni, &ethernet(mac, chance.array(), ether_type, &inner.bytes()))
}

#[cfg(test)]
mod tests {
    use overlay_tests::{families::Families, model};

    use super::*;
    use crate::world;

    /// How often each family is met inside and outside among what the model carries.
    #[derive(Debug, Default)]
    struct Met {
        v4_in: [u32; 2],
        v6_in: [u32; 2],
    }

    #[test]
    fn a_world_with_both_families_meets_each_in_each_and_what_one_carries_the_other_takes() {
        let [world, ..] = world::all(Encapsulation::Vxlan, Families::Dual);
        let mut met = Met::default();
        for number in 0..5000 {
            let frame = frame(&mut Chance::of_packet(1, number), &world, Program::XdpDecap);
            let expected = model::expect(&world.facts, Program::XdpDecap, &frame, None);
            let Some((subnet, _)) = expected.counted else { continue };
            let outer = usize::from(frame[12..14] == ETHER_IPV6.to_be_bytes());
            let inner = if subnet.is_ipv4() { &mut met.v4_in } else { &mut met.v6_in };
            inner[outer] += 1;
        }
        assert!([met.v4_in, met.v6_in].as_flattened().iter().all(|count| *count > 100), "{met:?}");
    }

    #[test]
    fn a_world_with_one_family_meets_no_other() {
        for (families, ether_type) in [(Families::V4, ETHER_IPV4), (Families::V6, ETHER_IPV6)] {
            let [world, ..] = world::all(Encapsulation::Vxlan, families);
            let carried = (0..2000).filter(|number| {
                let frame = frame(&mut Chance::of_packet(1, *number), &world, Program::ToOverlay);
                let expected = model::expect(&world.facts, Program::ToOverlay, &frame, None);
                let is_carried = expected.counted.is_some();
                assert!(!is_carried || frame[12..14] == ether_type.to_be_bytes(), "{families:?}");
                is_carried
            });
            assert!(carried.count() > 300, "{families:?}");
        }
    }
}
