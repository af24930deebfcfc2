//! Both inner families over both outer ones: the rows of the other tables that are not alike for IPv6, and those that cross.

mod decap;
mod encap;
mod fast;
mod guard;
mod told;

use std::net::{IpAddr, Ipv6Addr};

use overlay_common::Ticks;
use overlay_tests::{
    packets::{Extension, Ip, Ipv4, Ipv6, PROTO_ICMPV6, PROTO_UDP, checksummed, ethernet, udp, vxlan},
    programs::{Programs, REMOTE_MAC, REMOTE_NODE, REMOTE_NODE_V6, VTEP, VTEP_V6},
};

use crate::inner;

/// A container here.
const LOCAL: Ipv6Addr = Ipv6Addr::new(0xfd00, 1, 0, 15, 0, 0, 0, 2);
/// A container on the other node.
const REMOTE: Ipv6Addr = Ipv6Addr::new(0xfd00, 1, 0, 16, 0, 0, 0, 2);
/// An address outside the overlay.
const OUTSIDE: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 8);

/// The families of the underlay.
const UNDERLAYS: [Underlay; 2] = [Underlay::Ipv4, Underlay::Ipv6];

/// A family of the underlay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Underlay {
    Ipv4,
    Ipv6,
}

impl Underlay {
    /// The programs of a node that knows the other one by its address of this family.
    fn programs(self, flow_ttl: Ticks) -> Programs {
        Programs::load_dual_stack(self.other_node(), flow_ttl).expect("load the programs")
    }

    /// The address of the other node.
    fn other_node(self) -> IpAddr {
        match self {
            Self::Ipv4 => REMOTE_NODE.into(),
            Self::Ipv6 => REMOTE_NODE_V6.into(),
        }
    }

    /// The MAC address of our VTEP.
    fn mac(self) -> [u8; 6] {
        match self {
            Self::Ipv4 => VTEP.mac,
            Self::Ipv6 => VTEP_V6.mac,
        }
    }

    /// A frame of the underlay with `payload` in UDP, from the other node to this one, or the other way.
    fn frame(self, addresses: [[u8; 6]; 2], outgoing: bool, tos: u8, datagram: Vec<u8>) -> Vec<u8> {
        let [destination, source] = addresses;
        match self {
            Self::Ipv4 => {
                let (from, to) = if outgoing { (VTEP.address, REMOTE_NODE) } else { (REMOTE_NODE, VTEP.address) };
                let ip = Ipv4 { tos, ..Ipv4::new(from, to, PROTO_UDP, datagram) };
                ethernet(destination, source, Ipv4::ETHER_TYPE, &ip.bytes())
            }
            Self::Ipv6 => {
                let (from, to) =
                    if outgoing { (VTEP_V6.address, REMOTE_NODE_V6) } else { (REMOTE_NODE_V6, VTEP_V6.address) };
                let ip = Ipv6 { traffic_class: tos, ..Ipv6::new(from, to, PROTO_UDP, datagram) };
                ethernet(destination, source, Ipv6::ETHER_TYPE, &ip.bytes())
            }
        }
    }

    /// The frame that carries `inner` from the other node, with this outer TOS byte.
    fn tunnel(self, inner: &impl Ip, tos: u8) -> Vec<u8> {
        self.tunnel_frame(&inner_frame(self, inner), tos)
    }

    /// The frame that carries an inner frame from the other node.
    fn tunnel_frame(self, frame: &[u8], tos: u8) -> Vec<u8> {
        let payload = vxlan(0x08, VTEP.vni, frame);
        let addresses = [[0x52, 0, 0, 0, 0, 1], [0x52, 0, 0, 0, 0, 2]];
        self.frame(addresses, false, tos, udp(50_000, VTEP.port, &payload))
    }

    /// Bytes of Ethernet and outer IP header.
    fn headers(self) -> usize {
        match self {
            Self::Ipv4 => 34,
            Self::Ipv6 => 54,
        }
    }
}

/// The inner frame that the other node sends.
fn inner_frame<I: Ip>(underlay: Underlay, inner: &I) -> Vec<u8> {
    ethernet(underlay.mac(), REMOTE_MAC, I::ETHER_TYPE, &inner.to_bytes())
}

/// A container's packet of either family, as it comes from the kernel or the container.
fn from_kernel<I: Ip>(inner: &I) -> Vec<u8> {
    ethernet(VTEP.mac, VTEP.mac, I::ETHER_TYPE, &inner.to_bytes())
}

/// A UDP datagram between containers.
fn datagram(source: Ipv6Addr, destination: Ipv6Addr, payload: &[u8]) -> Ipv6 {
    Ipv6::new(source, destination, PROTO_UDP, udp(1000, 2000, payload))
}

/// An ICMPv6 message with `rest` behind its checksum.
fn icmpv6(source: Ipv6Addr, destination: Ipv6Addr, kind: u8, code: u8, rest: &[u8]) -> Vec<u8> {
    checksummed(source, destination, PROTO_ICMPV6, [&[kind, code, 0, 0], rest].concat())
}

/// The packet with an extension header in front of its payload.
fn extended(ip: &Ipv6, extension: Extension) -> Ipv6 {
    Ipv6 { extensions: vec![extension], ..ip.clone() }
}

/// The packet as the first of several fragments.
fn first_fragment(ip: &Ipv6) -> Ipv6 {
    extended(ip, Extension::fragment(0, true, 7))
}

/// The packet as the last of several fragments.
fn later_fragment(ip: &Ipv6) -> Ipv6 {
    extended(ip, Extension::fragment(181, false, 7))
}

fn to_remote() -> (Ipv4, Ipv6) {
    (inner(crate::LOCAL, crate::REMOTE), datagram(LOCAL, REMOTE, b"what the containers say"))
}

fn to_local() -> (Ipv4, Ipv6) {
    (inner(crate::REMOTE, crate::LOCAL), datagram(REMOTE, LOCAL, b"what the containers say"))
}
