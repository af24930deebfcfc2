//! Headers around IP's as the RFCs draw them, read from byte slices.

use super::{FLOW_LABEL, Family, IDENTIFICATION, SOURCE_PORT};
use crate::packets::internet_checksum;

/// Length in bytes of an Ethernet header.
const ETHERNET: usize = 14;
/// Length in bytes of a UDP header.
pub(super) const UDP: usize = 8;
/// Length in bytes of a VXLAN header.
const VXLAN: usize = 8;

pub(super) fn word(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

pub(super) fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
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
    let mut bytes = outer.to_vec();
    let frame = Ethernet::parse(outer).ok_or("the Ethernet header is not whole")?;
    let family = Family::of_ether_type(frame.ether_type).ok_or("neither IPv4 nor IPv6")?;
    let (ip, udp) = (ETHERNET, ETHERNET + family.header_len());
    if bytes.len() < udp + UDP {
        return Err("the outer headers are not whole".to_owned());
    }
    let port = word(&bytes, udp);
    if port < SOURCE_PORT {
        return Err(format!("the outer source port {port} is below the dynamic range"));
    }
    bytes[udp..udp + 2].copy_from_slice(&SOURCE_PORT.to_be_bytes());
    match family {
        Family::V4 => {
            if internet_checksum(&bytes[ip..udp]) != 0 {
                return Err("the checksum of the outer header is wrong".to_owned());
            }
            bytes[ip + 4..ip + 6].copy_from_slice(&IDENTIFICATION.to_be_bytes());
            bytes[ip + 10..ip + 12].copy_from_slice(&[0; 2]);
            let checksum = internet_checksum(&bytes[ip..udp]);
            bytes[ip + 10..ip + 12].copy_from_slice(&checksum.to_be_bytes());
        }
        Family::V6 => {
            let first = u32::from_be_bytes(array(&bytes, ip)) & !0xf_ffff | FLOW_LABEL;
            bytes[ip..ip + 4].copy_from_slice(&first.to_be_bytes());
        }
    }
    Ok(bytes)
}
