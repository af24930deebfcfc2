//! [`Family`]: the maps that each address family has of its own.

use std::{
    fmt::{Debug, Display},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use aya::Pod;
use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};
use overlay_common::{Address, LocalNode};

/// An address family inside the overlay: the names of its maps, and its networks.
pub trait Family: Address + Pod {
    /// A subnet of the family.
    type Network: Copy + Ord + Debug + Display + Into<IpNetwork> + Send + Sync;

    /// Remote subnets and the nodes that own them.
    const ROUTES: &'static str;
    /// What was exchanged with each of them.
    const TRAFFIC: &'static str;
    /// Whose each address of our subnet is.
    const ENDPOINTS: &'static str;
    /// The flows that the fast path knows: those that it carries, and those on their way there.
    const FLOWS: [&'static str; 2];

    /// The network that this address and `length` bits are the prefix of.
    fn network(self, length: u8) -> Self::Network;

    /// The first address of a network: how maps know it.
    fn first(network: Self::Network) -> Self;

    /// `address`, if it is of the family.
    fn pick(address: IpAddr) -> Option<Self::Ip>;

    /// The overlay network as `node` has it, and the subnet of it that is forwarded for, as far as there are any.
    fn range_of(node: &LocalNode) -> (Option<Self::Network>, Option<Self::Network>) {
        let range = node.range::<Self>();
        let of = |(first, length)| Self::of(first).network(length);
        (range.is_on().then(|| of(range.network())), range.claims_subnet().then(|| of(range.subnet())))
    }
}

impl Family for [u8; 4] {
    type Network = Ipv4Network;

    const ROUTES: &'static str = "ROUTES";
    const TRAFFIC: &'static str = "TRAFFIC";
    const ENDPOINTS: &'static str = "ENDPOINTS";
    const FLOWS: [&'static str; 2] = ["FLOWS", "CANDIDATES"];

    fn network(self, length: u8) -> Ipv4Network {
        let first = self.masked(Self::mask_of(length.min(Self::BITS)));
        Ipv4Network::new(first.into(), length).unwrap_or_else(|_| Ipv4Network::from(<Self as Address>::Ip::from(self)))
    }

    fn first(network: Ipv4Network) -> Self {
        network.network().octets()
    }

    fn pick(address: IpAddr) -> Option<Ipv4Addr> {
        if let IpAddr::V4(address) = address { Some(address) } else { None }
    }
}

impl Family for [u8; 16] {
    type Network = Ipv6Network;

    const ROUTES: &'static str = "ROUTES_V6";
    const TRAFFIC: &'static str = "TRAFFIC_V6";
    const ENDPOINTS: &'static str = "ENDPOINTS_V6";
    const FLOWS: [&'static str; 2] = ["FLOWS_V6", "CANDIDATES_V6"];

    fn network(self, length: u8) -> Ipv6Network {
        let first = self.masked(Self::mask_of(length.min(Self::BITS)));
        Ipv6Network::new(first.into(), length).unwrap_or_else(|_| Ipv6Network::from(<Self as Address>::Ip::from(self)))
    }

    fn first(network: Ipv6Network) -> Self {
        network.network().octets()
    }

    fn pick(address: IpAddr) -> Option<Ipv6Addr> {
        if let IpAddr::V6(address) = address { Some(address) } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_in_its_network() {
        assert_eq!([10, 1, 77, 9].network(24).to_string(), "10.1.77.0/24");
        assert_eq!([0xfd; 16].network(64).to_string(), "fdfd:fdfd:fdfd:fdfd::/64");
        assert_eq!(<[u8; 16]>::first([0xfd; 16].network(16))[1..3], [0xfd, 0]);
    }
}
