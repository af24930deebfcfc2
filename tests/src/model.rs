//! What the programs do to a packet: a specification that runs.
//!
//! Written from the RFCs, from `bpf-maps.md` and from the words of [`Reason`], over plain byte slices and without
//! any code of the programs. Where several reasons fit a packet, the order of the checks in `encap` and
//! `decap` says which one is counted. `tests/fuzz` holds the programs to it.
//!
//! Left to the node, and written here as [`SOURCE_PORT`], [`IDENTIFICATION`] and [`FLOW_LABEL`]: the outer source port,
//! anything in the dynamic range, and IPv4's identification or IPv6's flow label of the outer packet.
//!
//! It knows both families of IP, each inside and outside. `udp` has IPv4 alone.

mod decap;
mod encap;
mod headers;
mod icmp;
mod ip;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, net::IpAddr};

use ipnetwork::IpNetwork;
use overlay_common::{Encapsulation, Reason, Traffic};

pub use headers::canonical;

/// The outer source port of the model: the first of the dynamic range (RFC 6335).
pub const SOURCE_PORT: u16 = 49_152;
/// The identification in the outer IP header of the model.
pub const IDENTIFICATION: u16 = 0;
/// The flow label in the outer IPv6 header of the model.
pub const FLOW_LABEL: u32 = 0;

/// A program of the slow path. The model says nothing of the fast path, of the programs at a container's door, nor of
/// `admit`, which looks at a mark alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Program {
    /// Encap, on what the kernel has routed into the overlay device.
    ToOverlay,
    /// Decap, on what the underlay interface has received.
    FromUnderlay,
    /// Decap, before the kernel has seen the frame.
    XdpDecap,
}

impl Program {
    /// Its name in the object.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ToOverlay => "to_overlay",
            Self::FromUnderlay => "from_underlay",
            Self::XdpDecap => "xdp_decap",
        }
    }
}

/// All that a verdict depends on beside the packet.
#[derive(Debug, Clone)]
pub struct Facts {
    /// How packets travel in this cluster.
    pub encapsulation: Encapsulation,
    /// This node; `None` until the agent has written `LOCAL_NODE`.
    pub node: Option<Node>,
    /// Who owns which remote subnet.
    pub routes: BTreeMap<IpNetwork, Hop>,
}

/// A version of IP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The family of an address.
    #[must_use]
    pub const fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }
}

/// A thing that there may be of either family.
#[derive(Debug, Clone, Copy)]
pub struct PerFamily<T> {
    /// The one of IPv4.
    pub v4: Option<T>,
    /// The one of IPv6.
    pub v6: Option<T>,
}

impl<T> PerFamily<T> {
    /// The one of this family.
    #[must_use]
    pub const fn of(&self, family: Family) -> Option<&T> {
        match family {
            Family::V4 => self.v4.as_ref(),
            Family::V6 => self.v6.as_ref(),
        }
    }
}

/// This node.
#[derive(Debug, Clone, Copy)]
pub struct Node {
    /// Its tunnel ends.
    pub ends: PerFamily<End>,
    /// The UDP port on every node of the cluster.
    pub port: u16,
    /// The VXLAN network number.
    pub vni: u32,
    /// The overlay's addresses.
    pub ranges: PerFamily<Range>,
}

/// The tunnel end over one family of the underlay.
#[derive(Debug, Clone, Copy)]
pub struct End {
    /// Where outer packets come from and go to.
    pub address: IpAddr,
    /// The MAC address of the overlay device.
    pub mac: [u8; 6],
}

/// The overlay's addresses of one family.
#[derive(Debug, Clone, Copy)]
pub struct Range {
    /// The overlay network.
    pub network: IpNetwork,
    /// The subnet of the network that the node owns.
    pub subnet: IpNetwork,
}

impl Node {
    /// The device that the overlay network of this family is routed to: that over the same family of the underlay, or
    /// else the only one.
    fn usual_end(&self, family: Family) -> Option<&End> {
        self.ends.of(family).or(self.ends.v4.as_ref()).or(self.ends.v6.as_ref())
    }
}

/// The node that owns a remote subnet.
#[derive(Debug, Clone, Copy)]
pub struct Hop {
    /// Its underlay address.
    pub address: IpAddr,
    /// Its VTEP's MAC address; no meaning for `udp`.
    pub mac: [u8; 6],
    /// Whether it is on our own link and may send without encapsulation.
    pub direct: bool,
}

impl Facts {
    /// The remote subnet that `address` lies in, and its owner.
    fn route(&self, address: IpAddr) -> Option<(IpNetwork, Hop)> {
        self.routes.iter().find(|(subnet, _)| subnet.contains(address)).map(|(subnet, hop)| (*subnet, *hop))
    }

    /// Whether a node with this underlay address owns a subnet.
    fn is_node(&self, address: IpAddr) -> bool {
        self.routes.values().any(|hop| hop.address == address)
    }

    /// The family of packets with this EtherType, if the overlay carries it. A `LOCAL_NODE` that nobody has written describes
    /// an overlay of neither.
    fn inner_family(&self, ether_type: u16) -> Option<Family> {
        let carries = |family: &Family| self.node.is_some_and(|node| node.ranges.of(*family).is_some());
        Family::of_ether_type(ether_type).filter(carries)
    }
}

/// A super-packet: one that the kernel will cut into segments, or has put together from them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Super {
    /// Segments that it stands for; 0 when nobody has counted them.
    pub segments: u32,
    /// Whether it is of a kind that the kernel can put headers in front of, and take headers from: TCP is, UDP is.
    pub resizable: bool,
}

/// How many packets on the wire a packet is.
fn wire_packets(super_packet: Option<Super>) -> u64 {
    super_packet.map_or(1, |of| u64::from(of.segments.max(1)))
}

/// What becomes of a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// It goes on to the kernel as it came.
    Untouched,
    /// It is dropped, and counted under this reason.
    Dropped(Reason),
    /// It counts as dropped for this reason, and these bytes go back to its sender instead.
    Answered(Reason, Vec<u8>),
    /// It goes on with these bytes.
    Becomes(Vec<u8>),
}

/// What becomes of a packet, and what is counted in `TRAFFIC`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// What becomes of it.
    pub fate: Fate,
    /// The network address of the remote subnet, and what is added to its count.
    pub counted: Option<(IpAddr, Traffic)>,
}

impl Expected {
    /// Not ours: passes uncounted.
    const UNTOUCHED: Self = Self { fate: Fate::Untouched, counted: None };
}

/// What `program` does to `packet`, an Ethernet frame, on a node with these `facts`.
///
/// `super_packet` is `None` for an ordinary packet, and always for `xdp_decap`.
#[must_use]
pub fn expect(facts: &Facts, program: Program, packet: &[u8], super_packet: Option<Super>) -> Expected {
    let expected = match program {
        Program::ToOverlay => encap::encap(facts, packet, super_packet),
        Program::FromUnderlay => decap::from_underlay(facts, packet, super_packet),
        Program::XdpDecap => decap::xdp_decap(facts, packet),
    };
    expected.unwrap_or_else(|reason| Expected { fate: Fate::Dropped(reason), counted: None })
}
