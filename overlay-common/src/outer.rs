//! The outer headers as values: built whole, then stored in front of the packet in one go.

use core::net::Ipv4Addr;

use network_types::{
    eth::{EthHdr, EtherType},
    ip::{IpProto, Ipv4Hdr},
    udp::UdpHdr,
    vxlan::VxlanHdr,
};

use crate::{Route, Vtep};

/// Length in bytes of an IPv4 header without options: the only kind that encap writes.
pub const IPV4_HEADER: usize = Ipv4Hdr::LEN;

/// TTL of the outer header, as Linux gives its own tunnels.
const OUTER_TTL: u8 = 64;

/// What the outer headers take from the packet that they will carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlowLabel {
    /// Hash over the inner flow; its packets keep one outer source port, so that they stay in order, and
    /// different flows spread over receive queues and equal-cost paths (RFC 7348, section 5).
    pub hash: u32,
    /// The inner TOS byte: the outer header copies DSCP and ECN (RFC 6040, normal mode).
    pub tos: u8,
    /// IPv4 identification of the outer packet. DF is off, so routers may fragment and the value must vary.
    pub id: u16,
}

impl FlowLabel {
    /// The outer UDP source port, in 49152..=65535.
    #[must_use]
    #[inline(always)]
    pub const fn source_port(&self) -> u16 {
        let folded = (self.hash ^ (self.hash >> 16)) as u16;
        0xc000 | (folded & 0x3fff)
    }
}

/// Outer headers of the `udp` encapsulation: the inner IP packet follows at once.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct UdpHeaders {
    ip: Ipv4Hdr,
    udp: UdpHdr,
}

const _: () = assert!(size_of::<UdpHeaders>() == 28 && align_of::<UdpHeaders>() == 1);

impl UdpHeaders {
    /// Length in bytes.
    pub const LEN: usize = size_of::<Self>();

    /// Headers from `local` to `route` for an inner packet of `inner_len` bytes.
    ///
    /// The UDP checksum is 0, "none": the inner packet carries its own (RFC 768; RFC 7348 asks the same).
    #[must_use]
    #[inline(always)]
    pub fn new(local: &Vtep, route: &Route, inner_len: u16, flow: FlowLabel) -> Self {
        let udp_len = inner_len.wrapping_add(UdpHdr::LEN as u16);
        Self {
            ip: outer_ip(local.address, route.next_hop(), udp_len, flow),
            udp: UdpHdr {
                src: flow.source_port().to_be_bytes(),
                dst: local.port.to_be_bytes(),
                len: udp_len.to_be_bytes(),
                check: [0; 2],
            },
        }
    }
}

/// Outer headers of the VXLAN encapsulation, inner Ethernet header included: the inner IP packet follows.
#[repr(C, packed)]
#[derive(Debug, Clone, Copy)]
pub struct VxlanHeaders {
    outer: UdpHeaders,
    vxlan: VxlanHdr,
    inner_eth: EthHdr,
}

const _: () = assert!(size_of::<VxlanHeaders>() == 50);

impl VxlanHeaders {
    /// Length in bytes.
    pub const LEN: usize = size_of::<Self>();
    /// Length in bytes of what stands between the UDP header and the inner IP packet.
    pub const INNER_OFFSET: usize = VxlanHdr::LEN + EthHdr::LEN;

    /// Headers from `local` to `route` for an inner IP packet of `inner_len` bytes.
    #[must_use]
    #[inline(always)]
    pub fn new(local: &Vtep, route: &Route, inner_len: u16, flow: FlowLabel) -> Self {
        let frame_len = inner_len.wrapping_add(Self::INNER_OFFSET as u16);
        Self {
            outer: UdpHeaders::new(local, route, frame_len, flow),
            vxlan: VxlanHdr::new(local.vni),
            inner_eth: EthHdr::new(route.vtep_mac(), local.mac, EtherType::Ipv4),
        }
    }
}

#[inline(always)]
fn outer_ip(source: Ipv4Addr, destination: Ipv4Addr, payload_len: u16, flow: FlowLabel) -> Ipv4Hdr {
    let mut ip = Ipv4Hdr {
        vihl: 0x45,
        tos: flow.tos,
        tot_len: payload_len.wrapping_add(Ipv4Hdr::LEN as u16).to_be_bytes(),
        id: flow.id.to_be_bytes(),
        frags: [0; 2],
        ttl: OUTER_TTL,
        proto: IpProto::Udp as u8,
        check: [0; 2],
        src_addr: source.octets(),
        dst_addr: destination.octets(),
    };
    ip.check = ipv4_checksum(&ip);
    ip
}

/// The checksum of an IPv4 header without options, in network order; its own field counts as zero (RFC 1071).
#[must_use]
#[inline(always)]
pub fn ipv4_checksum(ip: &Ipv4Hdr) -> [u8; 2] {
    let word = |bytes: [u8; 2]| u32::from(u16::from_be_bytes(bytes));
    let [s0, s1, s2, s3] = ip.src_addr;
    let [d0, d1, d2, d3] = ip.dst_addr;
    let sum = word([ip.vihl, ip.tos])
        + word(ip.tot_len)
        + word(ip.id)
        + word(ip.frags)
        + word([ip.ttl, ip.proto])
        + word([s0, s1])
        + word([s2, s3])
        + word([d0, d1])
        + word([d2, d3]);
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    (!(folded as u16)).to_be_bytes()
}

/// The checksum of a header after two of its words have changed, from the one before (RFC 1624, equation 3).
#[must_use]
#[inline(always)]
pub const fn updated_checksum(checksum: u16, old: [u16; 2], new: [u16; 2]) -> u16 {
    let sum = !checksum as u32 + !old[0] as u32 + !old[1] as u32 + new[0] as u32 + new[1] as u32;
    let folded = (sum & 0xffff) + (sum >> 16);
    !((folded & 0xffff) + (folded >> 16)) as u16
}

/// The header with another TOS byte and TTL, and the checksum that goes with them.
#[must_use]
#[inline(always)]
pub fn with_tos_and_ttl(mut ip: Ipv4Hdr, tos: u8, ttl: u8) -> Ipv4Hdr {
    let words = |ip: &Ipv4Hdr| [u16::from_be_bytes([ip.vihl, ip.tos]), u16::from_be_bytes([ip.ttl, ip.proto])];
    let old = words(&ip);
    (ip.tos, ip.ttl) = (tos, ttl);
    ip.check = updated_checksum(u16::from_be_bytes(ip.check), old, words(&ip)).to_be_bytes();
    ip
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    /// The checksum of RFC 1071 over the bytes of a header, its own field included: 0 when that is right.
    fn verify(header: &[u8]) -> u16 {
        let words = header.chunks_exact(2).map(|pair| u64::from(u16::from_be_bytes([pair[0], pair[1]])));
        // Modulo 0xffff is what adding up in ones' complement comes to; no header sums up to nothing.
        match words.sum::<u64>() % 0xffff {
            0 => 0,
            sum => !(sum as u16),
        }
    }

    fn bytes<T>(headers: &T) -> Vec<u8> {
        // SAFETY: every header here is `repr(C)` over bytes without padding (asserted above), and borrowed.
        unsafe { core::slice::from_raw_parts(core::ptr::from_ref(headers).cast::<u8>(), size_of::<T>()) }.to_vec()
    }

    prop_compose! {
        fn tunnels()(
            local: [u8; 4], mac: [u8; 6], port: u16, vni in 0..1_u32 << 24, next_hop: [u8; 4], vtep_mac: [u8; 6],
        ) -> (Vtep, Route) {
            (Vtep { address: local.into(), mac, port, vni }, Route::new(next_hop.into(), vtep_mac))
        }
    }

    prop_compose! {
        fn flows()(hash: u32, tos: u8, id: u16) -> FlowLabel {
            FlowLabel { hash, tos, id }
        }
    }

    fn word(bytes: &[u8], at: usize) -> u16 {
        u16::from_be_bytes([bytes[at], bytes[at + 1]])
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2000) })]

        #[test]
        fn udp_headers_announce_all_that_follows_and_their_checksum_is_right(
            (local, route) in tunnels(), flow in flows(), inner_len in 20..=65_507_u16,
        ) {
            let headers = bytes(&UdpHeaders::new(&local, &route, inner_len, flow));
            prop_assert_eq!(headers.len(), 28);
            prop_assert_eq!(verify(&headers[..20]), 0);
            prop_assert_eq!(word(&headers, 2), 28 + inner_len);
            prop_assert_eq!(word(&headers, 24), 8 + inner_len);
            prop_assert_eq!((headers[1], word(&headers, 4), word(&headers, 6)), (flow.tos, flow.id, 0));
            prop_assert_eq!((&headers[12..16], &headers[16..20]), (&local.address.octets()[..], &route.next_hop().octets()[..]));
            prop_assert!(word(&headers, 20) >= 49_152);
            prop_assert_eq!((word(&headers, 22), word(&headers, 26)), (local.port, 0));
        }

        #[test]
        fn a_changed_tos_or_ttl_leaves_a_right_checksum(
            (local, route) in tunnels(), flow in flows(), tos: u8, ttl: u8,
        ) {
            let changed = with_tos_and_ttl(outer_ip(local.address, route.next_hop(), 100, flow), tos, ttl);
            prop_assert_eq!((changed.tos, changed.ttl), (tos, ttl));
            prop_assert_eq!(verify(&bytes(&changed)), 0);
        }

        #[test]
        fn vxlan_headers_announce_all_that_follows_and_name_both_vteps(
            (local, route) in tunnels(), flow in flows(), inner_len in 20..=65_485_u16,
        ) {
            let headers = bytes(&VxlanHeaders::new(&local, &route, inner_len, flow));
            prop_assert_eq!(headers.len(), 50);
            prop_assert_eq!(&headers[..28], &bytes(&UdpHeaders::new(&local, &route, inner_len + 22, flow))[..]);
            let vni = local.vni.to_be_bytes();
            prop_assert_eq!(&headers[28..36], &[0x08, 0, 0, 0, vni[1], vni[2], vni[3], 0][..]);
            prop_assert_eq!((&headers[36..42], &headers[42..48]), (&route.vtep_mac()[..], &local.mac[..]));
            prop_assert_eq!(word(&headers, 48), 0x0800);
        }

        #[test]
        fn the_checksum_of_any_header_verifies(header: [u8; 20]) {
            let [vihl, tos, ..] = header;
            let two = |at| [header[at], header[at + 1]];
            let four = |at| [header[at], header[at + 1], header[at + 2], header[at + 3]];
            let mut ip = Ipv4Hdr {
                vihl: vihl | 0x40, tos, tot_len: two(2), id: two(4), frags: two(6), ttl: header[8], proto: header[9],
                check: two(10), src_addr: four(12), dst_addr: four(16),
            };
            ip.check = ipv4_checksum(&ip);
            prop_assert_eq!(verify(&bytes(&ip)), 0);
        }
    }

    fn header() -> Ipv4Hdr {
        // The example of RFC 1071's best known illustration: 192.168.0.1 to 192.168.0.199, checksum b861.
        Ipv4Hdr {
            vihl: 0x45,
            tos: 0,
            tot_len: [0, 0x73],
            id: [0, 0],
            frags: [0x40, 0],
            ttl: 0x40,
            proto: 0x11,
            check: [0; 2],
            src_addr: [192, 168, 0, 1],
            dst_addr: [192, 168, 0, 199],
        }
    }

    #[test]
    fn the_checksum_matches_a_published_example() {
        assert_eq!(ipv4_checksum(&header()), [0xb8, 0x61]);
    }

    #[test]
    fn carries_are_folded_twice_when_needed() {
        let mut ip = header();
        (ip.src_addr, ip.dst_addr) = ([255; 4], [255; 4]);
        (ip.tot_len, ip.id, ip.frags) = ([255; 2], [255; 2], [255; 2]);
        ip.check = ipv4_checksum(&ip);
        let sum: u32 = [0x4500, 0xffff, 0xffff, 0xffff, 0x4011, 0xffff, 0xffff, 0xffff, 0xffff].iter().sum::<u32>()
            + u32::from(u16::from_be_bytes(ip.check));
        let folded = (sum & 0xffff) + (sum >> 16);
        assert_eq!((folded & 0xffff) + (folded >> 16), 0xffff);
    }

    #[test]
    fn source_ports_stay_in_the_dynamic_range_and_differ_between_flows() {
        let ports: std::collections::BTreeSet<u16> = (0..4096_u32)
            .map(|flow| FlowLabel { hash: flow.wrapping_mul(0x9e37_79b9), tos: 0, id: 0 }.source_port())
            .inspect(|port| assert!(*port >= 49152))
            .collect();
        assert!(ports.len() > 3000, "only {} ports for 4096 flows", ports.len());
    }
}
