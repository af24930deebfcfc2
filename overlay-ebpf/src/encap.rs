//! Container packet to outer packet.

use network_types::ip::{Ipv4Hdr, Ipv6Hdr};
use overlay_common::{
    Address as _, Encapsulation, FlowLabel, IpHeader as _, LocalNode, Reason, Route, Step, Traffic, UdpHeaders,
    VxlanHeaders,
};

use crate::{
    Verdict, fast,
    inner::Inner,
    maps, neighbour,
    outer::Outer,
    packet::{Ethernet, L2, OuterHeaders, Packet as _, TcPacket, opaque},
    trace,
};

/// Encapsulates a packet that the kernel has routed into the overlay device.
///
/// Bridge, netfilter and routing have seen it: TTL is decremented, and what does not fit the overlay MTU has
/// been fragmented or answered with ICMP.
#[inline(always)]
pub(crate) fn encap(packet: &mut TcPacket) -> Result<Verdict, Reason> {
    let Some(node) = maps::local_node() else { return Ok(Verdict::Pass) };
    match packet.header::<Ethernet>(0)?.ether_type {
        Ipv4Hdr::ETHER_TYPE if node.range::<[u8; 4]>().is_on() => encap_inner::<Ipv4Hdr>(packet, node),
        Ipv6Hdr::ETHER_TYPE if maps::has_ipv6(node) => encap_inner::<Ipv6Hdr>(packet, node),
        _ => Err(Reason::NotIpv4),
    }
}

#[inline(always)]
fn encap_inner<I: Inner>(packet: &mut TcPacket, node: &LocalNode) -> Result<Verdict, Reason> {
    match &mut departure::<I>(packet, node) {
        Ok(departure) => {
            if departure.route.wants_checksum() {
                return leave_to_device::<I>(packet, departure);
            }
            departure.flow = fast::note_leaving::<I>(packet)?;
            send::<I, ()>(packet, node, departure)
        }
        Err(reason) => Err(*reason),
    }
}

/// Where the packet goes; which flow it belongs to is not noted yet. A function of its own for each family, with a stack of its
/// own, and none that calls others.
#[inline(never)]
fn departure<I: Inner>(packet: &TcPacket, node: &LocalNode) -> Result<Departure<I::Address>, Reason> {
    let packet = opaque(packet);
    let inner = packet.header::<I>(L2)?;
    let length = inner_length(inner, packet.len() - L2, packet.is_gso())?;
    let subnet = destination_subnet(inner, node)?;
    let route = maps::route(&subnet).ok_or(Reason::NoRoute)?;
    Ok(Departure { subnet, route, length, tos: inner.tos(), flow: 0 })
}

/// A container's packet that is to leave for another node.
pub(crate) struct Departure<A> {
    /// The subnet that it is for, and the way there.
    pub(crate) subnet: A,
    pub(crate) route: Route,
    /// Length in bytes of the inner packet.
    pub(crate) length: usize,
    /// Its TOS byte.
    pub(crate) tos: u8,
    /// [`FlowKey::hash`](overlay_common::FlowKey::hash) of its flow; 0 as long as that is not noted.
    pub(crate) flow: u32,
}

/// Lets the kernel's VXLAN device send a packet to a node that insists on a UDP checksum over IPv6. That takes every byte of the
/// packet, or of each segment of a super-packet. The device finds the node by the MAC address of its VTEP, as the agent has
/// told it.
#[inline(always)]
fn leave_to_device<I: Inner>(packet: &mut TcPacket, departure: &Departure<I::Address>) -> Result<Verdict, Reason> {
    trace::route(&departure.route);
    packet.store(0, &departure.route.vtep_mac())?;
    let (encap_packets, encap_bytes) = (packet.wire_packets(), departure.length as u64);
    maps::count(departure.subnet, Traffic { encap_packets, encap_bytes, ..Traffic::default() });
    Ok(Verdict::Pass)
}

/// What stands in front of an inner packet on the wire; and what the inner packet begins with from now on, if that changes.
/// Stored in one go.
#[repr(C)]
#[derive(Clone, Copy)]
struct Front<H, B> {
    ethernet: Ethernet,
    outer: H,
    inner: B,
}

/// What overwrites the beginning of an inner packet.
pub(crate) trait Beginning: Copy + 'static {
    /// Whether such packets have skipped netfilter.
    const SKIPS_NETFILTER: bool;

    /// What `packet` begins with.
    fn of(packet: &TcPacket) -> Result<Self, Reason>;

    /// Makes of it what the packet begins with on the wire.
    fn change(&mut self);
}

/// The inner packet stays as it is.
impl Beginning for () {
    const SKIPS_NETFILTER: bool = false;

    #[inline(always)]
    fn of(_: &TcPacket) -> Result<Self, Reason> {
        Ok(())
    }

    #[inline(always)]
    fn change(&mut self) {}
}

/// Puts the outer headers in front of an inner packet of family `I` and sends it to the node that owns its destination.
#[inline(always)]
pub(crate) fn send<I: Inner, B: Beginning>(
    packet: &mut TcPacket,
    node: &LocalNode,
    departure: &Departure<I::Address>,
) -> Result<Verdict, Reason> {
    trace::route(&departure.route);
    let next_hop = departure.route.next_hop();
    match maps::encapsulation() {
        Encapsulation::Vxlan if !next_hop.is_ipv4() => send_over::<I, Ipv6Hdr, B>(packet, node, departure),
        _ => send_over::<I, Ipv4Hdr, B>(packet, node, departure),
    }
}

/// The same over an outer family. A function of its own for each pair of families, with a stack of its own.
#[inline(never)]
fn send_over<I: Inner, O: Outer, B: Beginning>(
    packet: &mut TcPacket,
    node: &LocalNode,
    departure: &Departure<I::Address>,
) -> Result<Verdict, Reason> {
    let Departure { subnet, route, length, tos, flow } = departure;
    let (packets, inner_len) = (packet.wire_packets(), *length as u16);
    let way = neighbour::way::<O>(packet, node, route.next_hop());
    // Not the same for all flows: two that share the counter of one CPU are two senders.
    let label = FlowLabel { hash: *flow, tos: *tos, id: way.id.wrapping_add(*flow as u16) };
    let ethernet = match way.ethernet {
        Some(ethernet) => ethernet,
        // The kernel writes the addresses.
        None => Ethernet { ether_type: O::ETHER_TYPE, ..*packet.header(0)? },
    };
    let vtep = node.vtep::<O::Address>();
    match maps::encapsulation() {
        // Others do not come here, and are not compiled.
        Encapsulation::Udp if I::Address::IS_IPV4 && O::Address::IS_IPV4 => {
            wrap::<_, B>(packet, ethernet, UdpHeaders::<O>::new(&vtep, route, inner_len, label))?;
        }
        _ => wrap::<_, B>(packet, ethernet, VxlanHeaders::<O>::new::<I>(&vtep, route, inner_len, label))?,
    }
    let encap_fast_packets = if B::SKIPS_NETFILTER { packets } else { 0 };
    let encap_bytes = *length as u64;
    maps::count(*subnet, Traffic { encap_packets: packets, encap_bytes, encap_fast_packets, ..Traffic::default() });
    trace::tell(Step::Encapsulated, u32::from(label.source_port()), [0; 6]);
    Ok(neighbour::send(packet, node, &way))
}

/// Puts `ethernet` and `outer` in front of an inner packet.
#[inline(always)]
fn wrap<H: OuterHeaders + 'static, B: Beginning>(
    packet: &mut TcPacket,
    ethernet: Ethernet,
    outer: H,
) -> Result<(), Reason> {
    let front = maps::scratch().ok_or(Reason::EncapRefused)?;
    *front = Front { ethernet, outer, inner: B::of(packet)? };
    front.inner.change();
    packet.grow::<H>()?;
    packet.store(0, front)
}

/// The length in bytes of the inner packet, from its header and the `available` bytes.
///
/// The header of a super-packet may say anything (0 above 64 KiB): segmentation rewrites it, and the outer one.
/// Bytes behind the inner packet are no part of it; they stay behind the outer packet as well, where receivers
/// ignore them.
#[inline(always)]
pub(crate) fn inner_length<I: Inner>(inner: &I, available: usize, gso: bool) -> Result<usize, Reason> {
    if !inner.is_valid() {
        return Err(Reason::BadHeader);
    }
    if gso {
        return Ok(available);
    }
    let length = inner.packet_len();
    if length < inner.header_len() || length > available {
        return Err(Reason::BadLength);
    }
    Ok(length)
}

/// The remote subnet that the packet is for, if it may go there.
#[inline(always)]
fn destination_subnet<I: Inner>(inner: &I, node: &LocalNode) -> Result<I::Address, Reason> {
    let (range, destination) = (node.range::<I::Address>(), inner.destination());
    if !range.in_network(destination) {
        return Err(if inner.is_for_one_host() { Reason::OutsideNetwork } else { Reason::NotUnicast });
    }
    if range.in_subnet(destination) {
        return Err(Reason::OwnSubnet);
    }
    if !range.in_subnet(inner.source()) {
        return Err(Reason::SourceNotOurs);
    }
    Ok(range.subnet_of(destination))
}
