//! [`Header`]: the IP header of a packet, of either family.

use std::net::IpAddr;

use anyhow::{Context as _, Result, bail};
use etherparse::{EtherType, IpNumber, Ipv4Header, Ipv6Header};

/// An IP header: of IPv4 with its options, of IPv6 without the extensions that follow it.
#[derive(Debug, Clone)]
pub(super) enum Header {
    V4(Ipv4Header),
    V6(Ipv6Header),
}

impl Header {
    /// Reads the header that a packet begins with.
    ///
    /// # Errors
    /// When it begins with none.
    pub(super) fn read(packet: &[u8]) -> Result<Self> {
        match packet.first().map(|first| first >> 4) {
            Some(4) => Ok(Self::V4(Ipv4Header::from_slice(packet).context("read the IPv4 header")?.0)),
            Some(6) => Ok(Self::V6(Ipv6Header::from_slice(packet).context("read the IPv6 header")?.0)),
            _ => bail!("read the IP header: it is of neither family"),
        }
    }

    pub(super) fn source(&self) -> IpAddr {
        match self {
            Self::V4(header) => header.source.into(),
            Self::V6(header) => header.source.into(),
        }
    }

    pub(super) fn destination(&self) -> IpAddr {
        match self {
            Self::V4(header) => header.destination.into(),
            Self::V6(header) => header.destination.into(),
        }
    }

    /// What an Ethernet header calls the family.
    pub(super) const fn ether_type(&self) -> EtherType {
        match self {
            Self::V4(_) => EtherType::IPV4,
            Self::V6(_) => EtherType::IPV6,
        }
    }

    /// What follows it.
    pub(super) const fn next(&self) -> IpNumber {
        match self {
            Self::V4(header) => header.protocol,
            Self::V6(header) => header.next_header,
        }
    }

    /// IPv4's TTL, IPv6's hop limit.
    pub(super) const fn ttl(&self) -> u8 {
        match self {
            Self::V4(header) => header.time_to_live,
            Self::V6(header) => header.hop_limit,
        }
    }

    /// DSCP and ECN: IPv4's TOS byte, IPv6's traffic class.
    pub(super) const fn tos(&self) -> u8 {
        match self {
            Self::V4(header) => header.dscp.value() << 2 | header.ecn.value(),
            Self::V6(header) => header.traffic_class,
        }
    }

    /// Length in bytes of the packet, by its own word.
    pub(super) fn packet_len(&self) -> usize {
        match self {
            Self::V4(header) => header.total_len.into(),
            Self::V6(header) => Ipv6Header::LEN + usize::from(header.payload_length),
        }
    }

    /// Whether routers may cut the packet into fragments; of IPv6 they never do.
    pub(super) const fn may_be_fragmented(&self) -> bool {
        match self {
            Self::V4(header) => !header.dont_fragment,
            Self::V6(_) => false,
        }
    }

    /// As a router hands it on: its TTL is lower by one.
    pub(super) fn forwarded(&self) -> Self {
        let mut header = self.clone();
        match &mut header {
            Self::V4(header) => {
                header.time_to_live = header.time_to_live.saturating_sub(1);
                header.header_checksum = header.calc_header_checksum();
            }
            Self::V6(header) => header.hop_limit = header.hop_limit.saturating_sub(1),
        }
        header
    }

    /// The header as it is on the wire.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        match self {
            Self::V4(header) => header.to_bytes().to_vec(),
            Self::V6(header) => header.to_bytes().to_vec(),
        }
    }
}
