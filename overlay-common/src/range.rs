//! [`Range`]: the overlay's addresses of one family, and this node's among them.

use crate::Address;

/// The overlay network of one family, and the subnet of it that this node owns. All zero when the overlay does not have
/// the family.
///
/// All subnets of a network have one length, so one mask serves for our own subnet and for every remote one.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Range<A> {
    network: A,
    network_mask: A,
    subnet: A,
    subnet_mask: A,
}

const _: () = assert!(size_of::<Range<[u8; 4]>>() == 16 && align_of::<Range<[u8; 4]>>() == 1);
const _: () = assert!(size_of::<Range<[u8; 16]>>() == 64 && align_of::<Range<[u8; 16]>>() == 1);

impl<A: Address> Range<A> {
    /// A node owns `subnet` of `network`, both given as network address and prefix length in bits.
    #[must_use]
    pub fn new(network: (A::Ip, u8), subnet: (A::Ip, u8)) -> Self {
        Self {
            network: A::of(network.0),
            network_mask: A::mask_of(network.1),
            subnet: A::of(subnet.0),
            subnet_mask: A::mask_of(subnet.1),
        }
    }

    /// The overlay network: its network address and its prefix length in bits.
    #[must_use]
    pub fn network(&self) -> (A::Ip, u8) {
        (self.network.ip(), A::length_of(self.network_mask))
    }

    /// The subnet that this node owns: its network address and its prefix length in bits.
    #[must_use]
    pub fn subnet(&self) -> (A::Ip, u8) {
        (self.subnet.ip(), A::length_of(self.subnet_mask))
    }

    /// Whether the overlay has this family.
    #[must_use]
    #[inline(always)]
    pub fn is_on(&self) -> bool {
        self.network_mask.masks()
    }

    /// Whether `address` lies in the overlay network.
    #[must_use]
    #[inline(always)]
    pub fn in_network(&self, address: A) -> bool {
        self.is_on() && address.masked(self.network_mask) == self.network
    }

    /// Whether `address` lies in the subnet that this node owns.
    #[must_use]
    #[inline(always)]
    pub fn in_subnet(&self, address: A) -> bool {
        self.subnet_of(address) == self.subnet
    }

    /// Whether the node claims its subnet; it does not after another node has taken it.
    #[must_use]
    #[inline(always)]
    pub fn claims_subnet(&self) -> bool {
        self.subnet != A::default()
    }

    /// The subnet that `address` lies in, as a key of the routes of its family.
    #[must_use]
    #[inline(always)]
    pub fn subnet_of(&self, address: A) -> A {
        address.masked(self.subnet_mask)
    }
}

#[cfg(test)]
mod tests {
    use core::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    const NETWORK: (Ipv4Addr, u8) = (Ipv4Addr::new(10, 1, 0, 0), 16);
    const SUBNET: (Ipv4Addr, u8) = (Ipv4Addr::new(10, 1, 15, 0), 24);

    fn v4() -> Range<[u8; 4]> {
        Range::new(NETWORK, SUBNET)
    }

    fn ip(text: &str) -> Ipv6Addr {
        text.parse().unwrap()
    }

    fn v6() -> Range<[u8; 16]> {
        Range::new((ip("fd00:1::"), 48), (ip("fd00:1:0:f::"), 64))
    }

    #[test]
    fn network_and_subnet_survive_the_trip_through_the_map_value() {
        assert_eq!((v4().network(), v4().subnet()), (NETWORK, SUBNET));
        assert_eq!((v6().network(), v6().subnet()), ((ip("fd00:1::"), 48), (ip("fd00:1:0:f::"), 64)));
    }

    #[test]
    fn membership_follows_the_prefix_lengths() {
        assert!(v4().in_network([10, 1, 255, 255]) && !v4().in_network([10, 2, 0, 0]));
        assert!(v4().in_subnet([10, 1, 15, 255]) && !v4().in_subnet([10, 1, 16, 0]));
        assert_eq!(v4().subnet_of([10, 1, 77, 9]), [10, 1, 77, 0]);
        let octets = |text| ip(text).octets();
        assert!(v6().in_network(octets("fd00:1:0:ffff::1")) && !v6().in_network(octets("fd00:1:1::")));
        assert!(v6().in_subnet(octets("fd00:1:0:f:ffff::")) && !v6().in_subnet(octets("fd00:1:0:10::")));
        assert_eq!(v6().subnet_of(octets("fd00:1:0:77::9")), octets("fd00:1:0:77::"));
    }

    #[test]
    fn a_family_that_is_off_has_no_address() {
        assert!(v4().is_on() && v6().is_on());
        let (v4, v6) = (Range::<[u8; 4]>::default(), Range::<[u8; 16]>::default());
        assert!(!v4.is_on() && !v4.in_network([0; 4]) && !v4.in_network([10, 1, 0, 1]));
        assert!(!v6.is_on() && !v6.in_network([0; 16]) && !v6.in_network(ip("fd00:1::1").octets()));
    }

    #[test]
    fn a_subnet_that_begins_at_0_is_none() {
        assert!(v4().claims_subnet() && v6().claims_subnet());
        assert!(!Range::<[u8; 4]>::new(NETWORK, (Ipv4Addr::UNSPECIFIED, 24)).claims_subnet());
    }
}
