//! What a container may say in neighbour discovery (RFC 4861), IPv6's ARP.

use network_types::ip::{IpProto, Ipv6Hdr};
use overlay_common::{LocalNode, Reason};

use crate::{
    guard,
    inner::{AUTHENTICATION, DESTINATION_OPTIONS, HOP_BY_HOP, ROUTING},
    packet::{L2, Packet as _, TcPacket, opaque},
};

const PROTO_ICMPV6: u8 = IpProto::Ipv6Icmp as u8;
const ROUTER_ADVERTISEMENT: u8 = 134;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
const REDIRECT: u8 = 137;

/// The hop limit that neighbour discovery must arrive with: it has passed no router.
const FROM_THE_LINK: u8 = 255;

/// The beginning of a neighbour advertisement.
#[repr(C)]
struct Advertisement {
    _kind_and_flags: [u8; 8],
    target: [u8; 16],
}

/// Refuses what would draw a neighbour's packets to this container: an advertisement of an address that belongs to somebody
/// else, and whatever a router says, which no container is. The source of a solicitation, which receivers note as well, is
/// checked as that of every packet.
#[inline(always)]
pub(crate) fn check(packet: &TcPacket, node: &LocalNode) -> Result<(), Reason> {
    if packet.header::<Ipv6Hdr>(L2)?.hop_limit == FROM_THE_LINK { check_from_the_link(packet, node) } else { Ok(()) }
}

/// A function of its own, with a stack of its own: hardly a packet comes here.
#[inline(never)]
fn check_from_the_link(packet: &TcPacket, node: &LocalNode) -> Result<(), Reason> {
    let packet = opaque(packet);
    match packet.header::<Ipv6Hdr>(L2)?.next_hdr {
        PROTO_ICMPV6 => {}
        // Receivers find neighbour discovery behind these as well, where we do not look. No honest sender puts it there; and
        // behind a fragment header they ignore it (RFC 6980).
        HOP_BY_HOP | ROUTING | AUTHENTICATION | DESTINATION_OPTIONS => return Err(Reason::SpoofedNeighbour),
        _ => return Ok(()),
    }
    match *packet.header::<u8>(L2 + Ipv6Hdr::LEN)? {
        ROUTER_ADVERTISEMENT | REDIRECT => Err(Reason::SpoofedNeighbour),
        NEIGHBOUR_ADVERTISEMENT => {
            let target = &packet.header::<Advertisement>(L2 + Ipv6Hdr::LEN)?.target;
            guard::check_source(packet, node, target).map(|_| ())
        }
        _ => Ok(()),
    }
}
