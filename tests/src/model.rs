//! What the programs do to a packet: a specification that runs.
//!
//! Written from the RFCs, from `bpf-maps.md` and from the words of [`Reason`], over plain byte slices and without
//! any code of the programs. Where several reasons fit a packet, the order of the checks in `encap` and
//! `decap` says which one is counted. `tests/fuzz` holds the programs to it.
//!
//! Left to the node, and written here as [`SOURCE_PORT`] and [`IDENTIFICATION`]: the outer source port, anything
//! in the dynamic range, and the identification of the outer packet.

mod decap;
mod encap;
mod headers;
mod icmp;

use std::{collections::BTreeMap, net::Ipv4Addr};

use ipnetwork::Ipv4Network;
use overlay_common::{Encapsulation, Reason, Traffic, Vtep};

pub use headers::canonical;

/// The outer source port of the model: the first of the dynamic range (RFC 6335).
pub const SOURCE_PORT: u16 = 49_152;
/// The identification in the outer IP header of the model.
pub const IDENTIFICATION: u16 = 0;

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
    pub routes: BTreeMap<Ipv4Network, Hop>,
}

/// This node.
#[derive(Debug, Clone, Copy)]
pub struct Node {
    /// Its tunnel end.
    pub vtep: Vtep,
    /// The overlay network.
    pub network: Ipv4Network,
    /// The subnet of the network that it owns.
    pub subnet: Ipv4Network,
}

/// The node that owns a remote subnet.
#[derive(Debug, Clone, Copy)]
pub struct Hop {
    /// Its underlay address.
    pub address: Ipv4Addr,
    /// Its VTEP's MAC address; no meaning for `udp`.
    pub mac: [u8; 6],
    /// Whether it is on our own link and may send without encapsulation.
    pub direct: bool,
}

impl Facts {
    /// The remote subnet that `address` lies in, and its owner.
    fn route(&self, address: Ipv4Addr) -> Option<(Ipv4Network, Hop)> {
        self.routes.iter().find(|(subnet, _)| subnet.contains(address)).map(|(subnet, hop)| (*subnet, *hop))
    }

    /// Whether a node with this underlay address owns a subnet.
    fn is_node(&self, address: Ipv4Addr) -> bool {
        self.routes.values().any(|hop| hop.address == address)
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
    pub counted: Option<(Ipv4Addr, Traffic)>,
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
