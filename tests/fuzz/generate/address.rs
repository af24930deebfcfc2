//! Addresses that lie where they should, and near misses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;
use overlay_tests::model::{Family, Hop};

use crate::{chance::Chance, world::World};

/// IPv4 addresses that belong to nobody here.
const ELSEWHERE_V4: [[u8; 4]; 10] = [
    [0, 0, 0, 0],
    [0, 1, 2, 3],
    [8, 8, 8, 8],
    [127, 0, 0, 1],
    [169, 254, 1, 1],
    [169, 253, 1, 1],
    [224, 0, 0, 1],
    [239, 255, 255, 255],
    [240, 0, 0, 1],
    [255, 255, 255, 255],
];
/// IPv6 addresses that belong to nobody here: one of documentation, multicast, link-local and its neighbours, and IPv4's.
const ELSEWHERE_V6: [Ipv6Addr; 9] = [
    Ipv6Addr::UNSPECIFIED,
    Ipv6Addr::LOCALHOST,
    Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1),
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1),
    Ipv6Addr::new(0xff0e, 0, 0, 0, 0, 0, 0, 1),
    Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1),
    Ipv6Addr::new(0xfec0, 0, 0, 0, 0, 0, 0, 1),
    Ipv6Addr::new(0xfebf, 0xffff, 0, 0, 0, 0, 0, 1),
    Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0x0a01, 0x1002),
];

/// The address as a number, and its length in bits.
fn bits(address: IpAddr) -> (u128, usize) {
    match address {
        IpAddr::V4(v4) => (u32::from(v4).into(), 32),
        IpAddr::V6(v6) => (v6.into(), 128),
    }
}

/// The address of this family that is this number, of which IPv4 has room for the last bits.
fn address(family: Family, bits: u128) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::from(bits as u32).into(),
        Family::V6 => Ipv6Addr::from(bits).into(),
    }
}

/// The address so many places after the first of `network`.
fn nth(network: IpNetwork, number: u128) -> IpAddr {
    address(Family::of(network.network()), bits(network.network()).0 + number)
}

impl World {
    /// The node's own subnet of the family of `subnet`.
    pub(super) fn own_subnet(&self, subnet: IpNetwork) -> IpNetwork {
        self.node.ranges.of(Family::of(subnet.network())).expect("routes are of families that we have").subnet
    }
}

/// Any remote subnet and the node that owns it.
pub(super) fn a_route(chance: &mut Chance, world: &World) -> (IpNetwork, Hop) {
    let routes = &world.facts.routes;
    let (subnet, hop) = routes.iter().nth(chance.below(routes.len())).expect("a world has routes");
    (*subnet, *hop)
}

/// An address in `subnet`, its first and last often, and now and then one that is not.
pub(super) fn address_near(chance: &mut Chance, world: &World, subnet: IpNetwork) -> IpAddr {
    // More than enough of an IPv6 subnet's.
    let hosts = (bits(subnet.broadcast()).0 - bits(subnet.network()).0 + 1).min(1 << 32);
    let host = match chance.below(8) {
        0 => 0,
        1 => bits(subnet.broadcast()).0 - bits(subnet.network()).0,
        _ => chance.below(hosts as usize) as u128,
    };
    let address = nth(subnet, host);
    if chance.one_in(16) { near_miss(chance, world, address) } else { address }
}

/// Another address of the same family: a neighbour by one bit or by one, somebody else's, or nobody's.
pub(super) fn near_miss(chance: &mut Chance, world: &World, missed: IpAddr) -> IpAddr {
    let family = Family::of(missed);
    let (other, hop) = a_route(chance, world);
    let (number, length) = bits(missed);
    let flipped = address(family, number ^ (1 << chance.below(length)));
    let same = |candidate: IpAddr| if Family::of(candidate) == family { candidate } else { flipped };
    // The underlay may have a family that the overlay has not.
    let Some(range) = world.node.ranges.of(family) else { return flipped };
    match chance.below(9) {
        0 | 1 => flipped,
        2 => address(family, bits(range.network.network()).0.wrapping_sub(1)),
        3 => address(family, bits(range.network.broadcast()).0.wrapping_add(1)),
        4 => {
            // The last byte in front of the hosts of an ordinary subnet.
            let shift = if family == Family::V4 { 8 } else { 64 };
            address(family, number & !(0xff << shift) | u128::from(chance.byte()) << shift)
        }
        5 => same(nth(other, 1)),
        6 => {
            let end = world.node.ends.of(family).map_or(flipped, |end| end.address);
            let stranger = address(family, bits(end).0 & !0xff | 77);
            chance.pick(&[end, same(hop.address), stranger])
        }
        7 => nth(range.subnet, 2),
        _ if family == Family::V4 => chance.pick(&ELSEWHERE_V4).into(),
        _ => chance.pick(&ELSEWHERE_V6).into(),
    }
}
