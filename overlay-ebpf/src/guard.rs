//! What a container may send: packets from its own addresses, not from its neighbours'.

use network_types::ip::{Ipv4Hdr, Ipv6Hdr};
use overlay_common::{IpHeader as _, LocalNode, Reason, Slow, Step};

use crate::{
    Verdict,
    encap::Departure,
    fast,
    inner::Inner,
    maps::{self, Key},
    packet::{Ethernet, L2, Packet as _, TcPacket, opaque},
    trace,
};

/// EtherType of ARP on the wire.
const ETHER_ARP: [u8; 2] = [0x08, 0x06];
/// EtherTypes of VLAN tags on the wire, IEEE 802.1Q and 802.1ad.
const ETHER_VLAN: [u8; 2] = [0x81, 0x00];
const ETHER_SERVICE_VLAN: [u8; 2] = [0x88, 0xa8];

/// ARP for IPv4 over Ethernet (RFC 826).
#[repr(C)]
struct Arp {
    kinds_and_operation: [u8; 8],
    sender_mac: [u8; 6],
    sender: [u8; 4],
    target_mac: [u8; 6],
    target: [u8; 4],
}

/// Whose a source address is that may pass.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// The container's that sent the packet.
    Own,
    /// Nobody's that we know of, or not an overlay address.
    Unknown,
}

/// What becomes of a packet that a container sends: refused, on its way to another node already, or the kernel's.
///
/// The sender of ARP counts as a source: a false one would draw a neighbour's packets to this container.
#[inline(always)]
pub(crate) fn leave(packet: &mut TcPacket) -> Result<Verdict, Reason> {
    let Some(node) = maps::local_node() else { return Ok(Verdict::Pass) };
    match packet.header::<Ethernet>(0)?.ether_type {
        Ipv4Hdr::ETHER_TYPE => return leave_with::<Ipv4Hdr>(packet, node),
        Ipv6Hdr::ETHER_TYPE if maps::has_ipv6(node) => return leave_with::<Ipv6Hdr>(packet, node),
        ETHER_ARP => {
            check_source(packet, node, &packet.header::<Arp>(L2)?.sender)?;
        }
        // The kernel has taken one tag off. Behind a priority tag a receiver goes on to take tags off as long as they
        // are priority tags too, and would find a packet that we have not seen; no honest sender stacks them.
        ETHER_VLAN | ETHER_SERVICE_VLAN if packet.has_priority_tag() => return Err(Reason::SpoofedNeighbour),
        _ => {}
    }
    fast::decline();
    Ok(Verdict::Pass)
}

/// The same of an IP packet.
#[inline(always)]
fn leave_with<I: Inner>(packet: &mut TcPacket, node: &LocalNode) -> Result<Verdict, Reason> {
    match &departure::<I>(packet, node) {
        Ok(Ok(departure)) if departure.route.wants_checksum() => {
            trace::slow(Slow::Checksum);
            Ok(Verdict::Pass)
        }
        Ok(Ok(departure)) => fast::leave::<I>(packet, node, departure),
        Ok(Err(slow)) => {
            trace::slow(*slow);
            Ok(Verdict::Pass)
        }
        Err(reason) => Err(*reason),
    }
}

/// Where the packet goes at once, if it may. A function of its own for each family, with a stack of its own.
#[inline(never)]
fn departure<I: Inner>(packet: &TcPacket, node: &LocalNode) -> Result<Result<Departure<I::Address>, Slow>, Reason> {
    let packet = opaque(packet);
    let source = check_source(packet, node, &packet.header::<I>(L2)?.source())?;
    I::check_discovery(packet, node)?;
    fast::departure::<I>(packet, node, source)
}

/// Refuses a source address that belongs to somebody else.
///
/// An address of our subnet that nobody is known to have passes, since the agent may not have read it yet. A function of its
/// own, with a stack of its own.
#[inline(never)]
pub(crate) fn check_source<A: Key>(packet: &TcPacket, node: &LocalNode, source: &A) -> Result<Source, Reason> {
    let (range, source) = (node.range::<A>(), *source);
    if !range.in_network(source) {
        return Ok(Source::Unknown);
    }
    match maps::endpoint(source) {
        Some(owner) if owner.ifindex() == packet.interface() => Ok(Source::Own),
        Some(_) => Err(Reason::SpoofedNeighbour),
        // While another node has our subnet, its containers talk to the outside and to each other as before.
        None if range.in_subnet(source) || !range.claims_subnet() => {
            trace::step(Step::UnknownSource);
            Ok(Source::Unknown)
        }
        None => Err(Reason::SourceNotOurs),
    }
}
