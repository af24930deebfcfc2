//! [`Ip`]: a packet of either family, and what any sender may do to it.

use std::net::IpAddr;

use overlay_tests::packets::{ETHER_IPV4, ETHER_IPV6, Extension, Ipv4, Ipv6};

use crate::chance::Chance;

/// Flags and fragment offset of IPv4: DF, first, later and last fragment, the reserved bit, all of it.
const FRAGMENTS: [u16; 7] = [0x4000, 0x2000, 0x20b9, 0x00b9, 0x8000, 0x0001, 0xffff];

/// A packet of either family.
pub(super) enum Ip {
    V4(Ipv4),
    V6(Ipv6),
}

impl Ip {
    /// A packet between two addresses of one family.
    pub(super) fn new(source: IpAddr, destination: IpAddr, protocol: u8, payload: Vec<u8>, tos: u8) -> Self {
        match (source, destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                Self::V4(Ipv4 { tos, ..Ipv4::new(source, destination, protocol, payload) })
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                Self::V6(Ipv6 { traffic_class: tos, ..Ipv6::new(source, destination, protocol, payload) })
            }
            _ => panic!("{source} and {destination} are of two families"),
        }
    }

    pub(super) fn ether_type(&self) -> u16 {
        match self {
            Self::V4(_) => ETHER_IPV4,
            Self::V6(_) => ETHER_IPV6,
        }
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        match self {
            Self::V4(ip) => ip.bytes(),
            Self::V6(ip) => ip.bytes(),
        }
    }

    /// What any sender may do to a header, and some lies.
    pub(super) fn vary(&mut self, chance: &mut Chance) {
        match self {
            Self::V4(ip) => vary_v4(chance, ip),
            Self::V6(ip) => vary_v6(chance, ip),
        }
    }
}

/// A packet between containers, with what it carries.
pub(super) fn inner(chance: &mut Chance, source: IpAddr, destination: IpAddr, carried: (u8, Vec<u8>)) -> Ip {
    let mut ip = Ip::new(source, destination, carried.0, carried.1, chance.byte());
    let (id, hops) = (chance.word(), chance.pick(&[0, 1, 63, 64, 255]));
    match &mut ip {
        Ip::V4(ip) => (ip.id, ip.ttl) = (id, hops),
        Ip::V6(ip) => (ip.flow_label, ip.hop_limit) = (u32::from(id) << 4 | u32::from(id & 0xf), hops),
    }
    ip.vary(chance);
    if let Ip::V4(ip) = &mut ip
        && chance.one_in(8)
    {
        ip.id = id_for_no_checksum(ip);
    }
    ip
}

/// The identification that makes the header's checksum 0: a change of the header then carries twice.
fn id_for_no_checksum(ip: &Ipv4) -> u16 {
    let header = Ipv4 { id: 0, ..ip.clone() }.bytes();
    u16::from_be_bytes([header[10], header[11]])
}

fn vary_v4(chance: &mut Chance, ip: &mut Ipv4) {
    if chance.one_in(6) {
        ip.options = vec![1; 4 * (1 + chance.below(10))];
    }
    if chance.one_in(6) {
        ip.flags_and_offset = chance.pick(&FRAGMENTS);
    }
    if chance.one_in(40) {
        ip.version_and_length = Some(chance.pick(&[0x00, 0x40, 0x44, 0x46, 0x4f, 0x55, 0x65, 0x6f, 0xf5]));
    }
    if chance.one_in(40) {
        ip.total_length = Some(lie(chance, 20, (20 + ip.options.len() + ip.payload.len()) as u16));
    }
}

fn vary_v6(chance: &mut Chance, ip: &mut Ipv6) {
    if chance.one_in(6) {
        let kinds = [Extension::HOP_BY_HOP, Extension::ROUTING, Extension::DESTINATION];
        ip.extensions.push(Extension::padding(chance.pick(&kinds)));
    }
    if chance.one_in(6) {
        let (offset, more) = chance.pick(&[(0, true), (23, true), (23, false), (0, false), (0x1fff, true)]);
        ip.extensions.push(Extension::fragment(offset, more, 7));
    }
    if chance.one_in(40) {
        ip.version = Some(chance.pick(&[0, 4, 5, 7, 15]));
    }
    if chance.one_in(40) {
        let extensions: usize = ip.extensions.iter().map(|extension| 1 + extension.body.len()).sum();
        ip.payload_length = Some(lie(chance, 0, (extensions + ip.payload.len()) as u16));
    }
}

/// What a length field that should say `length` may say instead, where the header itself is `least`.
fn lie(chance: &mut Chance, least: u16, length: u16) -> u16 {
    let lies =
        [0, least.saturating_sub(1), least, least + 1, length.wrapping_sub(1), length + 1, length + 30, 0x7fff, 0xffff];
    chance.pick(&lies)
}
