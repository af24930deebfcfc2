//! The answer to a packet for a subnet that nobody leases.

use std::net::IpAddr;

use super::{Family, Node, ip::Ip};
use crate::packets::{self, PROTO_ICMP, PROTO_ICMPV6, checksummed, internet_checksum};

impl Family {
    /// "Network unreachable" of RFC 792, and "no route to destination" of RFC 4443: the message without its checksum.
    const fn unreachable(self) -> [u8; 8] {
        match self {
            Self::V4 => [3, 0, 0, 0, 0, 0, 0, 0],
            Self::V6 => [1, 0, 0, 0, 0, 0, 0, 0],
        }
    }

    /// The type of the one ICMP message that is no error and no answer, so may be answered by an error.
    const fn echo_request(self) -> u8 {
        match self {
            Self::V4 => 8,
            Self::V6 => 128,
        }
    }
}

/// The frame that comes in on the overlay device in place of a packet of `length` bytes; `None`: no error may be sent
/// about it, or too little of it is there to be quoted.
///
/// It bears the address that could not be reached, and quotes the first bytes of the packet: with a whole TCP header, or
/// else with the eight bytes that RFC 792 asks for.
pub(super) fn net_unreachable(node: &Node, inner: Ip<'_>, length: usize) -> Option<Vec<u8>> {
    let (family, packet) = (inner.family(), &inner.bytes()[..length]);
    let header = family.header_len();
    let quote = packet.get(..header + 20).or_else(|| packet.get(..header + 8))?;
    // RFC 1122, section 3.2.2: not about a later fragment, nor about an ICMP error. Options and extension headers are
    // rare enough to be left alone.
    let is_error = inner.protocol() == family.icmp() && packet[header] != family.echo_request();
    if !inner.is_plain() || is_error {
        return None;
    }
    let mut message = [&family.unreachable(), quote].concat();
    let tos = inner.tos() & !0b11;
    let answer = match (inner.destination(), inner.source()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let checksum = internet_checksum(&message);
            message[2..4].copy_from_slice(&checksum.to_be_bytes());
            let ip = packets::Ipv4::new(from, to, PROTO_ICMP, message);
            packets::Ipv4 { tos, id: inner.id(), ttl: 64, ..ip }.bytes()
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let ip = packets::Ipv6::new(from, to, PROTO_ICMPV6, checksummed(from, to, PROTO_ICMPV6, message));
            packets::Ipv6 { traffic_class: tos, hop_limit: 64, ..ip }.bytes()
        }
        _ => return None,
    };
    Some(packets::ethernet(node.usual_end(family)?.mac, [0; 6], family.ether_type(), &answer))
}
