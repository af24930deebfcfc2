//! What `to_overlay` does.

use std::net::Ipv4Addr;

use overlay_common::{Encapsulation, Reason, Traffic};

use super::{
    Expected, Facts, Fate, Hop, IDENTIFICATION, Node, SOURCE_PORT, Super,
    headers::{Ethernet, Ipv4},
    icmp, wire_packets,
};
use crate::packets::{self, ETHER_IPV4, PROTO_UDP};

/// Encapsulates a packet for a remote subnet, or drops it: nothing else has a way through the overlay device.
pub(super) fn encap(facts: &Facts, packet: &[u8], super_packet: Option<Super>) -> Result<Expected, Reason> {
    let frame = Ethernet::parse(packet).ok_or(Reason::Truncated)?;
    if frame.ether_type != ETHER_IPV4 {
        return Err(Reason::NotIpv4);
    }
    let inner = Ipv4::parse(frame.payload).ok_or(Reason::Truncated)?;
    if !inner.is_well_formed() {
        return Err(Reason::BadHeader);
    }
    let length = length(inner, super_packet)?;
    // An all-zero LOCAL_NODE describes a subnet that holds every address.
    let node = facts.node.as_ref().ok_or(Reason::OwnSubnet)?;
    check_addresses(node, inner)?;
    let Some((subnet, hop)) = facts.route(inner.destination()) else {
        let answer = icmp::net_unreachable(node, inner, length).ok_or(Reason::NoRoute)?;
        return Ok(Expected { fate: Fate::Answered(Reason::NoRoute, answer), counted: None });
    };
    if super_packet.is_some_and(|of| !of.resizable) {
        return Err(Reason::EncapRefused);
    }
    let (inner_bytes, trailer) = inner.bytes().split_at(length);
    let outer = outer(facts.encapsulation, node, hop, inner.tos(), inner_bytes);
    let counted =
        Traffic { encap_packets: wire_packets(super_packet), encap_bytes: length as u64, ..Traffic::default() };
    Ok(Expected {
        // The kernel writes the outer MAC addresses when it sends the packet on its way. What stands behind the
        // inner packet stays behind the outer one.
        fate: Fate::Becomes([frame.header, &outer, trailer].concat()),
        counted: Some((subnet.network(), counted)),
    })
}

/// The length in bytes of the inner packet. That of a super-packet is not in its header: segmentation writes it.
fn length(inner: Ipv4<'_>, super_packet: Option<Super>) -> Result<usize, Reason> {
    let available = inner.bytes().len();
    let length = inner.total_len();
    match super_packet {
        Some(_) => Ok(available),
        None if (inner.header_len()..=available).contains(&length) => Ok(length),
        None => Err(Reason::BadLength),
    }
}

/// The packet must go from our subnet to another one of the network.
fn check_addresses(node: &Node, inner: Ipv4<'_>) -> Result<(), Reason> {
    let destination = inner.destination();
    if !node.network.contains(destination) {
        return Err(if is_unicast(destination) { Reason::OutsideNetwork } else { Reason::NotUnicast });
    }
    if node.subnet.contains(destination) {
        return Err(Reason::OwnSubnet);
    }
    if !node.subnet.contains(inner.source()) {
        return Err(Reason::SourceNotOurs);
    }
    Ok(())
}

/// The special-purpose addresses of RFC 6890 that no single interface can have.
fn is_unicast(address: Ipv4Addr) -> bool {
    let this_network = address.octets()[0] == 0;
    let reserved = address.octets()[0] >= 240;
    !(this_network || address.is_loopback() || address.is_link_local() || address.is_multicast() || reserved)
}

/// The outer packet: plain IPv4 and UDP without a checksum, DF off, DSCP and ECN copied (RFC 6040, normal mode).
fn outer(encapsulation: Encapsulation, node: &Node, hop: Hop, tos: u8, inner: &[u8]) -> Vec<u8> {
    let vtep = &node.vtep;
    let payload = match encapsulation {
        Encapsulation::Udp => inner.to_vec(),
        Encapsulation::Vxlan => {
            packets::vxlan(0x08, vtep.vni, &packets::ethernet(hop.mac, vtep.mac, ETHER_IPV4, inner))
        }
    };
    let datagram = packets::udp(SOURCE_PORT, vtep.port, &payload);
    let ip = packets::Ipv4::new(vtep.address, hop.address, PROTO_UDP, datagram);
    packets::Ipv4 { tos, id: IDENTIFICATION, ttl: 64, ..ip }.bytes()
}
