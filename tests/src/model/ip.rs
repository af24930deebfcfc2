//! [`Ip`]: a header of either version of IP.

use std::net::IpAddr;

use super::{
    Family,
    headers::{array, word},
};
use crate::packets::{ETHER_IPV4, ETHER_IPV6, Extension, PROTO_ICMP, PROTO_ICMPV6, PROTO_UDP};

impl Family {
    /// The family that an EtherType names.
    pub(super) fn of_ether_type(ether_type: u16) -> Option<Self> {
        [Self::V4, Self::V6].into_iter().find(|family| family.ether_type() == ether_type)
    }

    /// The EtherType of its packets.
    pub(super) const fn ether_type(self) -> u16 {
        match self {
            Self::V4 => ETHER_IPV4,
            Self::V6 => ETHER_IPV6,
        }
    }

    /// Length in bytes of a header without options.
    pub(super) const fn header_len(self) -> usize {
        match self {
            Self::V4 => 20,
            Self::V6 => 40,
        }
    }

    /// Protocol number of its ICMP.
    pub(super) const fn icmp(self) -> u8 {
        match self {
            Self::V4 => PROTO_ICMP,
            Self::V6 => PROTO_ICMPV6,
        }
    }
}

/// An IP header (RFC 791, section 3.1; RFC 8200, section 3) and all bytes that are here from its first on.
///
/// Of IPv6 it is the fixed header alone: who asks for a protocol behind extension headers does not find it, and leaves the
/// packet to the kernel.
#[derive(Clone, Copy)]
pub(super) struct Ip<'a> {
    family: Family,
    bytes: &'a [u8],
}

impl<'a> Ip<'a> {
    /// `None` when the bytes end inside the fixed part of the header.
    pub(super) fn parse(family: Family, bytes: &'a [u8]) -> Option<Self> {
        (bytes.len() >= family.header_len()).then_some(Self { family, bytes })
    }

    pub(super) fn family(self) -> Family {
        self.family
    }

    pub(super) fn bytes(self) -> &'a [u8] {
        self.bytes
    }

    fn version(self) -> u8 {
        self.bytes[0] >> 4
    }

    /// In bytes, options included and extension headers not.
    pub(super) fn header_len(self) -> usize {
        match self.family {
            Family::V4 => usize::from(self.bytes[0] & 0x0f) * 4,
            Family::V6 => Family::V6.header_len(),
        }
    }

    /// Whether an IP stack would read on: the right version, and at least the fixed part of a header.
    pub(super) fn is_well_formed(self) -> bool {
        let version = match self.family {
            Family::V4 => 4,
            Family::V6 => 6,
        };
        self.version() == version && self.header_len() >= self.family.header_len()
    }

    /// DSCP and ECN.
    pub(super) fn tos(self) -> u8 {
        match self.family {
            Family::V4 => self.bytes[1],
            Family::V6 => (word(self.bytes, 0) >> 4) as u8,
        }
    }

    /// Header and payload as the header says it, in bytes.
    pub(super) fn total_len(self) -> usize {
        match self.family {
            Family::V4 => usize::from(word(self.bytes, 2)),
            Family::V6 => Family::V6.header_len() + usize::from(word(self.bytes, 4)),
        }
    }

    /// Whether the length field is 0, as in a super-packet of more than 64 KiB.
    pub(super) fn is_of_no_length(self) -> bool {
        match self.family {
            Family::V4 => word(self.bytes, 2) == 0,
            Family::V6 => word(self.bytes, 4) == 0,
        }
    }

    /// IPv4's identification; 0 for IPv6, which has none.
    pub(super) fn id(self) -> u16 {
        match self.family {
            Family::V4 => word(self.bytes, 4),
            Family::V6 => 0,
        }
    }

    /// Flags and fragment offset of IPv4.
    fn fragmentation(self) -> u16 {
        match self.family {
            Family::V4 => word(self.bytes, 6),
            Family::V6 => 0,
        }
    }

    fn fragment_offset(self) -> u16 {
        self.fragmentation() & 0x1fff
    }

    /// The UDP datagram that stands behind the header, or the beginning of one; `None`: there is none. IPv6's fragment header
    /// (RFC 8200, section 4.5) may stand in front of it, and makes a fragment even of a packet that is whole.
    pub(super) fn datagram(self) -> Option<Datagram> {
        let header = self.header_len();
        let (protocol, offset, datagram) = match self.family {
            Family::V6 if self.protocol() == Extension::FRAGMENT => {
                let fragment = array::<8>(self.bytes.get(..header + 8)?, header);
                (fragment[0], word(&fragment, 2) >> 3, Datagram { at: header + 8, is_fragment: true })
            }
            _ => {
                let more_fragments = self.fragmentation() & 0x2000 != 0;
                (self.protocol(), self.fragment_offset(), Datagram { at: header, is_fragment: more_fragments })
            }
        };
        // Only the first fragment has a UDP header; the others are nothing without it.
        (protocol == PROTO_UDP && offset == 0).then_some(datagram)
    }

    /// What the header says stands behind it.
    pub(super) fn protocol(self) -> u8 {
        match self.family {
            Family::V4 => self.bytes[9],
            Family::V6 => self.bytes[6],
        }
    }

    /// Whether nothing stands between the fixed part of the header and the beginning of what the packet carries.
    pub(super) fn is_plain(self) -> bool {
        match self.family {
            Family::V4 => self.header_len() == Family::V4.header_len() && self.fragment_offset() == 0,
            Family::V6 => !Extension::KINDS.contains(&self.protocol()),
        }
    }

    pub(super) fn source(self) -> IpAddr {
        match self.family {
            Family::V4 => array::<4>(self.bytes, 12).into(),
            Family::V6 => array::<16>(self.bytes, 8).into(),
        }
    }

    pub(super) fn destination(self) -> IpAddr {
        match self.family {
            Family::V4 => array::<4>(self.bytes, 16).into(),
            Family::V6 => array::<16>(self.bytes, 24).into(),
        }
    }

    /// The bytes with another TOS. IPv4's checksum is changed by the difference, so that a wrong one stays wrong (RFC 1624,
    /// equation 3).
    pub(super) fn with_tos(self, tos: u8) -> Vec<u8> {
        let mut bytes = self.bytes.to_vec();
        if tos == self.tos() {
            return bytes;
        }
        match self.family {
            Family::V4 => {
                let old = word(&bytes, 0);
                bytes[1] = tos;
                let sum = ones_complement_sum(&[!word(&bytes, 10), !old, word(&bytes, 0)]);
                bytes[10..12].copy_from_slice(&(!sum).to_be_bytes());
            }
            Family::V6 => {
                let first = word(&bytes, 0) & 0xf00f | u16::from(tos) << 4;
                bytes[..2].copy_from_slice(&first.to_be_bytes());
            }
        }
        bytes
    }
}

/// A UDP datagram in an IP packet, or the beginning of one.
#[derive(Clone, Copy)]
pub(super) struct Datagram {
    /// Where its header begins, in bytes from the IP header.
    pub(super) at: usize,
    /// Whether more of it is to come in other packets.
    pub(super) is_fragment: bool,
}

fn ones_complement_sum(words: &[u16]) -> u16 {
    words.iter().fold(0, |sum: u16, word| match sum.overflowing_add(*word) {
        (sum, false) => sum,
        (sum, true) => sum + 1,
    })
}
