//! [`Families`]: which kinds of addresses something has.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// IPv4, IPv6, or both beside each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Families {
    /// IPv4 alone.
    #[value(name = "4")]
    V4,
    /// IPv6 alone.
    #[value(name = "6")]
    V6,
    /// Both.
    Dual,
}

impl Families {
    /// Every one.
    pub const ALL: [Self; 3] = [Self::V4, Self::V6, Self::Dual];

    /// Whether IPv4 is one of them.
    #[must_use]
    pub const fn has_v4(self) -> bool {
        !matches!(self, Self::V6)
    }

    /// Whether IPv6 is one of them.
    #[must_use]
    pub const fn has_v6(self) -> bool {
        !matches!(self, Self::V4)
    }

    /// What there is of a thing for IPv4 and the same for IPv6.
    pub fn of<T>(self, v4: T, v6: T) -> Vec<T> {
        match self {
            Self::V4 => vec![v4],
            Self::V6 => vec![v6],
            Self::Dual => vec![v4, v6],
        }
    }
}

/// The address that stands for any of the family of `address`.
#[must_use]
pub const fn any_like(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    }
}

/// The first IPv4 address among `addresses`.
#[must_use]
pub fn v4_among(addresses: &[IpAddr]) -> Option<Ipv4Addr> {
    addresses.iter().find_map(|address| if let IpAddr::V4(v4) = address { Some(*v4) } else { None })
}

/// The first IPv6 address among `addresses`.
#[must_use]
pub fn v6_among(addresses: &[IpAddr]) -> Option<Ipv6Addr> {
    addresses.iter().find_map(|address| if let IpAddr::V6(v6) = address { Some(*v6) } else { None })
}
