//! [`Range`]: the overlay's addresses of one family; [`Ranges`]: of both.

use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};

/// The overlay's addresses of one family, as a node sees them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range<N> {
    /// The overlay network.
    pub network: N,
    /// This node's subnet.
    pub subnet: N,
}

impl<N: Into<IpNetwork>> Range<N> {
    /// The same for those to whom the families are alike.
    pub(crate) fn of_any_family(self) -> Range<IpNetwork> {
        Range { network: self.network.into(), subnet: self.subnet.into() }
    }
}

/// The overlay's addresses, as a node sees them: at least one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ranges {
    /// The IPv4 addresses, if the overlay has any.
    pub ipv4: Option<Range<Ipv4Network>>,
    /// The IPv6 addresses, if the overlay has any.
    pub ipv6: Option<Range<Ipv6Network>>,
}

impl Ranges {
    /// Both families alike, IPv4 first.
    pub fn iter(&self) -> impl Iterator<Item = Range<IpNetwork>> + use<> {
        self.ipv4.map(Range::of_any_family).into_iter().chain(self.ipv6.map(Range::of_any_family))
    }

    /// The overlay networks.
    pub fn networks(&self) -> impl Iterator<Item = IpNetwork> + use<> {
        self.iter().map(|range| range.network)
    }

    /// This node's subnets.
    pub fn subnets(&self) -> impl Iterator<Item = IpNetwork> + use<> {
        self.iter().map(|range| range.subnet)
    }
}

/// Whether the two have addresses in common.
pub(crate) fn overlap(one: IpNetwork, other: IpNetwork) -> bool {
    one.contains(other.network()) || other.contains(one.network())
}
