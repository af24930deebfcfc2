//! The answer to a packet for a subnet that nobody leases.

use super::{
    Node,
    headers::{IPV4, Ipv4},
};
use crate::packets::{self, ETHER_IPV4, PROTO_ICMP, internet_checksum};

/// ICMP's "destination unreachable" and its code "network unreachable" (RFC 792).
const NET_UNREACHABLE: [u8; 8] = [3, 0, 0, 0, 0, 0, 0, 0];
const ECHO_REQUEST: u8 = 8;

/// The frame that comes in on the overlay device in place of a packet of `length` bytes; `None`: no error may be sent
/// about it, or too little of it is there to be quoted.
///
/// It bears the address that could not be reached, and quotes the first bytes of the packet: 40, a whole TCP header, or
/// else 28, as RFC 792 asks.
pub(super) fn net_unreachable(node: &Node, inner: Ipv4<'_>, length: usize) -> Option<Vec<u8>> {
    let packet = &inner.bytes()[..length];
    let quote = packet.get(..40).or_else(|| packet.get(..28))?;
    // RFC 1122, section 3.2.2: not about a later fragment, nor about an ICMP error. Options are rare enough to be
    // left alone.
    let is_error = inner.protocol() == PROTO_ICMP && packet[IPV4] != ECHO_REQUEST;
    if inner.fragment_offset() != 0 || inner.header_len() != IPV4 || is_error {
        return None;
    }
    let mut message = [&NET_UNREACHABLE, quote].concat();
    let checksum = internet_checksum(&message);
    message[2..4].copy_from_slice(&checksum.to_be_bytes());
    let ip = packets::Ipv4::new(inner.destination(), inner.source(), PROTO_ICMP, message);
    let ip = packets::Ipv4 { tos: inner.tos() & !0b11, id: inner.id(), ttl: 64, ..ip };
    Some(packets::ethernet(node.vtep.mac, [0; 6], ETHER_IPV4, &ip.bytes()))
}
