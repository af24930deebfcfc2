//! [`Address`]: an IP address of either family, as it is on the wire; [`UnderlayAddress`]: one form for both.

use core::{
    fmt::{self, Debug, Display},
    hash::Hash,
    mem,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use crate::{Family, LocalNode, NodeSubnets};

/// An IP address of one family, as it is on the wire. What the programs do alike for both families is generic over it.
pub trait Address: Copy + Eq + Ord + Hash + Debug + Default + Send + Sync + Into<UnderlayAddress> + 'static {
    /// The same for people.
    type Ip: From<Self> + Into<IpAddr> + Copy + Eq + Ord + Hash + Debug + Display + Send + Sync + 'static;
    /// Addresses of the other family.
    type Other: Address<Other = Self>;

    /// Its length in bits.
    const BITS: u8;
    /// Whether it is IPv4.
    const IS_IPV4: bool = Self::BITS == 32;

    /// The address in the order of the wire.
    fn of(ip: Self::Ip) -> Self;

    /// The address for people.
    #[inline(always)]
    fn ip(self) -> Self::Ip {
        Self::Ip::from(self)
    }

    /// The mask of a prefix of `length` bits.
    fn mask_of(length: u8) -> Self;

    /// How many bits of a mask are set: the length of its prefix.
    fn length_of(mask: Self) -> u8;

    /// The address with only those bits that are set in `mask`.
    #[must_use]
    fn masked(self, mask: Self) -> Self;

    /// Whether this is a mask of one bit or more.
    fn masks(self) -> bool;

    /// The address in the form that holds either family: IPv4 as an IPv4-mapped IPv6 address (RFC 4291, section 2.5.5.2).
    fn mapped(self) -> [u8; 16];

    /// The address that `underlay` holds, which is of this family.
    fn from_underlay(underlay: UnderlayAddress) -> Self;

    /// 64 bits out of two addresses, for a hash.
    fn mix(local: Self, remote: Self) -> u64;

    /// What a node has of this family.
    fn family(node: &LocalNode) -> &Family<Self>;

    /// The same, to be changed.
    fn family_mut(node: &mut LocalNode) -> &mut Family<Self>;

    /// The subnet of this family among those of a node.
    fn subnet_of(subnets: &mut NodeSubnets) -> &mut Self;
}

/// Fibonacci hashing: every bit of a number reaches the upper half of its product with this.
pub(crate) const FIBONACCI: u64 = 0x9e37_79b9_7f4a_7c15;

impl Address for [u8; 4] {
    type Ip = Ipv4Addr;
    type Other = [u8; 16];

    const BITS: u8 = 32;

    #[inline(always)]
    fn of(ip: Ipv4Addr) -> Self {
        ip.octets()
    }

    fn mask_of(length: u8) -> Self {
        u32::MAX.checked_shl(u32::from(Self::BITS - length)).unwrap_or(0).to_be_bytes()
    }

    fn length_of(mask: Self) -> u8 {
        u32::from_be_bytes(mask).count_ones() as u8
    }

    #[inline(always)]
    fn masked(self, mask: Self) -> Self {
        (u32::from_ne_bytes(self) & u32::from_ne_bytes(mask)).to_ne_bytes()
    }

    #[inline(always)]
    fn masks(self) -> bool {
        self[0] != 0
    }

    #[inline(always)]
    fn mapped(self) -> [u8; 16] {
        let [a, b, c, d] = self;
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d]
    }

    #[inline(always)]
    fn from_underlay(UnderlayAddress([_, _, _, last]): UnderlayAddress) -> Self {
        last.to_ne_bytes()
    }

    #[inline(always)]
    fn mix(local: Self, remote: Self) -> u64 {
        u64::from(u32::from_ne_bytes(local)) | u64::from(u32::from_ne_bytes(remote)) << 32
    }

    #[inline(always)]
    fn family(node: &LocalNode) -> &Family<Self> {
        &node.v4
    }

    fn family_mut(node: &mut LocalNode) -> &mut Family<Self> {
        &mut node.v4
    }

    fn subnet_of(subnets: &mut NodeSubnets) -> &mut Self {
        &mut subnets.v4
    }
}

impl Address for [u8; 16] {
    type Ip = Ipv6Addr;
    type Other = [u8; 4];

    const BITS: u8 = 128;

    #[inline(always)]
    fn of(ip: Ipv6Addr) -> Self {
        ip.octets()
    }

    fn mask_of(length: u8) -> Self {
        u128::MAX.checked_shl(u32::from(Self::BITS - length)).unwrap_or(0).to_be_bytes()
    }

    fn length_of(mask: Self) -> u8 {
        u128::from_be_bytes(mask).count_ones() as u8
    }

    #[inline(always)]
    fn masked(self, mask: Self) -> Self {
        let ([a, b], [c, d]) = (halves(self), halves(mask));
        joined([a & c, b & d])
    }

    #[inline(always)]
    fn masks(self) -> bool {
        self[0] != 0
    }

    #[inline(always)]
    fn mapped(self) -> [u8; 16] {
        self
    }

    #[inline(always)]
    fn from_underlay(underlay: UnderlayAddress) -> Self {
        underlay.octets()
    }

    #[inline(always)]
    fn mix(local: Self, remote: Self) -> u64 {
        let ([a, b], [c, d]) = (halves(local), halves(remote));
        let mixed = |number: u64| {
            let product = number.wrapping_mul(FIBONACCI);
            product ^ (product >> 32)
        };
        mixed(mixed(mixed(a) ^ b) ^ c) ^ d
    }

    #[inline(always)]
    fn family(node: &LocalNode) -> &Family<Self> {
        &node.v6
    }

    fn family_mut(node: &mut LocalNode) -> &mut Family<Self> {
        &mut node.v6
    }

    fn subnet_of(subnets: &mut NodeSubnets) -> &mut Self {
        &mut subnets.v6
    }
}

/// The address that was [mapped](Address::mapped).
pub(crate) const fn unmapped(address: [u8; 16]) -> IpAddr {
    Ipv6Addr::from_octets(address).to_canonical()
}

/// The halves of an IPv6 address as numbers that stand in memory as the bytes do.
#[inline(always)]
pub(crate) const fn halves(address: [u8; 16]) -> [u64; 2] {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = address;
    [u64::from_ne_bytes([a, b, c, d, e, f, g, h]), u64::from_ne_bytes([i, j, k, l, m, n, o, p])]
}

/// The way back from [`halves`].
#[inline(always)]
const fn joined([first, second]: [u64; 2]) -> [u8; 16] {
    let ([a, b, c, d, e, f, g, h], [i, j, k, l, m, n, o, p]) = (first.to_ne_bytes(), second.to_ne_bytes());
    [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]
}

/// A node's address on the underlay, of either family: IPv4 as an IPv4-mapped IPv6 address (RFC 4291, section 2.5.5.2). In
/// memory as on the wire, but in words: the programs compare four numbers, not 16.
#[repr(transparent)]
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct UnderlayAddress([u32; 4]);

const _: () = assert!(size_of::<UnderlayAddress>() == 16 && align_of::<UnderlayAddress>() == 4);

/// What an IPv4-mapped address begins with.
const MAPPED: [u32; 3] = [0, 0, u32::from_ne_bytes([0, 0, 0xff, 0xff])];

impl UnderlayAddress {
    /// The address for people.
    #[must_use]
    pub const fn ip(self) -> IpAddr {
        unmapped(self.octets())
    }

    /// Whether it is IPv4.
    #[must_use]
    #[inline(always)]
    pub const fn is_ipv4(self) -> bool {
        let ([a, b, c, _], [x, y, z]) = (self.0, MAPPED);
        a == x && b == y && c == z
    }

    #[inline(always)]
    const fn octets(self) -> [u8; 16] {
        // SAFETY: both are 16 bytes without padding. Taken apart number by number they would be 16 values, each spilled.
        unsafe { mem::transmute(self.0) }
    }

    /// The IPv4 address that it is, if it is one.
    #[must_use]
    pub const fn ipv4(self) -> Option<Ipv4Addr> {
        match self.ip() {
            IpAddr::V4(ip) => Some(ip),
            IpAddr::V6(_) => None,
        }
    }

    /// Whether it is no node's: nothing was noted.
    #[must_use]
    pub const fn is_unspecified(self) -> bool {
        self.ip().is_unspecified()
    }

    /// The last four bytes, in which the nodes of a rack differ, as a number.
    #[inline(always)]
    pub(crate) const fn low(self) -> u32 {
        u32::from_be(self.0[3])
    }
}

impl From<[u8; 4]> for UnderlayAddress {
    #[inline(always)]
    fn from(address: [u8; 4]) -> Self {
        let [a, b, c] = MAPPED;
        Self([a, b, c, u32::from_ne_bytes(address)])
    }
}

impl From<[u8; 16]> for UnderlayAddress {
    #[inline(always)]
    fn from(address: [u8; 16]) -> Self {
        // SAFETY: as in `octets`.
        Self(unsafe { mem::transmute::<[u8; 16], [u32; 4]>(address) })
    }
}

impl From<Ipv4Addr> for UnderlayAddress {
    fn from(ip: Ipv4Addr) -> Self {
        ip.octets().into()
    }
}

impl From<Ipv6Addr> for UnderlayAddress {
    fn from(ip: Ipv6Addr) -> Self {
        ip.octets().into()
    }
}

impl From<IpAddr> for UnderlayAddress {
    fn from(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(ip) => ip.into(),
            IpAddr::V6(ip) => ip.into(),
        }
    }
}

impl Debug for UnderlayAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        Debug::fmt(&self.ip(), formatter)
    }
}

impl Display for UnderlayAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        Display::fmt(&self.ip(), formatter)
    }
}

#[cfg(feature = "user")]
// SAFETY: an array of numbers, no padding (asserted above), every bit pattern is valid.
unsafe impl aya::Pod for UnderlayAddress {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn masks_cover_the_whole_range_of_lengths() {
        assert_eq!((<[u8; 4]>::mask_of(0), <[u8; 16]>::mask_of(0)), ([0; 4], [0; 16]));
        assert_eq!((<[u8; 4]>::mask_of(32), <[u8; 16]>::mask_of(128)), ([255; 4], [255; 16]));
        assert_eq!(<[u8; 4]>::mask_of(22), [255, 255, 252, 0]);
        assert_eq!(<[u8; 16]>::mask_of(68)[7..10], [255, 0xf0, 0]);
        assert!(!<[u8; 4]>::mask_of(0).masks() && !<[u8; 16]>::mask_of(0).masks());
        assert!(<[u8; 4]>::mask_of(1).masks() && <[u8; 16]>::mask_of(1).masks());
    }

    /// What holds for the masks of either family.
    fn masking_keeps_the_first_bits<A: Address + AsRef<[u8]>>(address: A, length: u8) -> Result<(), TestCaseError> {
        let mask = A::mask_of(length);
        prop_assert_eq!(A::length_of(mask), length);
        let bit = |bytes: A, at: u8| bytes.as_ref()[usize::from(at / 8)] >> (7 - at % 8) & 1;
        for at in 0..A::BITS {
            let expected = if at < length { bit(address, at) } else { 0 };
            prop_assert_eq!(bit(address.masked(mask), at), expected, "bit {}", at);
        }
        Ok(())
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(500) })]

        #[test]
        fn masking_keeps_the_first_bits_of_either_family(v4: [u8; 4], v6: [u8; 16], a in 0..=32_u8, b in 0..=128_u8) {
            masking_keeps_the_first_bits(v4, a)?;
            masking_keeps_the_first_bits(v6, b)?;
        }

        #[test]
        fn an_underlay_address_is_read_as_it_was_written(v4: [u8; 4], v6: [u8; 16]) {
            let (four, six) = (UnderlayAddress::from(v4), UnderlayAddress::from(v6));
            prop_assert_eq!((four.ip(), four.is_ipv4()), (IpAddr::from(v4), true));
            prop_assert_eq!(<[u8; 4]>::from_underlay(four), v4);
            prop_assume!(!six.is_ipv4());
            prop_assert_eq!(six.ip(), IpAddr::from(v6));
            prop_assert_eq!((<[u8; 16]>::from_underlay(six), UnderlayAddress::from(six.ip())), (v6, six));
        }
    }
}
