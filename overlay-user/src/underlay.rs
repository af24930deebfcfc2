//! The underlay interface: which one carries outer packets, and what becomes of it.
//!
//! [`read`] asks the kernel what there is, [`choose`] decides (pure), [`Watch`] reports what changes afterwards.
//! Bonds, VLAN devices and bridges are as good an underlay as a NIC; what cannot be one is a loopback interface, an
//! interface that is administratively down, one without an Ethernet address or one without an IP address, an overlay
//! device, and whatever has an address inside the overlay network.

mod choose;
mod error;
mod read;
mod state;
mod watch;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;
use regex::Regex;

use crate::in_words::joined;

pub use choose::{choose, why};
pub use error::UnderlayError;
pub use read::{read, select};
pub use watch::{ADDRESS_GRACE, UnderlayEvent, Watch};

/// The smallest MTU an overlay device may get: what every IPv4 host must be able to take in (RFC 791).
pub const MIN_OVERLAY_MTU: u32 = 576;

/// The same where there is IPv6 in the overlay: what every link must be able to carry (RFC 8200).
pub const MIN_OVERLAY_MTU_FOR_IPV6: u32 = 1280;

/// The interface that carries outer packets, and the addresses that they come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Underlay {
    /// Name of the interface.
    pub name: String,
    /// Index of the interface.
    pub ifindex: u32,
    /// Ethernet address of the interface.
    pub mac: [u8; 6],
    /// MTU of the interface in bytes.
    pub mtu: u32,
    /// This node's end over IPv4, if it has one. There is one end at least.
    pub ipv4: Option<End<Ipv4Addr>>,
    /// This node's end over IPv6, if it has one.
    pub ipv6: Option<End<Ipv6Addr>>,
    /// All addresses of the interface but for the link-local ones of IPv6.
    pub addresses: Vec<IpAddr>,
}

/// What this node has of one family on the underlay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End<A> {
    /// The address of the interface that outer packets are sent from and received at.
    pub address: A,
    /// The address that other nodes reach this one at; differs from `address` behind a NAT.
    pub public_ip: A,
}

/// Which families outer packets may have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Outer {
    /// IPv4 alone.
    #[default]
    Ipv4,
    /// Each one that the interface has.
    Either,
    /// IPv6; IPv4 where the interface has no IPv6.
    Ipv6,
}

/// What the operator said about the underlay interface. Nothing said: the interface of the default route.
#[derive(Debug, Clone, Default)]
pub struct UnderlayChoice {
    /// `--iface`: interface names or addresses, tried in order.
    pub iface: Vec<String>,
    /// `--iface-regex`: tried after `iface`, in order, each on the addresses of all interfaces first, then on names.
    pub iface_regex: Vec<Regex>,
    /// `--iface-can-reach`: tried last; the interface and source address of the route to this address.
    pub iface_can_reach: Option<IpAddr>,
    /// `--public-ip`: published in the lease. Alone it also chooses the interface that it is assigned to.
    pub public_ip: Option<Ipv4Addr>,
    /// Which families outer packets may have, as the network config says.
    pub outer: Outer,
    /// `--public-ipv6`: published in the lease beside `public_ip`. It chooses no interface.
    pub public_ipv6: Option<Ipv6Addr>,
}

impl UnderlayChoice {
    /// Whether IPv6 will not do on the underlay.
    fn needs_ipv4(&self) -> bool {
        self.outer == Outer::Ipv4 || (self.outer == Outer::Either && self.public_ip.is_some())
    }
}

/// An interface of this node, as far as the choice depends on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// Name of the interface.
    pub name: String,
    /// Index of the interface.
    pub ifindex: u32,
    /// MTU in bytes.
    pub mtu: u32,
    /// Ethernet address; none for interfaces of another kind.
    pub mac: Option<[u8; 6]>,
    /// Whether it is a loopback interface.
    pub loopback: bool,
    /// Whether it is an overlay device, of this network or another.
    pub overlay: bool,
    /// Whether it is administratively up. An interface without carrier may be up: its cable can come back.
    pub up: bool,
    /// Whether it has carrier.
    pub carrier: bool,
    /// IPv4 addresses in the kernel's order.
    pub addresses: Vec<Address<Ipv4Addr>>,
    /// IPv6 addresses in the kernel's order, without the link-local ones: every interface has one, and it names a node
    /// to nobody beyond the link.
    pub ipv6_addresses: Vec<Address<Ipv6Addr>>,
}

impl Interface {
    /// Its addresses of both families.
    fn all_addresses(&self) -> Vec<IpAddr> {
        let ipv4 = self.addresses.iter().map(|address| IpAddr::from(address.ip));
        ipv4.chain(self.ipv6_addresses.iter().map(|address| address.ip.into())).collect()
    }
}

/// An address of an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address<A> {
    /// The address.
    pub ip: A,
    /// Whether its scope is the link, or it lies in 169.254.0.0/16.
    pub link_local: bool,
    /// Whether it has no lifetime.
    pub permanent: bool,
    /// Whether it is not to be taken: its preferred lifetime is over or, with IPv6, it is a temporary one (RFC 8981) or not
    /// known yet to be nobody else's.
    pub unfit: bool,
}

/// A route that a choice can rest on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RouteInfo {
    /// Index of the interface that it leads through.
    pub ifindex: u32,
    /// The source address that it prefers.
    pub source: Option<IpAddr>,
    /// Its metric; the smallest wins.
    pub metric: u32,
}

/// The routes that a choice can rest on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Routes {
    /// IPv4 default routes of the main table, in the kernel's order.
    pub default: Vec<RouteInfo>,
    /// Those of IPv6.
    pub default_ipv6: Vec<RouteInfo>,
    /// The route to `--iface-can-reach`, if that was given and there is one.
    pub reach: Option<RouteInfo>,
}

impl<A: Into<IpAddr>> End<A> {
    /// The same for those to whom the families are alike.
    fn of_any_family(self) -> End<IpAddr> {
        End { address: self.address.into(), public_ip: self.public_ip.into() }
    }
}

impl Underlay {
    /// This node's ends, IPv4's first.
    pub fn ends(&self) -> impl Iterator<Item = End<IpAddr>> {
        self.ipv4.map(End::of_any_family).into_iter().chain(self.ipv6.map(End::of_any_family))
    }

    /// The addresses of the ends, for people.
    #[must_use]
    pub fn local_text(&self) -> String {
        joined(self.ends().map(|end| end.address))
    }

    /// The addresses that other nodes reach the ends at, for people.
    #[must_use]
    pub fn public_text(&self) -> String {
        joined(self.ends().map(|end| end.public_ip))
    }

    /// Refuses an underlay whose address would itself be routed into the overlay network, and a bridge that has an address
    /// there as well, since the overlay's own containers are connected to it.
    ///
    /// # Errors
    /// [`UnderlayError::InsideNetwork`].
    pub fn check_outside(&self, networks: impl Iterator<Item = IpNetwork>) -> Result<(), UnderlayError> {
        let public = self.ends().map(|end| end.public_ip);
        let addresses: Vec<_> = self.addresses.iter().copied().chain(public).collect();
        for network in networks {
            if let Some(&address) = addresses.iter().find(|&&address| network.contains(address)) {
                return Err(UnderlayError::InsideNetwork { name: self.name.clone(), address, network });
            }
        }
        Ok(())
    }

    /// The MTU in bytes of an overlay whose encap adds up to `overhead` bytes, and which must be at least `least`.
    ///
    /// # Errors
    /// [`UnderlayError::MtuTooSmall`] when less is left.
    pub fn overlay_mtu(&self, overhead: u32, least: u32) -> Result<u32, UnderlayError> {
        self.mtu.checked_sub(overhead).filter(|&mtu| mtu >= least).ok_or_else(|| UnderlayError::MtuTooSmall {
            name: self.name.clone(),
            mtu: self.mtu,
            overhead,
            least,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_overlay_mtu_is_what_encap_leaves() {
        let underlay = |mtu| Underlay {
            name: "eth0".to_owned(),
            ifindex: 2,
            mac: [2; 6],
            mtu,
            ipv4: None,
            ipv6: None,
            addresses: Vec::new(),
        };
        assert_eq!(underlay(1500).overlay_mtu(50, MIN_OVERLAY_MTU).ok(), Some(1450));
        assert_eq!(underlay(1350).overlay_mtu(70, MIN_OVERLAY_MTU_FOR_IPV6).ok(), Some(1280));
        let refused = underlay(1349).overlay_mtu(70, MIN_OVERLAY_MTU_FOR_IPV6).unwrap_err().to_string();
        let expected =
            "use eth0 as underlay: MTU 1349 less 70 bytes of overhead is under 1280; raise it to at least 1350";
        assert_eq!(refused, expected);
    }
}
