//! [`Ipv6`]: a packet of RFC 8200.

use std::net::Ipv6Addr;

use bytes::{BufMut as _, BytesMut};

use super::{ETHER_IPV6, payload_of};

/// Length in bytes of the fixed header.
const HEADER: usize = 40;

/// An IPv6 packet; what is not set has the value that a plain sender would choose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ipv6 {
    /// DSCP and ECN.
    pub traffic_class: u8,
    /// Flow label, 20 bits.
    pub flow_label: u32,
    /// Hop limit.
    pub hop_limit: u8,
    /// Source address.
    pub source: Ipv6Addr,
    /// Destination address.
    pub destination: Ipv6Addr,
    /// Extension headers, in their order.
    pub extensions: Vec<Extension>,
    /// Protocol number of the payload: what the last header names as the next.
    pub protocol: u8,
    /// What follows the headers.
    pub payload: Vec<u8>,
    /// A version that lies.
    pub version: Option<u8>,
    /// A payload length that lies.
    pub payload_length: Option<u16>,
}

/// An extension header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extension {
    /// The number by which the header before it names it.
    pub kind: u8,
    /// What stands behind its first byte, which names the next header; with that byte a multiple of eight.
    pub body: Vec<u8>,
}

impl Extension {
    /// Hop-by-hop options.
    pub const HOP_BY_HOP: u8 = 0;
    /// A routing header.
    pub const ROUTING: u8 = 43;
    /// A fragment header.
    pub const FRAGMENT: u8 = 44;
    /// Destination options.
    pub const DESTINATION: u8 = 60;
    /// All of these.
    pub const KINDS: [u8; 4] = [Self::HOP_BY_HOP, Self::ROUTING, Self::FRAGMENT, Self::DESTINATION];

    /// Options of this kind that say nothing: eight bytes, one PadN option in them.
    #[must_use]
    pub fn padding(kind: u8) -> Self {
        Self { kind, body: vec![0, 1, 4, 0, 0, 0, 0] }
    }

    /// A fragment header: the offset in units of eight bytes, and whether more fragments follow.
    #[must_use]
    pub fn fragment(offset: u16, more: bool, id: u32) -> Self {
        let mut body = BytesMut::new();
        body.put_u8(0);
        body.put_u16(offset << 3 | u16::from(more));
        body.put_u32(id);
        Self { kind: Self::FRAGMENT, body: body.to_vec() }
    }

    /// Reads the header of this kind that `bytes` begin with, and which is the next; `None` when it is none that we know
    /// or not whole.
    fn parse(kind: u8, bytes: &[u8]) -> Option<(Self, u8)> {
        let length = match kind {
            Self::HOP_BY_HOP | Self::ROUTING | Self::DESTINATION => 8 * (1 + usize::from(*bytes.get(1)?)),
            Self::FRAGMENT => 8,
            _ => return None,
        };
        Some((Self { kind, body: bytes.get(1..length)?.to_vec() }, bytes[0]))
    }

    /// Whether what follows is in the middle of something, and no header.
    fn is_later_fragment(&self) -> bool {
        self.kind == Self::FRAGMENT && u16::from_be_bytes([self.body[1], self.body[2]]) >> 3 != 0
    }
}

impl Ipv6 {
    /// A packet with `payload` of `protocol`.
    #[must_use]
    pub fn new(source: Ipv6Addr, destination: Ipv6Addr, protocol: u8, payload: Vec<u8>) -> Self {
        Self {
            traffic_class: 0,
            flow_label: 0,
            hop_limit: 63,
            source,
            destination,
            extensions: Vec::new(),
            protocol,
            payload,
            version: None,
            payload_length: None,
        }
    }

    /// Reads the packet that `bytes` begin with; `None` when they hold no whole one.
    /// What its lengths say is believed: bytes behind the packet are left out.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let header = bytes.first_chunk::<HEADER>()?;
        let [v0, v1, v2, v3, l0, l1, next, hop_limit, ..] = *header;
        let first = u32::from_be_bytes([v0, v1, v2, v3]);
        (first >> 28 == 6).then_some(())?;
        let address = |at: usize| header[at..].first_chunk::<16>().map(|octets| Ipv6Addr::from(*octets));
        let mut rest = bytes.get(HEADER..HEADER + usize::from(u16::from_be_bytes([l0, l1])))?;
        let (mut protocol, mut extensions) = (next, Vec::new());
        while let Some((extension, next)) = Extension::parse(protocol, rest) {
            rest = &rest[1 + extension.body.len()..];
            protocol = next;
            extensions.push(extension);
            if extensions.last().is_some_and(Extension::is_later_fragment) {
                break;
            }
        }
        Some(Self {
            traffic_class: (first >> 20) as u8,
            flow_label: first & 0xf_ffff,
            hop_limit,
            source: address(8)?,
            destination: address(24)?,
            extensions,
            protocol,
            payload: rest.to_vec(),
            version: None,
            payload_length: None,
        })
    }

    /// Reads the packet in an Ethernet frame; `None` when it is not IPv6.
    #[must_use]
    pub fn in_frame(frame: &[u8]) -> Option<Self> {
        Self::parse(payload_of(frame, ETHER_IPV6)?)
    }

    /// The packet's bytes.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        // Which header each one names as the next.
        let kinds = self.extensions.iter().map(|extension| extension.kind);
        let mut next = kinds.chain([self.protocol]);
        let first = next.next().unwrap_or(self.protocol);
        let mut behind = BytesMut::new();
        for (extension, next) in self.extensions.iter().zip(next) {
            behind.put_u8(next);
            behind.put_slice(&extension.body);
        }
        behind.put_slice(&self.payload);

        let mut bytes = BytesMut::new();
        let version = u32::from(self.version.unwrap_or(6));
        bytes.put_u32(version << 28 | u32::from(self.traffic_class) << 20 | self.flow_label);
        bytes.put_u16(self.payload_length.unwrap_or(behind.len() as u16));
        bytes.put_u8(first);
        bytes.put_u8(self.hop_limit);
        bytes.put_slice(&self.source.octets());
        bytes.put_slice(&self.destination.octets());
        bytes.put_slice(&behind);
        bytes.to_vec()
    }
}
