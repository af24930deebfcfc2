//! [`Either`]: a packet of either family, as far as both are alike; and what ICMP complains of in it.

use std::net::IpAddr;

use super::{Extension, Ipv4, Ipv6, PROTO_ICMP, PROTO_ICMPV6, internet_checksum, is_checksum_right};

/// Bits in an IPv4 header: more fragments follow, or some come before; and there may be none.
const FRAGMENT: u16 = 0x3fff;
const DONT_FRAGMENT: u16 = 0x4000;

/// A packet of either family. The words are those of IPv4: TOS is IPv6's traffic class, TTL its hop limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Either {
    /// DSCP and ECN.
    pub tos: u8,
    /// Time to live.
    pub ttl: u8,
    /// Protocol number of the payload.
    pub protocol: u8,
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// Whether it is one of several fragments.
    pub fragment: bool,
    /// Whether its header says that nobody may fragment it. IPv6's says nothing: no router does.
    pub must_stay_whole: bool,
    /// IPv6's flow label; IPv4 has none.
    pub label: Option<u32>,
    /// What follows the headers.
    pub payload: Vec<u8>,
}

/// An error that ICMP reports to the sender of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Complaint {
    /// The TTL has come to its end in transit.
    TimeExceeded,
    /// The packet does not fit, and may not be cut up on its way.
    TooBig {
        /// What does fit, in bytes.
        mtu: u32,
    },
    /// Nobody listens on the port.
    PortUnreachable,
}

impl Either {
    /// Reads the packet in an Ethernet frame; `None` when it is neither IPv4 nor IPv6.
    #[must_use]
    pub fn in_frame(frame: &[u8]) -> Option<Self> {
        Ipv4::in_frame(frame).map(Self::from).or_else(|| Ipv6::in_frame(frame).map(Self::from))
    }

    /// What the packet complains of; `None` when that is none of [`Complaint`], or its checksum is wrong.
    #[must_use]
    pub fn complaint(&self) -> Option<Complaint> {
        let &[kind, code, _, _, a, b, c, d, ..] = self.payload.as_slice() else { return None };
        let is_right = match self.protocol {
            PROTO_ICMP => internet_checksum(&self.payload) == 0,
            PROTO_ICMPV6 => is_checksum_right(self.source, self.destination, PROTO_ICMPV6, &self.payload),
            _ => false,
        };
        is_right.then_some(())?;
        match (self.protocol, kind, code) {
            (PROTO_ICMP, 11, 0) | (PROTO_ICMPV6, 3, 0) => Some(Complaint::TimeExceeded),
            (PROTO_ICMP, 3, 4) => Some(Complaint::TooBig { mtu: u16::from_be_bytes([c, d]).into() }),
            (PROTO_ICMPV6, 2, 0) => Some(Complaint::TooBig { mtu: u32::from_be_bytes([a, b, c, d]) }),
            (PROTO_ICMP, 3, 3) | (PROTO_ICMPV6, 1, 4) => Some(Complaint::PortUnreachable),
            _ => None,
        }
    }
}

impl From<Ipv4> for Either {
    fn from(packet: Ipv4) -> Self {
        let Ipv4 { tos, ttl, protocol, flags_and_offset, payload, .. } = packet;
        let (source, destination) = (packet.source.into(), packet.destination.into());
        let (fragment, must_stay_whole) = (flags_and_offset & FRAGMENT != 0, flags_and_offset & DONT_FRAGMENT != 0);
        Self { tos, ttl, protocol, source, destination, fragment, must_stay_whole, label: None, payload }
    }
}

impl From<Ipv6> for Either {
    fn from(packet: Ipv6) -> Self {
        let Ipv6 { traffic_class: tos, hop_limit: ttl, flow_label, protocol, extensions, payload, .. } = packet;
        let (source, destination) = (packet.source.into(), packet.destination.into());
        let fragment = extensions.iter().any(|extension| extension.kind == Extension::FRAGMENT);
        let (must_stay_whole, label) = (false, Some(flow_label));
        Self { tos, ttl, protocol, source, destination, fragment, must_stay_whole, label, payload }
    }
}
