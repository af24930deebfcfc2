//! Packets as bytes, built from the RFCs and without the code under test.

use std::net::Ipv4Addr;

use bytes::{BufMut as _, BytesMut};

/// EtherType of IPv4.
pub const ETHER_IPV4: u16 = 0x0800;
/// EtherType of ARP.
pub const ETHER_ARP: u16 = 0x0806;
/// EtherType of IPv6.
pub const ETHER_IPV6: u16 = 0x86dd;
/// EtherType of a VLAN tag.
pub const ETHER_VLAN: u16 = 0x8100;

/// IP protocol numbers.
pub const PROTO_ICMP: u8 = 1;
/// TCP.
pub const PROTO_TCP: u8 = 6;
/// UDP.
pub const PROTO_UDP: u8 = 17;

/// An IPv4 packet; what is not set has the value that a plain sender would choose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ipv4 {
    /// DSCP and ECN.
    pub tos: u8,
    /// Identification.
    pub id: u16,
    /// Flags and fragment offset, as the 16 bits stand in the header.
    pub flags_and_offset: u16,
    /// Time to live.
    pub ttl: u8,
    /// Protocol number of the payload.
    pub protocol: u8,
    /// Source address.
    pub source: Ipv4Addr,
    /// Destination address.
    pub destination: Ipv4Addr,
    /// Options, a multiple of four bytes.
    pub options: Vec<u8>,
    /// What follows the header.
    pub payload: Vec<u8>,
    /// A first byte that lies about version or header length.
    pub version_and_length: Option<u8>,
    /// A total length that lies.
    pub total_length: Option<u16>,
}

impl Ipv4 {
    /// A packet with `payload` of `protocol`.
    #[must_use]
    pub fn new(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8, payload: Vec<u8>) -> Self {
        Self {
            tos: 0,
            id: 0x1234,
            flags_and_offset: 0,
            ttl: 63,
            protocol,
            source,
            destination,
            options: Vec::new(),
            payload,
            version_and_length: None,
            total_length: None,
        }
    }

    /// Reads the packet that `bytes` begin with, whatever its checksum says; `None` when they hold no whole one.
    /// What its lengths say is believed: bytes behind the packet are left out.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let header = bytes.first_chunk::<20>()?;
        let field = |offset: usize| u16::from_be_bytes([header[offset], header[offset + 1]]);
        let header_len = usize::from(header[0] & 0x0f) * 4;
        let total_len = usize::from(field(2));
        let [.., s0, s1, s2, s3, d0, d1, d2, d3] = *header;
        (header[0] >> 4 == 4 && header_len >= 20).then_some(())?;
        Some(Self {
            tos: header[1],
            id: field(4),
            flags_and_offset: field(6),
            ttl: header[8],
            protocol: header[9],
            source: Ipv4Addr::new(s0, s1, s2, s3),
            destination: Ipv4Addr::new(d0, d1, d2, d3),
            options: bytes.get(20..header_len)?.to_vec(),
            payload: bytes.get(header_len..total_len)?.to_vec(),
            version_and_length: None,
            total_length: None,
        })
    }

    /// Reads the packet in an Ethernet frame; `None` when it is not IPv4.
    #[must_use]
    pub fn in_frame(frame: &[u8]) -> Option<Self> {
        (*frame.get(12..14)? == ETHER_IPV4.to_be_bytes()).then(|| Self::parse(&frame[14..])).flatten()
    }

    /// The packet's bytes, with a correct header checksum.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let header_len = 20 + self.options.len();
        let mut bytes = BytesMut::new();
        bytes.put_u8(self.version_and_length.unwrap_or(0x40 | (header_len / 4) as u8));
        bytes.put_u8(self.tos);
        bytes.put_u16(self.total_length.unwrap_or((header_len + self.payload.len()) as u16));
        bytes.put_u16(self.id);
        bytes.put_u16(self.flags_and_offset);
        bytes.put_u8(self.ttl);
        bytes.put_u8(self.protocol);
        bytes.put_u16(0);
        bytes.put_slice(&self.source.octets());
        bytes.put_slice(&self.destination.octets());
        bytes.put_slice(&self.options);
        let checksum = internet_checksum(&bytes);
        bytes[10..12].copy_from_slice(&checksum.to_be_bytes());
        bytes.put_slice(&self.payload);
        bytes.to_vec()
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

/// A UDP datagram without a checksum.
#[must_use]
pub fn udp(source_port: u16, destination_port: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = BytesMut::new();
    bytes.put_u16(source_port);
    bytes.put_u16(destination_port);
    bytes.put_u16(8 + payload.len() as u16);
    bytes.put_u16(0);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_built_is_read_again() {
        let built = Ipv4 {
            options: vec![1; 4],
            ..Ipv4::new([10, 1, 2, 3].into(), [10, 1, 4, 5].into(), PROTO_UDP, udp(1, 2, b"payload"))
        };
        let frame = ethernet([0; 6], [0; 6], ETHER_IPV4, &[built.bytes(), vec![0; 9]].concat());
        assert_eq!(Ipv4::in_frame(&frame), Some(built));
        assert_eq!(Ipv4::in_frame(&frame[..frame.len() - 10]), None);
    }
}
