//! Packets as bytes, built from the RFCs and without the code under test.

mod either;
mod ipv4;
mod ipv6;
pub mod ndp;
mod transport;

use bytes::{BufMut as _, BytesMut};

pub use self::{
    either::{Complaint, Either},
    ipv4::Ipv4,
    ipv6::{Extension, Ipv6},
    transport::{checksummed, echo_request, is_checksum_right, tcp, udp},
};

/// EtherType of IPv4.
pub const ETHER_IPV4: u16 = 0x0800;
/// EtherType of ARP.
pub const ETHER_ARP: u16 = 0x0806;
/// EtherType of IPv6.
pub const ETHER_IPV6: u16 = 0x86dd;
/// EtherType of a VLAN tag.
pub const ETHER_VLAN: u16 = 0x8100;

/// IP protocol numbers: ICMP.
pub const PROTO_ICMP: u8 = 1;
/// TCP.
pub const PROTO_TCP: u8 = 6;
/// UDP.
pub const PROTO_UDP: u8 = 17;
/// ICMPv6.
pub const PROTO_ICMPV6: u8 = 58;

/// An IP packet of either family.
pub trait Ip: Clone {
    /// What an Ethernet header calls it.
    const ETHER_TYPE: u16;

    /// Its bytes.
    fn to_bytes(&self) -> Vec<u8>;

    /// DSCP and ECN.
    fn tos(&self) -> u8;

    /// The same with another TOS byte, or traffic class.
    #[must_use]
    fn with_tos(self, tos: u8) -> Self;

    /// The same as a router has forwarded it.
    #[must_use]
    fn forwarded(self) -> Self;
}

impl Ip for Ipv4 {
    const ETHER_TYPE: u16 = ETHER_IPV4;

    fn to_bytes(&self) -> Vec<u8> {
        self.bytes()
    }

    fn tos(&self) -> u8 {
        self.tos
    }

    fn with_tos(self, tos: u8) -> Self {
        Self { tos, ..self }
    }

    fn forwarded(self) -> Self {
        Self { ttl: self.ttl - 1, ..self }
    }
}

impl Ip for Ipv6 {
    const ETHER_TYPE: u16 = ETHER_IPV6;

    fn to_bytes(&self) -> Vec<u8> {
        self.bytes()
    }

    fn tos(&self) -> u8 {
        self.traffic_class
    }

    fn with_tos(self, traffic_class: u8) -> Self {
        Self { traffic_class, ..self }
    }

    fn forwarded(self) -> Self {
        Self { hop_limit: self.hop_limit - 1, ..self }
    }
}

/// An Ethernet frame.
#[must_use]
pub fn ethernet(destination: [u8; 6], source: [u8; 6], ether_type: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = BytesMut::new();
    bytes.put_slice(&destination);
    bytes.put_slice(&source);
    bytes.put_u16(ether_type);
    bytes.put_slice(payload);
    bytes.to_vec()
}

/// A VXLAN header (RFC 7348) in front of `frame`.
#[must_use]
pub fn vxlan(flags: u8, vni: u32, frame: &[u8]) -> Vec<u8> {
    let mut bytes = BytesMut::new();
    bytes.put_u32(u32::from(flags) << 24);
    bytes.put_u32(vni << 8);
    bytes.put_slice(frame);
    bytes.to_vec()
}

/// The internet checksum (RFC 1071) of `bytes`.
#[must_use]
pub fn internet_checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 =
        bytes.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// What is behind the Ethernet header of `frame`, if that says it is of `ether_type`.
fn payload_of(frame: &[u8], ether_type: u16) -> Option<&[u8]> {
    (*frame.get(12..14)? == ether_type.to_be_bytes()).then(|| &frame[14..])
}

#[cfg(test)]
mod tests;
