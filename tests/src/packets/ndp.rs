//! Neighbour discovery (RFC 4861): what IPv6 has in place of ARP.

use std::net::Ipv6Addr;

use bytes::{BufMut as _, BytesMut};

use super::{Ipv6, PROTO_ICMPV6, checksummed};

/// A hop limit that no router leaves as it is: a message with another has come from elsewhere.
const HOP_LIMIT: u8 = 255;

/// "I was asked", and "believe me rather than what you know".
const SOLICITED_OVERRIDE: u8 = 0x60;

/// ICMPv6 types.
const ROUTER_ADVERTISEMENT: u8 = 134;
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;

/// The option with the Ethernet address of who asks, and of whom is asked for.
const SOURCE_ADDRESS: u8 = 1;
const TARGET_ADDRESS: u8 = 2;

/// A neighbour's question or answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Neighbour {
    /// Who has `target`? Asked by the interface with the address `mac`.
    Solicitation {
        /// The address that is looked for.
        target: Ipv6Addr,
        /// Who asks.
        mac: [u8; 6],
    },
    /// The interface with the address `mac` has `target`.
    Advertisement {
        /// The address that was looked for.
        target: Ipv6Addr,
        /// Who has it.
        mac: [u8; 6],
    },
}

impl Neighbour {
    /// The ICMPv6 message, without a checksum.
    #[must_use]
    pub fn message(self) -> Vec<u8> {
        let (kind, flags, target, option, mac) = match self {
            Self::Solicitation { target, mac } => (SOLICITATION, 0, target, SOURCE_ADDRESS, mac),
            Self::Advertisement { target, mac } => (ADVERTISEMENT, SOLICITED_OVERRIDE, target, TARGET_ADDRESS, mac),
        };
        let mut bytes = BytesMut::new();
        bytes.put_slice(&[kind, 0, 0, 0, flags, 0, 0, 0]);
        bytes.put_slice(&target.octets());
        put_address(&mut bytes, option, mac);
        bytes.to_vec()
    }

    /// Reads the message in `packet`; `None` when it is none, or lacks the Ethernet address.
    #[must_use]
    pub fn parse(packet: &Ipv6) -> Option<Self> {
        let message = (packet.protocol == PROTO_ICMPV6).then_some(&packet.payload)?;
        let target = Ipv6Addr::from(*message.get(8..)?.first_chunk::<16>()?);
        let option = message.get(24..)?.first_chunk::<8>()?;
        let mac = *option.last_chunk::<6>()?;
        match (message[0], [option[0], option[1]]) {
            (SOLICITATION, [SOURCE_ADDRESS, 1]) => Some(Self::Solicitation { target, mac }),
            (ADVERTISEMENT, [TARGET_ADDRESS, 1]) => Some(Self::Advertisement { target, mac }),
            _ => None,
        }
    }
}

/// A router's word to all on its link: it is one for `lifetime` seconds, and `prefix`/64 is on the link, without a
/// checksum.
#[must_use]
pub fn router_advertisement(mac: [u8; 6], prefix: Ipv6Addr, lifetime: u16) -> Vec<u8> {
    let mut bytes = BytesMut::new();
    bytes.put_slice(&[ROUTER_ADVERTISEMENT, 0, 0, 0, HOP_LIMIT, 0]);
    bytes.put_u16(lifetime);
    // Neither how long neighbours are reachable nor how often they are to be asked.
    bytes.put_u64(0);
    put_address(&mut bytes, SOURCE_ADDRESS, mac);
    // Prefix information: on-link, for addresses that hosts make themselves; valid and preferred for an hour.
    bytes.put_slice(&[3, 4, 64, 0xc0]);
    bytes.put_u32(3600);
    bytes.put_u32(3600);
    bytes.put_u32(0);
    bytes.put_slice(&prefix.octets());
    bytes.to_vec()
}

fn put_address(bytes: &mut BytesMut, option: u8, mac: [u8; 6]) {
    bytes.put_slice(&[option, 1]);
    bytes.put_slice(&mac);
}

/// The packet with such a `message`, whole.
#[must_use]
pub fn packet(source: Ipv6Addr, destination: Ipv6Addr, message: Vec<u8>) -> Ipv6 {
    let message = checksummed(source, destination, PROTO_ICMPV6, message);
    Ipv6 { hop_limit: HOP_LIMIT, ..Ipv6::new(source, destination, PROTO_ICMPV6, message) }
}

/// The multicast address that whoever has `address` listens to (RFC 4291, section 2.7.1).
#[must_use]
pub fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = address.octets();
    let mut octets = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00, 0).octets();
    octets[13..].copy_from_slice(&[a, b, c]);
    octets.into()
}

/// The Ethernet address of a multicast address (RFC 2464, section 7).
#[must_use]
pub fn multicast_mac(address: Ipv6Addr) -> [u8; 6] {
    let [.., a, b, c, d] = address.octets();
    [0x33, 0x33, a, b, c, d]
}
