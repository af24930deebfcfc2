//! Packets as the programs may meet them: mostly good, and every field now and then a near miss.

use std::net::Ipv4Addr;

use ipnetwork::Ipv4Network;
use overlay_common::Encapsulation;
use overlay_tests::{
    model::{Hop, Node, Program},
    packets::{
        ETHER_ARP, ETHER_IPV4, ETHER_IPV6, ETHER_VLAN, Ipv4, PROTO_ICMP, PROTO_TCP, PROTO_UDP, ethernet, udp, vxlan,
    },
};

use crate::{chance::Chance, world::World};

/// IP protocols that have met tunnels before: IGMP, IPIP, IPv6 in IPv4, GRE, ESP, SCTP, an experimental one.
const PROTOCOLS: [u8; 8] = [2, 4, 41, 47, 50, 132, 253, 255];
/// EtherTypes that are not IPv4: also MPLS, QinQ, a length (802.3), and IPv4's with one bit changed.
const OTHER_ETHER_TYPES: [u16; 8] = [ETHER_ARP, ETHER_IPV6, ETHER_VLAN, 0x8847, 0x88a8, 0x002e, 0x0801, 0x0000];
/// Flags and fragment offset: DF, first, later and last fragment, the reserved bit, all of it.
const FRAGMENTS: [u16; 7] = [0x4000, 0x2000, 0x20b9, 0x00b9, 0x8000, 0x0001, 0xffff];
/// Addresses that belong to nobody here.
const ELSEWHERE: [[u8; 4]; 10] = [
    [0, 0, 0, 0],
    [0, 1, 2, 3],
    [8, 8, 8, 8],
    [127, 0, 0, 1],
    [169, 254, 1, 1],
    [169, 253, 1, 1],
    [224, 0, 0, 1],
    [239, 255, 255, 255],
    [240, 0, 0, 1],
    [255, 255, 255, 255],
];

/// A frame for `program`, in nine of ten cases one of its own kind.
pub(crate) fn frame(chance: &mut Chance, world: &World, program: Program) -> Vec<u8> {
    let outward = (program == Program::ToOverlay) != chance.one_in(10);
    let ip = if outward { container_packet(chance, world, 1) } else { tunnel_packet(chance, world) };
    let ether_type = if chance.one_in(25) { chance.pick(&OTHER_ETHER_TYPES) } else { ETHER_IPV4 };
    let mut payload = ip.bytes();
    if ether_type == ETHER_VLAN {
        payload.splice(..0, [0x00, 0x07, 0x08, 0x00]);
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
        _ => tunnel_payload(chance, world).1,
    }
}

/// A packet that a container here sends to a container elsewhere. `depth`: how many tunnels it may hold.
fn container_packet(chance: &mut Chance, world: &World, depth: u8) -> Ipv4 {
    let (subnet, _) = a_route(chance, world);
    let source = address_near(chance, world, world.node.subnet);
    let destination = address_near(chance, world, subnet);
    inner(chance, world, source, destination, depth)
}

/// A packet between containers.
fn inner(chance: &mut Chance, world: &World, source: Ipv4Addr, destination: Ipv4Addr, depth: u8) -> Ipv4 {
    let (protocol, payload) = transport(chance, world, depth);
    let mut ip = Ipv4 { tos: chance.byte(), id: chance.word(), ..Ipv4::new(source, destination, protocol, payload) };
    ip.ttl = chance.pick(&[0, 1, 63, 64, 255]);
    vary(chance, &mut ip);
    if chance.one_in(8) {
        ip.id = id_for_no_checksum(&ip);
    }
    ip
}

/// The identification that makes the header's checksum 0: a change of the header then carries twice.
fn id_for_no_checksum(ip: &Ipv4) -> u16 {
    let header = Ipv4 { id: 0, ..ip.clone() }.bytes();
    u16::from_be_bytes([header[10], header[11]])
}

/// What any sender may do to a header, and some lies.
fn vary(chance: &mut Chance, ip: &mut Ipv4) {
    if chance.one_in(6) {
        ip.options = vec![1; 4 * (1 + chance.below(10))];
    }
    if chance.one_in(6) {
        ip.flags_and_offset = chance.pick(&FRAGMENTS);
    }
    if chance.one_in(40) {
        ip.version_and_length = Some(chance.pick(&[0x00, 0x40, 0x44, 0x46, 0x4f, 0x55, 0x65, 0x6f, 0xf5]));
    }
    if chance.one_in(40) {
        let length = (20 + ip.options.len() + ip.payload.len()) as u16;
        let lies = [0, 19, 20, 21, length.wrapping_sub(1), length + 1, length + 30, 0x7fff, 0xffff];
        ip.total_length = Some(chance.pick(&lies));
    }
}

fn transport(chance: &mut Chance, world: &World, depth: u8) -> (u8, Vec<u8>) {
    let length = chance.pick(&[0, 0, 1, 7, 8, 20, 33, 64, 200, 1400]);
    let data = vec![0x5a; length];
    match chance.below(8) {
        0 => (PROTO_ICMP, [&[8, 0, 0, 0, 0, 1, 0, 1], data.as_slice()].concat()),
        1 | 2 => {
            let mut segment = vec![0; 20];
            segment[..4].copy_from_slice(&chance.array::<4>());
            segment[12] = 5 << 4;
            segment.extend(data);
            (PROTO_TCP, segment)
        }
        3 if depth > 0 => (PROTO_UDP, tunnel_payload(chance, world).0),
        4 => (chance.pick(&PROTOCOLS), data),
        _ => (PROTO_UDP, udp(chance.word(), chance.mostly(53, 3, &[world.node.vtep.port]), &data)),
    }
}

/// A packet that another node sends us.
fn tunnel_packet(chance: &mut Chance, world: &World) -> Ipv4 {
    if chance.one_in(30) {
        let (subnet, _) = a_route(chance, world);
        let (source, destination) =
            (address_near(chance, world, subnet), address_near(chance, world, world.node.subnet));
        return inner(chance, world, source, destination, 1);
    }
    let (datagram, _, hop) = tunnel(chance, world);
    let (source, destination) = (hop.address, world.node.vtep.address);
    let mut ip = Ipv4::new(source, destination, chance.mostly(PROTO_UDP, 40, &[PROTO_TCP, 16, 0]), datagram);
    if chance.one_in(16) {
        ip.source = near_miss(chance, world, source);
    }
    if chance.one_in(30) {
        ip.destination = near_miss(chance, world, destination);
    }
    // The unmarked, mostly: a mark on a packet without ECN is dropped.
    ip.tos = chance.byte() & if chance.one_in(3) { 0xff } else { 0xfc };
    vary(chance, &mut ip);
    ip
}

/// A UDP datagram with a packet for us in it, and its payload alone.
fn tunnel_payload(chance: &mut Chance, world: &World) -> (Vec<u8>, Vec<u8>) {
    let (datagram, payload, _) = tunnel(chance, world);
    (datagram, payload)
}

fn tunnel(chance: &mut Chance, world: &World) -> (Vec<u8>, Vec<u8>, Hop) {
    let (subnet, hop) = a_route(chance, world);
    let (source, destination) = (address_near(chance, world, subnet), address_near(chance, world, world.node.subnet));
    let inner = inner(chance, world, source, destination, 0).bytes();
    let is_vxlan = (world.facts.encapsulation == Encapsulation::Vxlan) != chance.one_in(40);
    let payload = if is_vxlan { vxlan_payload(chance, &world.node, &inner) } else { inner };
    let port = world.node.vtep.port;
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
    (datagram, payload, hop)
}

fn vxlan_payload(chance: &mut Chance, node: &Node, inner: &[u8]) -> Vec<u8> {
    let ether_type = if chance.one_in(30) { chance.pick(&OTHER_ETHER_TYPES) } else { ETHER_IPV4 };
    let mac = node.vtep.mac;
    let mut flipped = mac;
    flipped[chance.below(6)] ^= 1 << chance.below(8);
    let mac = chance.mostly(mac, 30, &[[0xff; 6], [0; 6], [1, 0, 0x5e, 0, 0, 1], flipped]);
    let vni = node.vtep.vni;
    let bit = 1 << chance.below(24);
    let vni = chance.mostly(vni, 30, &[0, vni ^ bit, vni.swap_bytes() >> 8, (vni + 1) & 0xff_ffff]);
    let flags = chance.mostly(0x08, 30, &[0x00, 0x88, 0x0c, 0x28, 0x48, 0x80, 0xf7, 0xff]);
    vxlan(flags, vni, &ethernet(mac, chance.array(), ether_type, inner))
}

fn a_route(chance: &mut Chance, world: &World) -> (Ipv4Network, Hop) {
    let routes = &world.facts.routes;
    let (subnet, hop) = routes.iter().nth(chance.below(routes.len())).expect("a world has routes");
    (*subnet, *hop)
}

/// An address in `subnet`, its first and last often, and now and then one that is not.
fn address_near(chance: &mut Chance, world: &World, subnet: Ipv4Network) -> Ipv4Addr {
    let hosts = subnet.size() as usize;
    let host = match chance.below(8) {
        0 => 0,
        1 => hosts - 1,
        _ => chance.below(hosts),
    };
    let address = subnet.nth(host as u32).expect("the host is in the subnet");
    if chance.one_in(16) { near_miss(chance, world, address) } else { address }
}

/// Another address: a neighbour by one bit or by one, somebody else's, or nobody's.
fn near_miss(chance: &mut Chance, world: &World, address: Ipv4Addr) -> Ipv4Addr {
    let (other, hop) = a_route(chance, world);
    let bits = u32::from(address);
    match chance.below(9) {
        0 | 1 => (bits ^ (1 << chance.below(32))).into(),
        2 => u32::from(world.node.network.network()).wrapping_sub(1).into(),
        3 => u32::from(world.node.network.broadcast()).wrapping_add(1).into(),
        4 => (bits & !0xff00 | u32::from(chance.byte()) << 8).into(),
        5 => other.nth(1).expect("a subnet has two addresses"),
        6 => chance.pick(&[world.node.vtep.address, hop.address, Ipv4Addr::new(192, 168, 50, 77)]),
        7 => world.node.subnet.nth(2).expect("a subnet has three addresses"),
        _ => chance.pick(&ELSEWHERE).into(),
    }
}
