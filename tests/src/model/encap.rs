//! What `to_overlay` does.

use std::net::IpAddr;

use overlay_common::{Encapsulation, Reason, Traffic};

use super::{
    Expected, FLOW_LABEL, Facts, Family, Fate, Hop, IDENTIFICATION, Node, SOURCE_PORT, Super, headers::Ethernet, icmp,
    ip::Ip, wire_packets,
};
use crate::packets::{self, PROTO_UDP};

/// Encapsulates a packet for a remote subnet, or drops it: nothing else has a way through the overlay device.
pub(super) fn encap(facts: &Facts, packet: &[u8], super_packet: Option<Super>) -> Result<Expected, Reason> {
    let frame = Ethernet::parse(packet).ok_or(Reason::Truncated)?;
    let family = facts.inner_family(frame.ether_type).ok_or(Reason::NotIpv4)?;
    let node = facts.node.as_ref().ok_or(Reason::NotIpv4)?;
    let inner = Ip::parse(family, frame.payload).ok_or(Reason::Truncated)?;
    if !inner.is_well_formed() {
        return Err(Reason::BadHeader);
    }
    let length = length(inner, super_packet)?;
    check_addresses(node, inner)?;
    let Some((subnet, hop)) = facts.route(inner.destination()) else {
        let answer = icmp::net_unreachable(node, inner, length).ok_or(Reason::NoRoute)?;
        return Ok(Expected { fate: Fate::Answered(Reason::NoRoute, answer), counted: None });
    };
    if super_packet.is_some_and(|of| !of.resizable) {
        return Err(Reason::EncapRefused);
    }
    let (inner_bytes, trailer) = inner.bytes().split_at(length);
    let outer = outer(facts.encapsulation, node, hop, inner, inner_bytes);
    let (outer_type, outer) = outer.expect("a route leads over a family that the node has a tunnel end in");
    let counted =
        Traffic { encap_packets: wire_packets(super_packet), encap_bytes: length as u64, ..Traffic::default() };
    Ok(Expected {
        // The kernel writes the outer MAC addresses when it sends the packet on its way. What stands behind the
        // inner packet stays behind the outer one.
        fate: Fate::Becomes([&frame.header[..12], &outer_type.to_be_bytes(), &outer, trailer].concat()),
        counted: Some((subnet.network(), counted)),
    })
}

/// The length in bytes of the inner packet. That of a super-packet is not in its header: segmentation writes it.
fn length(inner: Ip<'_>, super_packet: Option<Super>) -> Result<usize, Reason> {
    let available = inner.bytes().len();
    let length = inner.total_len();
    match super_packet {
        Some(_) => Ok(available),
        None if (inner.header_len()..=available).contains(&length) => Ok(length),
        None => Err(Reason::BadLength),
    }
}

/// The packet must go from our subnet to another one of the network.
fn check_addresses(node: &Node, inner: Ip<'_>) -> Result<(), Reason> {
    let destination = inner.destination();
    let range = node.ranges.of(inner.family()).ok_or(Reason::NotIpv4)?;
    if !range.network.contains(destination) {
        return Err(if is_unicast(destination) { Reason::OutsideNetwork } else { Reason::NotUnicast });
    }
    if range.subnet.contains(destination) {
        return Err(Reason::OwnSubnet);
    }
    if !range.subnet.contains(inner.source()) {
        return Err(Reason::SourceNotOurs);
    }
    Ok(())
}

/// Whether a single interface can have the address: the special-purpose addresses of RFC 6890 are not for that.
fn is_unicast(address: IpAddr) -> bool {
    let of_family = match address {
        // This network, and reserved.
        IpAddr::V4(v4) => v4.octets()[0] != 0 && v4.octets()[0] < 240 && !v4.is_link_local(),
        // Unspecified, loopback, and what stands for an IPv4 address (RFC 4291, section 2.5.5).
        IpAddr::V6(v6) => v6.octets()[..8] != [0; 8] && !v6.is_unicast_link_local(),
    };
    of_family && !address.is_loopback() && !address.is_multicast()
}

/// The outer packet and its EtherType: plain IP and UDP without a checksum, DF off, DSCP and ECN copied (RFC 6040, normal
/// mode). `None`: the node has no tunnel end in the family of the hop.
fn outer(encapsulation: Encapsulation, node: &Node, hop: Hop, inner: Ip<'_>, bytes: &[u8]) -> Option<(u16, Vec<u8>)> {
    let (outer, tos) = (Family::of(hop.address), inner.tos());
    let end = node.ends.of(outer)?;
    let payload = match encapsulation {
        Encapsulation::Udp => bytes.to_vec(),
        Encapsulation::Vxlan => {
            let frame = packets::ethernet(hop.mac, end.mac, inner.family().ether_type(), bytes);
            packets::vxlan(0x08, node.vni, &frame)
        }
    };
    let datagram = packets::udp(SOURCE_PORT, node.port, &payload);
    let packet = match (end.address, hop.address) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let ip = packets::Ipv4::new(from, to, PROTO_UDP, datagram);
            packets::Ipv4 { tos, id: IDENTIFICATION, ttl: 64, ..ip }.bytes()
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let ip = packets::Ipv6::new(from, to, PROTO_UDP, datagram);
            packets::Ipv6 { traffic_class: tos, flow_label: FLOW_LABEL, hop_limit: 64, ..ip }.bytes()
        }
        _ => return None,
    };
    Some((outer.ether_type(), packet))
}
