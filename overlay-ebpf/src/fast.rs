//! The fast path: packets of approved flows skip bridge, netfilter and routing on this node.
//!
//! It takes only what it fully understands, and leaves the rest to the kernel; [`Slow`] says why. What bridge, netfilter and
//! routing would have done to an approved packet is done here: TTL, MTU, and the way to the container's interface.

use network_types::ip::{Ipv4Hdr, Ipv6Hdr};
use overlay_common::{Address, Endpoint, FlowKey, IpHeader as _, LocalNode, Reason, Slow, Step};

use crate::{
    Verdict,
    decap::Accepted,
    encap::{self, Beginning, Departure},
    flow::{self, Candidate, Direction},
    guard::Source,
    inner::Inner,
    maps,
    packet::{Ethernet, L2, Packet as _, TcPacket, opaque},
    trace,
};

/// Says of a packet that is neither IPv4 nor IPv6 why it does not take the fast path.
#[inline(always)]
pub(crate) fn decline() {
    trace::slow(if flow::enabled() { Slow::Unfit } else { Slow::Off });
}

/// Sends a container's packet to another node at once.
#[inline(always)]
pub(crate) fn leave<I: Inner>(
    packet: &mut TcPacket,
    node: &LocalNode,
    departure: &Departure<I::Address>,
) -> Result<Verdict, Reason> {
    encap::send::<I, Forwarded<I>>(packet, node, departure)
}

/// Where a container's packet goes at once, if its source is known to be the container's own.
#[inline(always)]
pub(crate) fn departure<I: Inner>(
    packet: &TcPacket,
    node: &LocalNode,
    source: Source,
) -> Result<Result<Departure<I::Address>, Slow>, Reason> {
    let flow = match may_leave::<I>(packet, node, source) {
        Ok(flow) => flow,
        Err(slow) => return Ok(Err(slow)),
    };
    let ip = packet.header::<I>(L2)?;
    let length = encap::inner_length(ip, packet.len() - L2, packet.is_gso())?;
    let subnet = node.range().subnet_of(ip.destination());
    let Some(route) = maps::route(&subnet) else { return Ok(Err(Slow::NoRoute)) };
    Ok(Ok(Departure { subnet, route, length, tos: ip.tos(), flow }))
}

/// The header of a packet that this node has forwarded.
#[repr(transparent)]
#[derive(Clone, Copy)]
struct Forwarded<I>(I);

impl<I: Inner> Beginning for Forwarded<I> {
    const SKIPS_NETFILTER: bool = true;

    #[inline(always)]
    fn of(packet: &TcPacket) -> Result<Self, Reason> {
        packet.header(L2).copied().map(Self)
    }

    #[inline(always)]
    fn change(&mut self) {
        let tos = self.0.tos();
        forward(&mut self.0, tos);
    }
}

/// The hash of the flow of a packet that may leave.
#[inline(always)]
fn may_leave<I: Inner>(packet: &TcPacket, node: &LocalNode, source: Source) -> Result<u32, Slow> {
    if !flow::enabled() {
        return Err(Slow::Off);
    }
    let range = node.range::<I::Address>();
    // It has been looked at before.
    let ip = packet.header::<I>(L2).map_err(|_| Slow::Unfit)?;
    if !range.in_network(ip.destination()) || range.in_subnet(ip.destination()) || !range.in_subnet(ip.source()) {
        return Err(Slow::NotRemote);
    }
    let flow = approval::<I>(packet, node, 0, packet.len() - L2, Direction::Outgoing)?;
    if source == Source::Own { Ok(flow) } else { Err(Slow::UnknownSource) }
}

/// Whether netfilter has approved the flow of the packet of `length` bytes behind `outer_len` others, and a router would
/// forward it. If so: the hash of its flow. A function of its own for each family, with a stack of its own.
#[inline(never)]
fn approval<I: Inner>(
    packet: &TcPacket,
    node: &LocalNode,
    outer_len: u8,
    length: usize,
    direction: Direction,
) -> Result<u32, Slow> {
    let (packet, offset) = (opaque(packet), L2 + usize::from(outer_len));
    let candidate = flow::candidate::<I>(packet, offset, direction).ok_or(Slow::Unfit)?;
    flow::may_skip_netfilter(&candidate, direction)?;
    let ttl = packet.header::<I>(offset).map_err(|_| Slow::Unfit)?.ttl();
    may_forward(packet, ttl, length, &candidate, node)?;
    Ok(candidate.hash())
}

/// The container that an accepted packet may go straight into; [`Endpoint::NODE`] if it may not.
#[inline(always)]
pub(crate) fn arrival<I: Inner>(packet: &TcPacket, node: &LocalNode, accepted: &Accepted<I>) -> Endpoint {
    may_enter(packet, node, accepted).unwrap_or_else(|slow| {
        trace::slow(slow);
        Endpoint::NODE
    })
}

#[inline(always)]
fn may_enter<I: Inner>(packet: &TcPacket, node: &LocalNode, accepted: &Accepted<I>) -> Result<Endpoint, Slow> {
    if !flow::enabled() {
        return Err(Slow::Off);
    }
    approval::<I>(packet, node, accepted.outer_len, accepted.inner_len, Direction::Incoming)?;
    // It has been looked at before.
    let inner = packet.header::<I>(L2 + usize::from(accepted.outer_len)).map_err(|_| Slow::Unfit)?;
    match maps::endpoint(inner.destination()) {
        Some(endpoint) if endpoint.ifindex() != 0 => Ok(endpoint),
        _ => Err(Slow::NoEndpoint),
    }
}

/// Puts an accepted packet straight into its container, if it may go there.
#[inline(always)]
pub(crate) fn enter<I: Inner>(
    packet: &mut TcPacket,
    node: &LocalNode,
    accepted: &Accepted<I>,
    endpoint: Endpoint,
) -> Result<Option<Verdict>, Reason> {
    if endpoint.ifindex() == 0 {
        return Ok(None);
    }
    let source = node.usual_device::<I::Address>().mac;
    let ethernet = Ethernet { destination: endpoint.mac(), source, ether_type: I::ETHER_TYPE };
    let frame = maps::scratch().ok_or(Reason::DecapRefused)?;
    *frame = Frame { ethernet, ip: *packet.header::<I>(L2 + usize::from(accepted.outer_len))? };
    forward(&mut frame.ip, accepted.tos);
    if accepted.mixed {
        // Kernels before 6.3 cannot make one family of the other.
        if packet.strip_to::<I>(accepted.outer_len.into()).is_err() {
            trace::slow(Slow::Unfit);
            return Ok(None);
        }
    } else if accepted.outer_len != 0 {
        packet.strip(accepted.outer_len.into())?;
    }
    packet.store(0, frame)?;
    Ok(Some(packet.redirect_into_peer(endpoint.ifindex())))
}

/// Behind netfilter, on the way out: notes what it has let through. Returns a hash over the flow, as [`leave`] uses it:
/// its packets keep one outer source port on either path. A function of its own for each family, with a stack of its own.
#[inline(never)]
pub(crate) fn note_leaving<I: Inner>(packet: &TcPacket) -> Result<u32, Reason> {
    let packet = opaque(packet);
    let ip = packet.header::<I>(L2)?;
    let Some(candidate) = flow::candidate::<I>(packet, L2, Direction::Outgoing) else {
        return Ok(FlowKey::of_addresses(ip.source(), ip.destination()).hash());
    };
    if flow::enabled() {
        flow::note_behind_netfilter(&candidate, Direction::Outgoing);
        trace::step(Step::BehindNetfilter);
    }
    Ok(candidate.hash())
}

/// Behind netfilter, at the container's door: notes what it has let through.
#[inline(always)]
pub(crate) fn note_entering(packet: &TcPacket) {
    if !flow::enabled() {
        return;
    }
    match packet.header::<Ethernet>(0).map(|ethernet| ethernet.ether_type) {
        Ok(Ipv4Hdr::ETHER_TYPE) => note_entering_with::<Ipv4Hdr>(packet),
        Ok(Ipv6Hdr::ETHER_TYPE) if maps::local_node().is_some_and(maps::has_ipv6) => {
            note_entering_with::<Ipv6Hdr>(packet);
        }
        _ => {}
    }
}

#[inline(always)]
fn note_entering_with<I: Inner>(packet: &TcPacket) {
    if let Some(candidate) = flow::candidate::<I>(packet, L2, Direction::Incoming) {
        flow::note_behind_netfilter(&candidate, Direction::Incoming);
        trace::step(Step::BehindNetfilter);
    }
}

/// Ethernet and IP header of a delivered packet, stored in one go.
#[repr(C)]
#[derive(Clone, Copy)]
struct Frame<I> {
    ethernet: Ethernet,
    ip: I,
}

/// Whether a router would forward the packet of `length` bytes, or each segment of a super-packet: by TTL and overlay MTU.
#[inline(always)]
fn may_forward<A: Address>(
    packet: &TcPacket,
    ttl: u8,
    length: usize,
    candidate: &Candidate<A>,
    node: &LocalNode,
) -> Result<(), Slow> {
    let largest = if packet.is_gso() { packet.gso_size() + candidate.headers } else { length as u32 };
    if ttl <= 1 {
        return Err(Slow::Ttl);
    }
    if largest > u32::from(node.mtu::<A>()) { Err(Slow::TooBig) } else { Ok(()) }
}

/// Makes the header that of a packet that this node has forwarded: with its TTL lower by one, and the given TOS byte.
#[inline(always)]
fn forward<I: Inner>(ip: &mut I, tos: u8) {
    ip.set_tos_and_ttl(tos, ip.ttl() - 1);
}
