//! What IP packets of either version carry.

use std::net::IpAddr;

use bytes::{BufMut as _, BytesMut};

use super::{PROTO_ICMPV6, PROTO_TCP, PROTO_UDP, internet_checksum};

/// ICMPv6's echo request (RFC 4443).
const ECHO_REQUEST_V6: u8 = 128;

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

/// A TCP segment that asks for a connection (SYN), without a checksum.
#[must_use]
pub fn tcp(source_port: u16, destination_port: u16) -> Vec<u8> {
    let mut bytes = BytesMut::new();
    bytes.put_u16(source_port);
    bytes.put_u16(destination_port);
    bytes.put_u32(1);
    bytes.put_u32(0);
    bytes.put_u16(0x5002);
    bytes.put_u16(0xffff);
    bytes.put_u32(0);
    bytes.to_vec()
}

/// An echo request of ICMPv6, without a checksum.
#[must_use]
pub fn echo_request(id: u16, sequence: u16, data: &[u8]) -> Vec<u8> {
    let mut bytes = BytesMut::new();
    bytes.put_slice(&[ECHO_REQUEST_V6, 0, 0, 0]);
    bytes.put_u16(id);
    bytes.put_u16(sequence);
    bytes.put_slice(data);
    bytes.to_vec()
}

/// The `segment` of `protocol` with its checksum, as it goes from `source` to `destination`.
///
/// # Panics
///
/// When `protocol` is none of those above, or the segment ends in its header.
#[must_use]
pub fn checksummed(
    source: impl Into<IpAddr>,
    destination: impl Into<IpAddr>,
    protocol: u8,
    mut segment: Vec<u8>,
) -> Vec<u8> {
    let at = match protocol {
        PROTO_TCP => 16,
        PROTO_UDP => 6,
        PROTO_ICMPV6 => 2,
        _ => panic!("protocol {protocol} has no checksum over a pseudo header"),
    };
    segment[at..at + 2].copy_from_slice(&[0, 0]);
    let checksum = match over_pseudo_header(source.into(), destination.into(), protocol, &segment) {
        // UDP's 0 says that there is none (RFC 768).
        0 if protocol == PROTO_UDP => 0xffff,
        checksum => checksum,
    };
    segment[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
    segment
}

/// Whether the checksum in `segment` is that of what was sent.
#[must_use]
pub fn is_checksum_right(
    source: impl Into<IpAddr>,
    destination: impl Into<IpAddr>,
    protocol: u8,
    segment: &[u8],
) -> bool {
    over_pseudo_header(source.into(), destination.into(), protocol, segment) == 0
}

/// The internet checksum of a segment and its pseudo header. IPv6's (RFC 8200, section 8.1) has the same numbers in it as
/// IPv4's (RFC 9293, section 3.1), in places that do not matter to the sum.
fn over_pseudo_header(source: IpAddr, destination: IpAddr, protocol: u8, segment: &[u8]) -> u16 {
    let mut bytes = BytesMut::new();
    for address in [source, destination] {
        match address {
            IpAddr::V4(v4) => bytes.put_slice(&v4.octets()),
            IpAddr::V6(v6) => bytes.put_slice(&v6.octets()),
        }
    }
    bytes.put_u32(segment.len() as u32);
    bytes.put_u32(protocol.into());
    bytes.put_slice(segment);
    internet_checksum(&bytes)
}
