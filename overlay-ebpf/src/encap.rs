//! Container packet to outer packet.

use network_types::ip::Ipv4Hdr;
use overlay_common::{Encapsulation, FlowLabel, LocalNode, Reason, Route, Step, Traffic, UdpHeaders, VxlanHeaders};

use crate::{
    Verdict, fast, maps, neighbour,
    packet::{L2, Packet as _, TcPacket},
    trace,
};

/// Ethernet header in wire order; network-types' own is aligned to two bytes, packet data is not.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Ethernet {
    pub(crate) destination: [u8; 6],
    pub(crate) source: [u8; 6],
    pub(crate) ether_type: [u8; 2],
}

/// EtherType of IPv4 on the wire.
pub(crate) const ETHER_IPV4: [u8; 2] = [0x08, 0x00];

/// Encapsulates a packet that the kernel has routed into the overlay device.
///
/// Bridge, netfilter and routing have seen it: TTL is decremented, and what does not fit the overlay MTU has
/// been fragmented or answered with ICMP.
#[inline(always)]
pub(crate) fn encap(packet: &mut TcPacket) -> Result<Verdict, Reason> {
    let Some(node) = maps::local_node() else { return Ok(Verdict::Pass) };
    if packet.header::<Ethernet>(0)?.ether_type != ETHER_IPV4 {
        return Err(Reason::NotIpv4);
    }
    let inner = packet.header::<Ipv4Hdr>(L2)?;
    let length = inner_length(inner, packet.len() - L2, packet.is_gso())?;
    let subnet = destination_subnet(inner, node)?;
    let route = maps::route(subnet).ok_or(Reason::NoRoute)?;

    let tos = inner.tos;
    let flow = fast::note_leaving(packet, inner);
    let departure = Departure { subnet, route, length, tos, flow, fast: false };
    send(packet, node, &departure, ())
}

/// A container's packet that is to leave for another node.
pub(crate) struct Departure {
    /// The subnet that it is for, and the way there.
    pub(crate) subnet: [u8; 4],
    pub(crate) route: Route,
    /// Length in bytes of the inner packet.
    pub(crate) length: usize,
    /// Its TOS byte.
    pub(crate) tos: u8,
    /// [`FlowKey::hash`](overlay_common::FlowKey::hash) of its flow.
    pub(crate) flow: u32,
    /// Whether it has skipped netfilter.
    pub(crate) fast: bool,
}

/// What stands in front of an inner packet on the wire; and what the inner packet begins with from now on, if that changes.
/// Stored in one go.
#[repr(C)]
#[derive(Clone, Copy)]
struct Front<H, I> {
    ethernet: Ethernet,
    outer: H,
    inner: I,
}

/// Puts the outer headers in front of an inner packet and sends it to the node that owns its destination. `inner` overwrites
/// the beginning of the inner packet.
#[inline(always)]
pub(crate) fn send<I: Copy>(
    packet: &mut TcPacket,
    node: &LocalNode,
    departure: &Departure,
    inner: I,
) -> Result<Verdict, Reason> {
    let Departure { subnet, route, length, tos, flow, fast } = departure;
    trace::tell(Step::Route, u32::from_ne_bytes(route.next_hop().octets()), route.vtep_mac());
    let (packets, inner_len) = (packet.wire_packets(), *length as u16);
    let (vtep, way) = (node.vtep(), neighbour::way(packet, node, route.next_hop(), packets));
    // Not the same for all flows: two that share the counter of one CPU are two senders.
    let label = FlowLabel { hash: *flow, tos: *tos, id: way.id.wrapping_add(*flow as u16) };
    let ethernet = match way.ethernet {
        Some(ethernet) => ethernet,
        None => *packet.header::<Ethernet>(0)?,
    };
    match maps::encapsulation() {
        Encapsulation::Udp => {
            packet.grow::<UdpHeaders>()?;
            packet.store(0, &Front { ethernet, outer: UdpHeaders::new(&vtep, route, inner_len, label), inner })?;
        }
        Encapsulation::Vxlan => {
            packet.grow::<VxlanHeaders>()?;
            packet.store(0, &Front { ethernet, outer: VxlanHeaders::new(&vtep, route, inner_len, label), inner })?;
        }
    }
    let encap_fast_packets = if *fast { packets } else { 0 };
    let encap_bytes = *length as u64;
    maps::count(*subnet, Traffic { encap_packets: packets, encap_bytes, encap_fast_packets, ..Traffic::default() });
    trace::tell(Step::Encapsulated, u32::from(label.source_port()), [0; 6]);
    Ok(neighbour::send(packet, node, &way))
}

/// The length in bytes of the inner packet, from its header and the `available` bytes.
///
/// The header of a super-packet may say anything (0 above 64 KiB): segmentation rewrites it, and the outer one.
/// Bytes behind the inner packet are no part of it; they stay behind the outer packet as well, where receivers
/// ignore them.
#[inline(always)]
pub(crate) fn inner_length(inner: &Ipv4Hdr, available: usize, gso: bool) -> Result<usize, Reason> {
    check_header(inner)?;
    if gso {
        return Ok(available);
    }
    let length = inner.tot_len() as usize;
    if length < inner.ihl() as usize || length > available {
        return Err(Reason::BadLength);
    }
    Ok(length)
}

/// Version 4, and as long as an IPv4 header must be.
#[inline(always)]
pub(crate) fn check_header(ip: &Ipv4Hdr) -> Result<(), Reason> {
    if ip.version() != 4 || (ip.ihl() as usize) < Ipv4Hdr::LEN { Err(Reason::BadHeader) } else { Ok(()) }
}

/// The remote subnet that the packet is for, if it may go there.
#[inline(always)]
fn destination_subnet(inner: &Ipv4Hdr, node: &LocalNode) -> Result<[u8; 4], Reason> {
    let (source, destination) = (inner.src_addr(), inner.dst_addr());
    if !node.in_network(destination) {
        return Err(if is_unicast(inner.dst_addr) { Reason::OutsideNetwork } else { Reason::NotUnicast });
    }
    if node.in_subnet(destination) {
        return Err(Reason::OwnSubnet);
    }
    if !node.in_subnet(source) {
        return Err(Reason::SourceNotOurs);
    }
    Ok(node.subnet_of(destination))
}

/// Whether one host can have the address: not "this network", loopback, link-local, multicast or reserved.
#[inline(always)]
fn is_unicast(address: [u8; 4]) -> bool {
    !matches!(address, [0 | 127 | 224..=255, ..] | [169, 254, ..])
}
