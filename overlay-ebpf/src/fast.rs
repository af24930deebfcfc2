//! The fast path: packets of approved flows skip bridge, netfilter and routing on this node.
//!
//! It takes only what it fully understands. `None` means: let the kernel do it; [`Slow`] says why. What bridge, netfilter and routing would
//! have done to an approved packet is done here: TTL, MTU, and the way to the container's interface.

use network_types::ip::Ipv4Hdr;
use overlay_common::{Endpoint, FlowKey, LocalNode, Reason, Slow, Step, with_tos_and_ttl};

use crate::{
    Verdict,
    encap::{self, Departure, ETHER_IPV4, Ethernet},
    flow::{self, Candidate, Direction},
    guard::Source,
    maps,
    packet::{L2, Packet as _, TcPacket},
    trace,
};

/// A container's packet that leaves for another node at once, if its source is known to be the container's own.
#[inline(always)]
pub(crate) fn leave(packet: &mut TcPacket, node: &LocalNode, source: Source) -> Result<Option<Verdict>, Reason> {
    match departure(packet, node, source)? {
        Ok((departure, inner)) => encap::send(packet, node, &departure, inner).map(Some),
        Err(slow) => {
            trace::slow(slow);
            Ok(None)
        }
    }
}

/// What leaves, and the header that it has then.
#[inline(always)]
fn departure(
    packet: &TcPacket,
    node: &LocalNode,
    source: Source,
) -> Result<Result<(Departure, Ipv4Hdr), Slow>, Reason> {
    if !flow::enabled() {
        return Ok(Err(Slow::Off));
    }
    if packet.header::<Ethernet>(0)?.ether_type != ETHER_IPV4 {
        return Ok(Err(Slow::Unfit));
    }
    let ip = *packet.header::<Ipv4Hdr>(L2)?;
    let destination = ip.dst_addr();
    if !node.in_network(destination) || node.in_subnet(destination) || !node.in_subnet(ip.src_addr()) {
        return Ok(Err(Slow::NotRemote));
    }
    let Some(candidate) = flow::candidate(packet, L2, Direction::Outgoing) else { return Ok(Err(Slow::Unfit)) };
    let approved = flow::may_skip_netfilter(&candidate, Direction::Outgoing);
    let may = approved.and_then(|()| may_forward(packet, &ip, packet.len() - L2, &candidate, node));
    if let Err(slow) = may {
        return Ok(Err(slow));
    }
    if source != Source::Own {
        return Ok(Err(Slow::UnknownSource));
    }
    let length = encap::inner_length(&ip, packet.len() - L2, packet.is_gso())?;
    let subnet = node.subnet_of(destination);
    let Some(route) = maps::route(subnet) else { return Ok(Err(Slow::NoRoute)) };
    let departure = Departure { subnet, route, length, tos: ip.tos, flow: candidate.hash(), fast: true };
    Ok(Ok((departure, forwarded(ip, ip.tos))))
}

/// An accepted tunnel packet whose inner packet goes straight into its container.
///
/// `outer_len` bytes stand between the Ethernet header and the inner packet of `inner_len` bytes, none behind `xdp_decap`;
/// `tos` is what the inner TOS byte becomes.
#[inline(always)]
pub(crate) fn enter(
    packet: &mut TcPacket,
    node: &LocalNode,
    outer_len: usize,
    inner_len: usize,
    tos: u8,
) -> Result<Option<Verdict>, Reason> {
    let (endpoint, ip) = match arrival(packet, node, outer_len, inner_len)? {
        Ok(arrival) => arrival,
        Err(slow) => {
            trace::slow(slow);
            return Ok(None);
        }
    };
    if outer_len != 0 {
        packet.strip(outer_len)?;
    }
    let frame = Frame {
        ethernet: Ethernet { destination: endpoint.mac(), source: node.vtep().mac, ether_type: ETHER_IPV4 },
        ip: forwarded(ip, tos),
    };
    packet.store(0, &frame)?;
    Ok(Some(packet.redirect_into_peer(endpoint.ifindex())))
}

/// The container that the packet is for, and the inner header as it has come.
#[inline(always)]
fn arrival(
    packet: &TcPacket,
    node: &LocalNode,
    outer_len: usize,
    inner_len: usize,
) -> Result<Result<(Endpoint, Ipv4Hdr), Slow>, Reason> {
    if !flow::enabled() {
        return Ok(Err(Slow::Off));
    }
    let Some(candidate) = flow::candidate(packet, L2 + outer_len, Direction::Incoming) else {
        return Ok(Err(Slow::Unfit));
    };
    if let Err(slow) = flow::may_skip_netfilter(&candidate, Direction::Incoming) {
        return Ok(Err(slow));
    }
    let ip = *packet.header::<Ipv4Hdr>(L2 + outer_len)?;
    let endpoint = match maps::endpoint(ip.dst_addr) {
        Some(endpoint) if endpoint.ifindex() != 0 => endpoint,
        _ => return Ok(Err(Slow::NoEndpoint)),
    };
    Ok(may_forward(packet, &ip, inner_len, &candidate, node).map(|()| (endpoint, ip)))
}

/// Behind netfilter, on the way out: notes what it has let through. Returns a hash over the flow, as [`leave`] uses it:
/// its packets keep one outer source port on either path.
#[inline(always)]
pub(crate) fn note_leaving(packet: &TcPacket, ip: &Ipv4Hdr) -> u32 {
    let Some(candidate) = flow::candidate(packet, L2, Direction::Outgoing) else {
        return FlowKey::of_addresses(ip.src_addr, ip.dst_addr).hash();
    };
    if flow::enabled() {
        flow::note_behind_netfilter(&candidate, Direction::Outgoing);
        trace::step(Step::BehindNetfilter);
    }
    candidate.hash()
}

/// Behind netfilter, at the container's door: notes what it has let through.
#[inline(always)]
pub(crate) fn note_entering(packet: &TcPacket) {
    let is_ipv4 = packet.header::<Ethernet>(0).is_ok_and(|ethernet| ethernet.ether_type == ETHER_IPV4);
    if flow::enabled()
        && is_ipv4
        && let Some(candidate) = flow::candidate(packet, L2, Direction::Incoming)
    {
        flow::note_behind_netfilter(&candidate, Direction::Incoming);
        trace::step(Step::BehindNetfilter);
    }
}

/// Ethernet and IPv4 header of a delivered packet, stored in one go.
#[repr(C)]
#[derive(Clone, Copy)]
struct Frame {
    ethernet: Ethernet,
    ip: Ipv4Hdr,
}

/// Whether a router would forward the packet of `length` bytes, or each segment of a super-packet: by TTL and overlay MTU.
#[inline(always)]
fn may_forward(
    packet: &TcPacket,
    ip: &Ipv4Hdr,
    length: usize,
    candidate: &Candidate,
    node: &LocalNode,
) -> Result<(), Slow> {
    let largest = if packet.is_gso() { packet.gso_size() + candidate.headers } else { length as u32 };
    if ip.ttl <= 1 {
        return Err(Slow::Ttl);
    }
    if largest > u32::from(node.mtu()) { Err(Slow::TooBig) } else { Ok(()) }
}

/// The header of a packet that this node has forwarded: with its TTL lower by one, and the given TOS byte.
#[inline(always)]
fn forwarded(ip: Ipv4Hdr, tos: u8) -> Ipv4Hdr {
    with_tos_and_ttl(ip, tos, ip.ttl - 1)
}
