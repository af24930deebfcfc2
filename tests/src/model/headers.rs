//! Headers as the RFCs draw them, read from byte slices.

use std::net::Ipv4Addr;

use super::{IDENTIFICATION, SOURCE_PORT};
use crate::packets::internet_checksum;

/// Length in bytes of an Ethernet header.
const ETHERNET: usize = 14;
/// Length in bytes of an IPv4 header without options.
pub(super) const IPV4: usize = 20;
/// Length in bytes of a UDP header.
pub(super) const UDP: usize = 8;
/// Length in bytes of a VXLAN header.
const VXLAN: usize = 8;

fn word(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("the slice has this length")
}

/// An Ethernet frame (IEEE 802.3, without its check sequence).
pub(super) struct Ethernet<'a> {
    pub(super) destination: [u8; 6],
    pub(super) header: &'a [u8],
    pub(super) ether_type: u16,
    pub(super) payload: &'a [u8],
}

impl<'a> Ethernet<'a> {
    /// `None` when the bytes end inside the header.
    pub(super) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let (header, payload) = bytes.split_at_checked(ETHERNET)?;
        Some(Self { destination: array(header, 0), header, ether_type: word(header, 12), payload })
    }
}

/// An IPv4 header (RFC 791, section 3.1) and all bytes that are here from its first on.
#[derive(Clone, Copy)]
pub(super) struct Ipv4<'a>(&'a [u8]);

impl<'a> Ipv4<'a> {
    /// `None` when the bytes end inside the fixed part of the header.
    pub(super) fn parse(bytes: &'a [u8]) -> Option<Self> {
        (bytes.len() >= IPV4).then_some(Self(bytes))
    }

    pub(super) fn bytes(self) -> &'a [u8] {
        self.0
    }

    pub(super) fn version(self) -> u8 {
        self.0[0] >> 4
    }

    /// In bytes.
    pub(super) fn header_len(self) -> usize {
        usize::from(self.0[0] & 0x0f) * 4
    }

    /// Whether an IP stack would read on: the right version, and at least the fixed part of a header.
    pub(super) fn is_well_formed(self) -> bool {
        self.version() == 4 && self.header_len() >= IPV4
    }

    pub(super) fn tos(self) -> u8 {
        self.0[1]
    }

    /// As the header says it, in bytes.
    pub(super) fn total_len(self) -> usize {
        usize::from(word(self.0, 2))
    }

    pub(super) fn id(self) -> u16 {
        word(self.0, 4)
    }

    pub(super) fn more_fragments(self) -> bool {
        word(self.0, 6) & 0x2000 != 0
    }

    pub(super) fn fragment_offset(self) -> u16 {
        word(self.0, 6) & 0x1fff
    }

    pub(super) fn protocol(self) -> u8 {
        self.0[9]
    }

    pub(super) fn source(self) -> Ipv4Addr {
        array::<4>(self.0, 12).into()
    }

    pub(super) fn destination(self) -> Ipv4Addr {
        array::<4>(self.0, 16).into()
    }

    /// The bytes with another TOS and the checksum changed by the difference, so that a wrong one stays wrong
    /// (RFC 1624, equation 3).
    pub(super) fn with_tos(self, tos: u8) -> Vec<u8> {
        let mut bytes = self.0.to_vec();
        if tos == self.tos() {
            return bytes;
        }
        let old = word(&bytes, 0);
        bytes[1] = tos;
        let sum = ones_complement_sum(&[!word(&bytes, 10), !old, word(&bytes, 0)]);
        bytes[10..12].copy_from_slice(&(!sum).to_be_bytes());
        bytes
    }
}

fn ones_complement_sum(words: &[u16]) -> u16 {
    words.iter().fold(0, |sum: u16, word| match sum.overflowing_add(*word) {
        (sum, false) => sum,
        (sum, true) => sum + 1,
    })
}

/// A UDP header (RFC 768).
pub(super) struct Udp {
    pub(super) destination_port: u16,
    /// As the header says it, in bytes.
    pub(super) length: usize,
}

impl Udp {
    /// `None` when the bytes end inside the header.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let header = bytes.get(..UDP)?;
        Some(Self { destination_port: word(header, 2), length: usize::from(word(header, 4)) })
    }
}

/// A VXLAN header (RFC 7348, section 5) and the frame behind it. Reserved fields are ignored, as it asks.
pub(super) struct Vxlan<'a> {
    pub(super) flags: u8,
    pub(super) vni: u32,
    pub(super) frame: &'a [u8],
}

impl<'a> Vxlan<'a> {
    /// `None` when the bytes end inside the header.
    pub(super) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let (header, frame) = bytes.split_at_checked(VXLAN)?;
        Some(Self { flags: header[0], vni: u32::from_be_bytes(array(header, 4)) >> 8, frame })
    }
}

/// An outer packet as the model writes it: what the node may choose is checked and then replaced.
///
/// # Errors
/// What is wrong with the node's choice, or with the checksum of the outer header.
pub fn canonical(outer: &[u8]) -> Result<Vec<u8>, String> {
    let (ip, udp) = (ETHERNET, ETHERNET + IPV4);
    let mut bytes = outer.to_vec();
    if bytes.len() < udp + UDP {
        return Err("the outer headers are not whole".to_owned());
    }
    let port = word(&bytes, udp);
    if port < SOURCE_PORT {
        return Err(format!("the outer source port {port} is below the dynamic range"));
    }
    if internet_checksum(&bytes[ip..udp]) != 0 {
        return Err("the checksum of the outer header is wrong".to_owned());
    }
    bytes[udp..udp + 2].copy_from_slice(&SOURCE_PORT.to_be_bytes());
    bytes[ip + 4..ip + 6].copy_from_slice(&IDENTIFICATION.to_be_bytes());
    bytes[ip + 10..ip + 12].copy_from_slice(&[0; 2]);
    let checksum = internet_checksum(&bytes[ip..udp]);
    bytes[ip + 10..ip + 12].copy_from_slice(&checksum.to_be_bytes());
    Ok(bytes)
}
