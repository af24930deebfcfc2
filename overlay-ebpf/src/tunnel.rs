//! Which packets of the underlay are the overlay's, and where their inner packets begin.

use network_types::{
    ip::{Ipv4Hdr, Ipv6Hdr},
    udp::UdpHdr,
    vxlan::VxlanHdr,
};
use overlay_common::{
    Address as _, Encapsulation, IpHeader as _, LocalNode, Reason, UnderlayAddress, VXLAN_INNER_OFFSET,
};

use crate::{
    maps,
    outer::{Datagram, Outer},
    packet::{Ethernet, L2, Packet, opaque},
};

/// The VXLAN flags byte: "VNI present" and nothing that we would have to understand (RFC 7348, section 5).
const VXLAN_FLAGS: u8 = 0x08;

/// A tunnel packet for this node, from whomever.
///
/// It begins with what leaves values unused: a `Result` of it keeps its tag there, and BTF knows no tag of an enum elsewhere
/// than at its beginning. The kernel would refuse the object's BTF.
#[repr(C)]
pub(crate) struct Tunnel {
    /// Whether the inner packet is IPv6; otherwise it is IPv4.
    pub(crate) inner_ipv6: bool,
    /// It is the first of several fragments.
    pub(crate) fragment: bool,
    /// The outer source.
    pub(crate) sender: UnderlayAddress,
    /// Bytes between the Ethernet header and the inner IP packet. So small a number that the verifier knows it for an offset
    /// wherever it comes from.
    pub(crate) outer_len: u8,
    /// Where the outer packet ends, in bytes from the start of the Ethernet header.
    pub(crate) end: usize,
    /// The outer TOS byte.
    pub(crate) tos: u8,
}

/// The tunnel packet for us that the packet is; `None` when it is not one.
#[inline(always)]
pub(crate) fn find<P: Packet>(packet: &P, node: &LocalNode) -> Result<Option<Tunnel>, Reason> {
    if node.port() == 0 {
        // The agent has not told us who we are.
        return Ok(None);
    }
    let Ok(ethernet) = packet.header::<Ethernet>(0) else { return Ok(None) };
    match (ethernet.ether_type, maps::encapsulation()) {
        (Ipv4Hdr::ETHER_TYPE, _) => over::<Ipv4Hdr, P>(packet, node),
        (Ipv6Hdr::ETHER_TYPE, Encapsulation::Vxlan) => over::<Ipv6Hdr, P>(packet, node),
        _ => Ok(None),
    }
}

#[inline(always)]
fn over<O: Outer, P: Packet>(packet: &P, node: &LocalNode) -> Result<Option<Tunnel>, Reason> {
    if O::Address::IS_IPV4 { over_here::<O, P>(packet, node) } else { over_aside::<O, P>(packet, node) }
}

/// With a stack of its own: addresses of IPv6 are long. IPv4 does without the call.
#[inline(never)]
fn over_aside<O: Outer, P: Packet>(packet: &P, node: &LocalNode) -> Result<Option<Tunnel>, Reason> {
    over_here::<O, P>(packet, node)
}

#[inline(always)]
fn over_here<O: Outer, P: Packet>(packet: &P, node: &LocalNode) -> Result<Option<Tunnel>, Reason> {
    let packet = opaque(packet);
    let Ok(outer) = packet.header::<O>(L2) else { return Ok(None) };
    let source = outer.source();
    if node.range::<O::Address>().in_network(source) {
        return bare::<O>(source, node);
    }
    let Some(datagram) = outer.datagram(packet) else { return Ok(None) };
    if outer.destination() != node.address::<O::Address>() {
        return Ok(None);
    }
    let udp = packet.header::<UdpHdr>(L2 + datagram.offset)?;
    if udp.dst_port() != node.port() {
        return Ok(None);
    }
    let end = if packet.is_gso() { packet.len() } else { L2 + outer_end(outer, udp, datagram, packet.len() - L2)? };
    let payload = datagram.offset + UdpHdr::LEN;
    let (outer_len, inner_ipv6) = match maps::encapsulation() {
        Encapsulation::Udp => (payload, false),
        Encapsulation::Vxlan => (payload + VXLAN_INNER_OFFSET, carries_ipv6::<O, P>(packet, L2 + payload, end, node)?),
    };
    let (sender, outer_len, fragment, tos) = (source.into(), outer_len as u8, datagram.fragment, outer.tos());
    Ok(Some(Tunnel { sender, outer_len, end, fragment, tos, inner_ipv6 }))
}

/// A packet from an overlay address that came without a tunnel: only from nodes on our own link (`DirectRouting`).
#[inline(always)]
fn bare<O: Outer>(source: O::Address, node: &LocalNode) -> Result<Option<Tunnel>, Reason> {
    match maps::route(&node.range().subnet_of(source)) {
        Some(route) if route.is_direct() => Ok(None),
        _ => Err(Reason::NotEncapsulated),
    }
}

/// Where the outer packet ends by its own word, which must agree with the UDP header's and lie within the
/// `available` bytes; in bytes from the outer IP header.
///
/// The kernel cuts off what stands behind it. So must we: otherwise the first of several fragments could show us
/// one inner header there, and bring another in the second fragment.
#[inline(always)]
fn outer_end<O: Outer>(outer: &O, udp: &UdpHdr, datagram: Datagram, available: usize) -> Result<usize, Reason> {
    let (ip_len, headers) = (outer.packet_len(), datagram.offset + UdpHdr::LEN);
    // A fragment's UDP length is that of the whole datagram.
    let agree = datagram.fragment || udp.len() as usize + datagram.offset == ip_len;
    if ip_len < headers || ip_len > available || !agree {
        return Err(Reason::BadLength);
    }
    Ok(ip_len)
}

/// Checks what stands between the UDP header and the inner IP packet of VXLAN, and returns whether that is IPv6. The outer
/// packet ends at `end`.
#[inline(always)]
fn carries_ipv6<O: Outer, P: Packet>(packet: &P, payload: usize, end: usize, node: &LocalNode) -> Result<bool, Reason> {
    let vxlan = packet.header_within::<VxlanHdr>(payload, end)?;
    if vxlan.flags != VXLAN_FLAGS {
        return Err(Reason::BadVxlanFlags);
    }
    if vxlan.vni() != node.vni() {
        return Err(Reason::WrongVni);
    }
    let frame = packet.header_within::<Ethernet>(payload + VxlanHdr::LEN, end)?;
    let is_ipv6 = match frame.ether_type {
        Ipv4Hdr::ETHER_TYPE if node.range::<[u8; 4]>().is_on() => false,
        Ipv6Hdr::ETHER_TYPE if maps::has_ipv6(node) => true,
        _ => return Err(Reason::InnerNotIpv4),
    };
    if frame.destination != node.vtep::<O::Address>().mac {
        return Err(Reason::WrongVtepMac);
    }
    Ok(is_ipv6)
}
