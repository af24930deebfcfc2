//! [`Ipv4`]: a packet of RFC 791.

use std::net::Ipv4Addr;

use bytes::{BufMut as _, BytesMut};

use super::{ETHER_IPV4, internet_checksum, payload_of};

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
        Self::parse(payload_of(frame, ETHER_IPV4)?)
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
