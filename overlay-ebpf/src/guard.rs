//! What a container may send: packets from its own addresses, not from its neighbours'.

use network_types::ip::Ipv4Hdr;
use overlay_common::{LocalNode, Reason, Step};

use crate::{
    Verdict,
    encap::{ETHER_IPV4, Ethernet},
    fast, maps,
    packet::{L2, Packet as _, TcPacket},
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
#[inline(always)]
pub(crate) fn leave(packet: &mut TcPacket) -> Result<Verdict, Reason> {
    let Some(node) = maps::local_node() else { return Ok(Verdict::Pass) };
    let source = check_source(packet, node)?;
    Ok(fast::leave(packet, node, source)?.unwrap_or(Verdict::Pass))
}

/// Refuses a packet whose source address belongs to somebody else.
///
/// The sender of ARP counts as a source: a false one would draw a neighbour's packets to this container. An address
/// of our subnet that nobody is known to have passes, since the agent may not have read it yet.
#[inline(always)]
fn check_source(packet: &TcPacket, node: &LocalNode) -> Result<Source, Reason> {
    let source = match packet.header::<Ethernet>(0)?.ether_type {
        ETHER_IPV4 => packet.header::<Ipv4Hdr>(L2)?.src_addr,
        ETHER_ARP => packet.header::<Arp>(L2)?.sender,
        // The kernel has taken one tag off. Behind a priority tag a receiver goes on to take tags off as long as they
        // are priority tags too, and would find a packet that we have not seen; no honest sender stacks them.
        ETHER_VLAN | ETHER_SERVICE_VLAN if packet.has_priority_tag() => return Err(Reason::SpoofedNeighbour),
        _ => return Ok(Source::Unknown),
    };
    if !node.in_network(source.into()) {
        return Ok(Source::Unknown);
    }
    match maps::endpoint(source) {
        Some(owner) if owner.ifindex() == packet.interface() => Ok(Source::Own),
        Some(_) => Err(Reason::SpoofedNeighbour),
        // While another node has our subnet, its containers talk to the outside and to each other as before.
        None if node.in_subnet(source.into()) || !node.claims_subnet() => {
            trace::step(Step::UnknownSource);
            Ok(Source::Unknown)
        }
        None => Err(Reason::SourceNotOurs),
    }
}
