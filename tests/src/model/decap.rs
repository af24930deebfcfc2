//! What `from_underlay` and `xdp_decap` do.

use std::net::IpAddr;

use overlay_common::{Encapsulation, Reason, Traffic, XDP_DECAPSULATED};

use super::{
    End, Expected, Facts, Family, Fate, Node, Super,
    headers::{Ethernet, UDP, Udp, Vxlan},
    ip::{Datagram, Ip},
    wire_packets,
};
use crate::packets;

/// The one set of VXLAN flags that we understand: a network number is there (RFC 7348, section 5).
const VNI_PRESENT: u8 = 0x08;

/// A tunnel packet that may come in.
struct Accepted<'a> {
    /// MAC address of the overlay device that it comes in on.
    delivered_to: [u8; 6],
    outer_tos: u8,
    /// Only the beginning of it is here.
    is_fragment: bool,
    /// The inner header, and all bytes from it to the end of the frame.
    inner: Ip<'a>,
    /// Length in bytes of the inner packet.
    length: usize,
    /// Network address of the subnet that it comes from.
    subnet: IpAddr,
}

/// Decapsulates `udp`. VXLAN is left to the kernel's own device once it has been found good, and so is the first of
/// several fragments.
pub(super) fn from_underlay(facts: &Facts, packet: &[u8], super_packet: Option<Super>) -> Result<Expected, Reason> {
    let Some(accepted) = accept(facts, packet, super_packet)? else { return Ok(Expected::UNTOUCHED) };
    let bytes = delivered(&accepted)?;
    if accepted.is_fragment {
        return Ok(Expected::UNTOUCHED);
    }
    let fate = match facts.encapsulation {
        Encapsulation::Vxlan => Fate::Untouched,
        Encapsulation::Udp if super_packet.is_some_and(|of| !of.resizable) => return Err(Reason::DecapRefused),
        Encapsulation::Udp => Fate::Becomes(bytes),
    };
    Ok(Expected { fate, counted: Some(count(&accepted, wire_packets(super_packet))) })
}

/// Decapsulates both kinds, and marks the packet in its metadata as decapsulated. The kernel shows metadata in
/// front of the packet. A fragment is left to `from_underlay`.
pub(super) fn xdp_decap(facts: &Facts, packet: &[u8]) -> Result<Expected, Reason> {
    let Some(accepted) = accept(facts, packet, None)? else { return Ok(Expected::UNTOUCHED) };
    let bytes = delivered(&accepted)?;
    if accepted.is_fragment {
        return Ok(Expected::UNTOUCHED);
    }
    let marked = [XDP_DECAPSULATED.to_ne_bytes().to_vec(), bytes].concat();
    Ok(Expected { fate: Fate::Becomes(marked), counted: Some(count(&accepted, 1)) })
}

fn count(accepted: &Accepted<'_>, packets: u64) -> (IpAddr, Traffic) {
    let traffic = Traffic { decap_packets: packets, decap_bytes: accepted.length as u64, ..Traffic::default() };
    (accepted.subnet, traffic)
}

/// The packet as it enters the overlay device that its family usually takes: to that one's MAC address, from nobody. What
/// stands behind the inner packet in the frame stays there.
fn delivered(accepted: &Accepted<'_>) -> Result<Vec<u8>, Reason> {
    let (inside, outside) = (accepted.inner.tos(), accepted.outer_tos);
    let ecn = combined_ecn(inside & 0b11, outside & 0b11).ok_or(Reason::CeOnNotEct)?;
    let inner = accepted.inner.with_tos(inside & !0b11 | ecn);
    Ok(packets::ethernet(accepted.delivered_to, [0; 6], accepted.inner.family().ether_type(), &inner))
}

/// RFC 6040, figure 4: the ECN field after decap, `None` where the packet must be dropped.
fn combined_ecn(inner: u8, outer: u8) -> Option<u8> {
    const NOT_ECT: u8 = 0b00;
    const ECT_1: u8 = 0b01;
    const ECT_0: u8 = 0b10;
    const CE: u8 = 0b11;
    // Columns: the outer field, in the order of its bits.
    let row = match inner {
        NOT_ECT => [Some(NOT_ECT), Some(NOT_ECT), Some(NOT_ECT), None],
        ECT_1 => [Some(ECT_1), Some(ECT_1), Some(ECT_1), Some(CE)],
        ECT_0 => [Some(ECT_0), Some(ECT_1), Some(ECT_0), Some(CE)],
        _ => [Some(CE); 4],
    };
    row[usize::from(outer)]
}

/// The tunnel packet in a frame, or the beginning of one; `None`: there is none for us.
fn accept<'a>(facts: &'a Facts, packet: &'a [u8], super_packet: Option<Super>) -> Result<Option<Accepted<'a>>, Reason> {
    let Some(node) = &facts.node else { return Ok(None) };
    let Some(frame) = Ethernet::parse(packet) else { return Ok(None) };
    let Some(family) = Family::of_ether_type(frame.ether_type) else { return Ok(None) };
    let Some(outer) = Ip::parse(family, frame.payload) else { return Ok(None) };
    if node.ranges.of(family).is_some_and(|range| range.network.contains(outer.source())) {
        let is_direct = facts.route(outer.source()).is_some_and(|(_, hop)| hop.direct);
        return if is_direct { Ok(None) } else { Err(Reason::NotEncapsulated) };
    }
    if !outer.is_well_formed() {
        return Ok(None);
    }
    let Some(datagram) = outer.datagram() else { return Ok(None) };
    let Some(end) = node.ends.of(family).filter(|end| end.address == outer.destination()) else { return Ok(None) };
    let udp = outer.bytes().get(datagram.at..).and_then(Udp::parse).ok_or(Reason::Truncated)?;
    if udp.destination_port != node.port {
        return Ok(None);
    }
    let datagram_end = end_of_datagram(outer, datagram, &udp, super_packet)?;
    let payload = datagram.at + UDP;
    let (inner_family, offset) = inner_offset(facts, node, end, &outer.bytes()[payload..datagram_end])?;
    let inner_at = payload + offset;
    let available = datagram_end.checked_sub(inner_at).filter(|available| *available >= inner_family.header_len());
    let available = available.ok_or(Reason::Truncated)?;
    let inner = Ip::parse(inner_family, &outer.bytes()[inner_at..]).ok_or(Reason::Truncated)?;
    if !inner.is_well_formed() {
        return Err(Reason::BadHeader);
    }
    let length = inner_length(inner, available, datagram.is_fragment, super_packet)?;
    let subnet = check_addresses(facts, node, outer.source(), inner)?;
    let delivered_to = node.usual_end(inner_family).expect("a node has a tunnel end").mac;
    Ok(Some(Accepted {
        delivered_to,
        outer_tos: outer.tos(),
        is_fragment: datagram.is_fragment,
        inner,
        length,
        subnet,
    }))
}

/// Where the datagram, or what is here of it, ends: counted in bytes from the outer IP header.
///
/// The kernel ignores what stands behind the end that the IP header names, and so must we: the first of several
/// fragments could otherwise show us one inner header there and bring another in the second. Lengths in a
/// super-packet are those of its segments.
fn end_of_datagram(outer: Ip<'_>, datagram: Datagram, udp: &Udp, super_packet: Option<Super>) -> Result<usize, Reason> {
    let available = outer.bytes().len();
    if super_packet.is_some() {
        return Ok(available);
    }
    let end = outer.total_len();
    let fits = (datagram.at + UDP..=available).contains(&end);
    // The UDP length of a fragment is that of the whole datagram.
    let agrees = datagram.is_fragment || udp.length + datagram.at == end;
    if fits && agrees { Ok(end) } else { Err(Reason::BadLength) }
}

/// The family of the inner packet, and how many bytes of the UDP payload stand in front of it, if they are what we
/// expect.
fn inner_offset(facts: &Facts, node: &Node, end: &End, payload: &[u8]) -> Result<(Family, usize), Reason> {
    if facts.encapsulation == Encapsulation::Udp {
        return Ok((Family::V4, 0));
    }
    let vxlan = Vxlan::parse(payload).ok_or(Reason::Truncated)?;
    if vxlan.flags != VNI_PRESENT {
        return Err(Reason::BadVxlanFlags);
    }
    if vxlan.vni != node.vni {
        return Err(Reason::WrongVni);
    }
    let frame = Ethernet::parse(vxlan.frame).ok_or(Reason::Truncated)?;
    let family = facts.inner_family(frame.ether_type).ok_or(Reason::InnerNotIpv4)?;
    if frame.destination != end.mac {
        return Err(Reason::WrongVtepMac);
    }
    Ok((family, payload.len() - frame.payload.len()))
}

/// The length in bytes of the inner packet, of which `available` bytes are here.
///
/// A super-packet must be one packet: where the kernel has merged whole datagrams, the first inner length is
/// shorter than the rest. Above 64 KiB the field is 0.
fn inner_length(inner: Ip<'_>, available: usize, fragment: bool, super_packet: Option<Super>) -> Result<usize, Reason> {
    let length = inner.total_len();
    let (fits, length) = match super_packet {
        Some(_) => (length == available || inner.is_of_no_length(), available),
        None => (length >= inner.header_len() && (fragment || length <= available), length),
    };
    if fits { Ok(length) } else { Err(Reason::BadLength) }
}

/// The inner source must belong to the node that has sent the packet, the inner destination to us. Returns the
/// network address of the source's subnet.
fn check_addresses(facts: &Facts, node: &Node, sender: IpAddr, inner: Ip<'_>) -> Result<IpAddr, Reason> {
    let subnet = match facts.route(inner.source()) {
        Some((subnet, hop)) if hop.address == sender => subnet,
        _ if facts.is_node(sender) => return Err(Reason::SourceNotTheirs),
        _ => return Err(Reason::UnknownNode),
    };
    let range = node.ranges.of(inner.family());
    if !range.is_some_and(|range| range.subnet.contains(inner.destination())) {
        return Err(Reason::DestinationNotOurs);
    }
    Ok(subnet.network())
}
