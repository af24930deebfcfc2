//! [`Family`]: what netfilter and iptables call the two address families, which are alike otherwise.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path;

use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};
use nftables::types::NfFamily;

/// An address family. Each has tables of its own in the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    Ipv4,
    Ipv6,
}

impl Family {
    pub(crate) const ALL: [Self; 2] = [Self::Ipv4, Self::Ipv6];

    /// The family of a network.
    pub(crate) const fn of(network: IpNetwork) -> Self {
        match network {
            IpNetwork::V4(_) => Self::Ipv4,
            IpNetwork::V6(_) => Self::Ipv6,
        }
    }

    /// Whether this kernel has the family. Where it is missing, no rules of ours can be left over either.
    pub(super) fn exists(self) -> bool {
        self == Self::Ipv4 || Path::new("/proc/sys/net/ipv6").exists()
    }

    /// What `nft` calls the family's tables, and the protocol whose header has the addresses.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Ipv4 => "ip",
            Self::Ipv6 => "ip6",
        }
    }

    /// The same in `nft`'s JSON.
    pub(super) const fn nft(self) -> NfFamily {
        match self {
            Self::Ipv4 => NfFamily::IP,
            Self::Ipv6 => NfFamily::IP6,
        }
    }

    /// The kernel's number of the family (`NFPROTO_IPV4`, `NFPROTO_IPV6`).
    pub(super) const fn number(self) -> u8 {
        match self {
            Self::Ipv4 => 2,
            Self::Ipv6 => 10,
        }
    }

    /// The program that speaks for the family.
    pub(crate) const fn iptables(self) -> &'static str {
        match self {
            Self::Ipv4 => "iptables",
            Self::Ipv6 => "ip6tables",
        }
    }

    /// Where the kernel lists the tables of iptables' legacy implementation. Missing where the module is not loaded.
    pub(super) const fn legacy_tables(self) -> &'static str {
        match self {
            Self::Ipv4 => "/proc/thread-self/net/ip_tables_names",
            Self::Ipv6 => "/proc/thread-self/net/ip6_tables_names",
        }
    }

    /// All multicast addresses.
    pub(super) fn multicast(self) -> Option<IpNetwork> {
        match self {
            Self::Ipv4 => Ipv4Network::new_checked(Ipv4Addr::new(224, 0, 0, 0), 4).map(Into::into),
            Self::Ipv6 => Ipv6Network::new_checked(Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0), 8).map(Into::into),
        }
    }
}
