//! [`Lease`]: a node's claim on a subnet, as datastore keys and values say it; and [`LeaseEvent`]. Pure.
//!
//! The text is flannel's, byte for byte, so that nodes of both kinds stand in one cluster. Data from the datastore
//! is foreign: whatever does not parse is an error value of one line, never a panic.

mod key;
mod value;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub use self::key::{KeyError, SubnetKey};
pub use self::value::{MAX_VALUE, ValueError};
use crate::mac::Mac;

/// A node's claim on a subnet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The subnet, and the datastore's key for it.
    pub subnet: SubnetKey,
    /// The node.
    pub node: Node,
}

/// A node as its lease presents it: the value at the lease's key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// The node's underlay address; unspecified on a node that has only IPv6.
    pub public_ip: Ipv4Addr,
    /// The node's IPv6 underlay address, if it has one.
    pub public_ipv6: Option<Ipv6Addr>,
    /// How the node wants to receive packets.
    pub backend: Backend,
}

impl Node {
    /// The address that a node is known by: that over IPv4, if it has one.
    #[must_use]
    pub fn address(&self) -> IpAddr {
        match self.public_ipv6 {
            Some(ipv6) if self.public_ip.is_unspecified() => ipv6.into(),
            _ => self.public_ip.into(),
        }
    }

    /// Whether two values present one node: flannel's rule, the PublicIP. Where one of them has no IPv4 (yet, or any more)
    /// the IPv6 addresses decide.
    #[must_use]
    pub fn is_same_as(&self, other: &Self) -> bool {
        if self.public_ip.is_unspecified() || other.public_ip.is_unspecified() {
            self.public_ipv6.is_some() && self.public_ipv6 == other.public_ipv6
        } else {
            self.public_ip == other.public_ip
        }
    }
}

/// How a node wants to receive packets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Backend {
    /// flannel's `udp`: nothing to know beyond the address.
    Udp,
    /// VXLAN.
    Vxlan {
        /// The node's tunnel end over IPv4; absent on a node that has only IPv6.
        v4: Option<Vtep>,
        /// The node's tunnel end over IPv6, if it has one.
        v6: Option<Vtep>,
    },
    /// A backend that we do not speak, by the name that the lease gives it.
    Other(String),
}

impl Backend {
    /// The name that leases and the network config give it.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Udp => "udp",
            Self::Vxlan { .. } => "vxlan",
            Self::Other(name) => name,
        }
    }
}

/// A node's VXLAN tunnel end as its lease presents it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vtep {
    /// The VXLAN network number. Informative: the network config's counts.
    pub vni: u32,
    /// The inner destination MAC address of what is sent to the node.
    pub mac: Mac,
    /// Whether the node takes packets over IPv6 whose UDP checksum is 0 (RFC 6935). Our nodes do; flannel's know no such field.
    pub takes_no_checksum: bool,
}

/// What happened to the cluster's leases.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeaseEvent {
    /// A lease is new, changed, or renewed.
    Added(Lease),
    /// The lease of this subnet is gone.
    Removed(SubnetKey),
    /// These are all leases: what is not among them is gone. Comes first, and after every gap in the watch.
    Reset(Vec<Lease>),
}

impl Lease {
    /// Reads a datastore key (without its prefix) and value.
    ///
    /// # Errors
    /// [`LeaseError`] says in one line what is wrong with either.
    pub fn parse(key: &str, value: &[u8]) -> Result<Self, LeaseError> {
        Ok(Self { subnet: key.parse()?, node: Node::parse(value)? })
    }
}

/// Why a datastore key and value are no lease. One line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LeaseError {
    /// The key is wrong.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The value is wrong.
    #[error(transparent)]
    Value(#[from] ValueError),
}
