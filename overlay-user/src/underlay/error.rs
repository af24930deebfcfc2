//! [`UnderlayError`]: why there is no underlay.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;

/// Why there is no underlay interface, or why the chosen one will not do.
#[derive(Debug, thiserror::Error)]
pub enum UnderlayError {
    /// `--iface` names nothing that exists.
    #[error("find underlay interface {0}: no interface has this name or address; see `ip address`, then set --iface")]
    NoSuchInterface(String),
    /// `--iface-regex` matches nothing.
    #[error("find underlay interface by --iface-regex {0}: no address and no interface name matches; see `ip address`")]
    NothingMatches(String),
    /// No option was given and there is no default route.
    #[error("find underlay interface: there is no default route; name the interface with --iface")]
    NoDefaultRoute,
    /// `--iface-can-reach` names an address without route.
    #[error(
        "find underlay interface by --iface-can-reach {0}: no route to it; add a route or name the interface with --iface"
    )]
    Unreachable(IpAddr),
    /// `--public-ip` alone, but no interface has that address.
    #[error(
        "find underlay interface by --public-ip {0}: not assigned to a local interface; behind a NAT give --iface as well"
    )]
    PublicIpNotLocal(Ipv4Addr),
    /// The interface is a loopback interface.
    #[error("use {0} as underlay: it is a loopback interface, other nodes cannot reach it; name another with --iface")]
    Loopback(String),
    /// The interface is an overlay device.
    #[error("use {0} as underlay: it is an overlay device itself; name another interface with --iface")]
    Overlay(String),
    /// The interface is administratively down.
    #[error("use {0} as underlay: it is down; run `ip link set {0} up` or name another with --iface")]
    Down(String),
    /// The interface has no Ethernet address.
    #[error("use {0} as underlay: it has no Ethernet address; name an Ethernet interface with --iface")]
    NotEthernet(String),
    /// The interface has no usable IPv4 address.
    #[error("use {0} as underlay: it has no usable IPv4 address; assign one or name another interface with --iface")]
    NoAddress(String),
    /// The interface has no usable address of either family.
    #[error("use {0} as underlay: it has no usable address; assign one or name another interface with --iface")]
    NoAddressAtAll(String),
    /// `--public-ipv6`, and no address to send from.
    #[error(
        "use {name} as underlay: it has no usable IPv6 address for --public-ipv6 {public_ip}; assign one or leave the option out"
    )]
    NoIpv6Address {
        /// The interface.
        name: String,
        /// What was to be published.
        public_ip: Ipv6Addr,
    },
    /// Every interface that was named, and why it is none.
    #[error("find underlay interface: {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    AllRefused(Vec<UnderlayError>),
    /// The underlay address would be routed into the overlay.
    #[error(
        "use {name} as underlay: its address {address} lies inside the overlay network {network}, \
         as the containers' do; choose another interface with --iface or another Network"
    )]
    InsideNetwork {
        /// The interface.
        name: String,
        /// Its address.
        address: IpAddr,
        /// The overlay network.
        network: IpNetwork,
    },
    /// The MTU leaves too little for the overlay.
    #[error("use {name} as underlay: MTU {mtu} less {overhead} bytes of overhead is under {least}; raise it to at least {}", least + overhead)]
    MtuTooSmall {
        /// The interface.
        name: String,
        /// Its MTU in bytes.
        mtu: u32,
        /// Bytes that encap adds.
        overhead: u32,
        /// The smallest MTU that the overlay may have.
        least: u32,
    },
    /// The network config wants larger packets than the interface takes.
    #[error(
        "use {name} as underlay: Backend.MTU {configured} is more than its MTU {mtu}; raise the interface's, or lower Backend.MTU"
    )]
    MtuBelowConfigured {
        /// The interface.
        name: String,
        /// Its MTU in bytes.
        mtu: u32,
        /// `Backend.MTU` in bytes.
        configured: u32,
    },
    /// The kernel did not answer.
    #[error("read {what} over netlink")]
    Netlink {
        /// What was asked for.
        what: &'static str,
        /// The kernel's answer.
        source: rtnetlink::Error,
    },
    /// No netlink socket could be had.
    #[error("open a netlink socket")]
    Socket(#[source] io::Error),
}
