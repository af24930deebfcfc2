//! [`IpHeader`]: what IPv4 and IPv6 headers have alike; and the checksum that only one of them has.

use network_types::ip::{IpProto, Ipv4Hdr, Ipv6Hdr};

use crate::{Address, FlowLabel};

/// TTL of the outer header, as Linux gives its own tunnels.
const OUTER_TTL: u8 = 64;

/// The fixed part of an IP header. What the programs do alike for both families is generic over it.
///
/// The words are those of IPv4: TOS is IPv6's traffic class, TTL its hop limit.
pub trait IpHeader: Copy + 'static {
    /// Addresses of this family.
    type Address: Address;

    /// What an Ethernet header calls it, in the order of the wire.
    const ETHER_TYPE: [u8; 2];

    /// Where the packet comes from.
    fn source(&self) -> Self::Address;

    /// Where it goes.
    fn destination(&self) -> Self::Address;

    /// DSCP and ECN.
    fn tos(&self) -> u8;

    /// How many more routers it may pass.
    fn ttl(&self) -> u8;

    /// Whether this is a header of this family: the version is right, and it is as long as it must be.
    fn is_valid(&self) -> bool;

    /// Its length in bytes, IPv4's options included; IPv6's extensions are headers of their own.
    fn header_len(&self) -> usize;

    /// The length in bytes of the packet, by its own word.
    fn packet_len(&self) -> usize;

    /// Whether it does not say its length, as a super-packet of more than 64 KiB.
    fn is_length_open(&self) -> bool;

    /// Writes another TOS byte and TTL, and the checksum that goes with them.
    fn set_tos_and_ttl(&mut self, tos: u8, ttl: u8);

    /// The header of an outer packet with `payload_len` bytes of UDP, its own header included.
    fn outer(source: Self::Address, destination: Self::Address, payload_len: u16, flow: FlowLabel) -> Self;
}

impl IpHeader for Ipv4Hdr {
    type Address = [u8; 4];

    const ETHER_TYPE: [u8; 2] = [0x08, 0x00];

    #[inline(always)]
    fn source(&self) -> [u8; 4] {
        self.src_addr
    }

    #[inline(always)]
    fn destination(&self) -> [u8; 4] {
        self.dst_addr
    }

    #[inline(always)]
    fn tos(&self) -> u8 {
        self.tos
    }

    #[inline(always)]
    fn ttl(&self) -> u8 {
        self.ttl
    }

    #[inline(always)]
    fn is_valid(&self) -> bool {
        self.version() == 4 && self.header_len() >= Self::LEN
    }

    #[inline(always)]
    fn header_len(&self) -> usize {
        self.ihl() as usize
    }

    #[inline(always)]
    fn packet_len(&self) -> usize {
        self.tot_len() as usize
    }

    #[inline(always)]
    fn is_length_open(&self) -> bool {
        self.tot_len() == 0
    }

    #[inline(always)]
    fn set_tos_and_ttl(&mut self, tos: u8, ttl: u8) {
        let words = |ip: &Self| [u16::from_be_bytes([ip.vihl, ip.tos]), u16::from_be_bytes([ip.ttl, ip.proto])];
        let old = words(self);
        (self.tos, self.ttl) = (tos, ttl);
        self.check = updated_checksum(u16::from_be_bytes(self.check), old, words(self)).to_be_bytes();
    }

    #[inline(always)]
    fn outer(source: [u8; 4], destination: [u8; 4], payload_len: u16, flow: FlowLabel) -> Self {
        let mut ip = Self {
            vihl: 0x45,
            tos: flow.tos,
            tot_len: payload_len.wrapping_add(Self::LEN as u16).to_be_bytes(),
            id: flow.id.to_be_bytes(),
            frags: [0; 2],
            ttl: OUTER_TTL,
            proto: IpProto::Udp as u8,
            check: [0; 2],
            src_addr: source,
            dst_addr: destination,
        };
        ip.check = ipv4_checksum(&ip);
        ip
    }
}

impl IpHeader for Ipv6Hdr {
    type Address = [u8; 16];

    const ETHER_TYPE: [u8; 2] = [0x86, 0xdd];

    #[inline(always)]
    fn source(&self) -> [u8; 16] {
        self.src_addr
    }

    #[inline(always)]
    fn destination(&self) -> [u8; 16] {
        self.dst_addr
    }

    #[inline(always)]
    fn tos(&self) -> u8 {
        self.vcf[0] << 4 | self.vcf[1] >> 4
    }

    #[inline(always)]
    fn ttl(&self) -> u8 {
        self.hop_limit
    }

    #[inline(always)]
    fn is_valid(&self) -> bool {
        self.version() == 6
    }

    #[inline(always)]
    fn header_len(&self) -> usize {
        Self::LEN
    }

    #[inline(always)]
    fn packet_len(&self) -> usize {
        Self::LEN + self.payload_len() as usize
    }

    #[inline(always)]
    fn is_length_open(&self) -> bool {
        self.payload_len() == 0
    }

    #[inline(always)]
    fn set_tos_and_ttl(&mut self, tos: u8, ttl: u8) {
        let [first, second, ..] = self.vcf;
        (self.vcf[0], self.vcf[1]) = (first & 0xf0 | tos >> 4, tos << 4 | second & 0x0f);
        self.hop_limit = ttl;
    }

    #[inline(always)]
    fn outer(source: [u8; 16], destination: [u8; 16], payload_len: u16, flow: FlowLabel) -> Self {
        let [_, high, middle, low] = flow.ipv6_label().to_be_bytes();
        Self {
            vcf: [0x60 | flow.tos >> 4, flow.tos << 4 | high, middle, low],
            payload_len: payload_len.to_be_bytes(),
            next_hdr: IpProto::Udp as u8,
            hop_limit: OUTER_TTL,
            src_addr: source,
            dst_addr: destination,
        }
    }
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::bytes::{bytes, word};

    /// The checksum of RFC 1071 over the bytes of a header, its own field included: 0 when that is right.
    fn verify(header: &[u8]) -> u16 {
        let words = header.chunks_exact(2).map(|pair| u64::from(u16::from_be_bytes([pair[0], pair[1]])));
        // Modulo 0xffff is what adding up in ones' complement comes to; no header sums up to nothing.
        match words.sum::<u64>() % 0xffff {
            0 => 0,
            sum => !(sum as u16),
        }
    }

    prop_compose! {
        fn flows()(hash: u32, tos: u8, id: u16) -> FlowLabel {
            FlowLabel { hash, tos, id }
        }
    }

    /// What a changed header has in common with the one before: all but TOS byte and TTL.
    fn tos_and_ttl_alone_change<I: IpHeader>(ip: I, tos: u8, ttl: u8) -> Result<(), TestCaseError> {
        let mut changed = ip;
        changed.set_tos_and_ttl(tos, ttl);
        prop_assert!(changed.is_valid());
        prop_assert_eq!((changed.tos(), changed.ttl()), (tos, ttl));
        changed.set_tos_and_ttl(ip.tos(), ip.ttl());
        prop_assert_eq!(bytes(&changed), bytes(&ip));
        Ok(())
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2000) })]

        #[test]
        fn an_outer_ipv4_header_announces_all_that_follows_and_its_checksum_is_right(
            source: [u8; 4], destination: [u8; 4], flow in flows(), payload_len in 8..=65_000_u16,
        ) {
            let ip = Ipv4Hdr::outer(source, destination, payload_len, flow);
            let header = bytes(&ip);
            prop_assert_eq!((header.len(), verify(&header)), (20, 0));
            prop_assert_eq!((word(&header, 2), ip.packet_len()), (20 + payload_len, 20 + usize::from(payload_len)));
            prop_assert_eq!((header[1], word(&header, 4), word(&header, 6)), (flow.tos, flow.id, 0));
            prop_assert_eq!((&header[12..16], &header[16..20]), (&source[..], &destination[..]));
        }

        #[test]
        fn an_outer_ipv6_header_announces_all_that_follows_and_has_the_flows_label(
            source: [u8; 16], destination: [u8; 16], flow in flows(), payload_len in 8..=65_000_u16,
        ) {
            let ip = Ipv6Hdr::outer(source, destination, payload_len, flow);
            let header = bytes(&ip);
            let first = u32::from(word(&header, 0)) << 16 | u32::from(word(&header, 2));
            prop_assert_eq!(first, 6 << 28 | u32::from(flow.tos) << 20 | flow.ipv6_label());
            prop_assert_eq!((word(&header, 4), ip.packet_len()), (payload_len, 40 + usize::from(payload_len)));
            prop_assert_eq!((header[6], header[7]), (17, 64));
            prop_assert_eq!((&header[8..24], &header[24..40]), (&source[..], &destination[..]));
        }

        #[test]
        fn tos_and_ttl_change_alone(v4: [u8; 4], v6: [u8; 16], flow in flows(), tos: u8, ttl: u8) {
            tos_and_ttl_alone_change(Ipv4Hdr::outer(v4, v4, 100, flow), tos, ttl)?;
            tos_and_ttl_alone_change(Ipv6Hdr::outer(v6, v6, 100, flow), tos, ttl)?;
        }

        #[test]
        fn a_changed_tos_or_ttl_leaves_a_right_checksum(
            source: [u8; 4], destination: [u8; 4], flow in flows(), tos: u8, ttl: u8,
        ) {
            let mut changed = Ipv4Hdr::outer(source, destination, 100, flow);
            changed.set_tos_and_ttl(tos, ttl);
            prop_assert_eq!(verify(&bytes(&changed)), 0);
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
    fn a_header_of_the_other_family_is_none() {
        let flow = FlowLabel { hash: 0, tos: 0, id: 0 };
        let six = Ipv6Hdr::outer([1; 16], [2; 16], 100, flow);
        assert!(!Ipv6Hdr { vcf: [0x45, 0, 0, 0], ..six }.is_valid());
        assert!(!Ipv4Hdr { vihl: 0x65, ..header() }.is_valid() && !Ipv4Hdr { vihl: 0x44, ..header() }.is_valid());
    }
}
