//! The contract between the eBPF programs and the agent.
//!
//! Everything here is `no_std`, does no I/O and has no `unsafe` beyond the `Pod` markers. The rules that every
//! type which crosses the border keeps:
//!
//! - Addresses, ports and network numbers are bytes in **network order**; only the types of [`core::net`] and
//!   host integers leave the getters that are for people. A node's address on the underlay is an [`UnderlayAddress`],
//!   of either family; what is inside the overlay keeps the length that it has on the wire, and is generic over [`Address`].
//! - What the kernel API itself counts in host order (interface indexes, counters) is a `u32` or `u64` in host order.
//! - Padding is written out and zero; no `bool`, no `usize`; the layout is asserted beside the type.
//!
//! `bpf-maps.md` describes the maps that these types live in, and a test compares it with the compiled object.
#![no_std]

#[cfg(test)]
extern crate std;

mod address;
#[cfg(test)]
mod bytes;
mod ecn;
mod endpoint;
mod event;
mod flow;
mod ip;
mod neighbour;
mod node;
mod node_subnets;
mod outer;
mod range;
mod reason;
mod route;
mod selection;
mod traffic;

pub use address::{Address, UnderlayAddress};
pub use ecn::{CeOnNotEct, decapsulated_tos};
pub use endpoint::Endpoint;
pub use event::{Event, Program, Slow, Step, Tuple};
pub use flow::{Flow, FlowKey, MAX_CANDIDATES, MAX_FLOWS, Sightings, Ticks};
pub use ip::{IpHeader, ipv4_checksum, updated_checksum};
pub use neighbour::Neighbour;
pub use node::{Device, Encapsulation, Family, LocalNode, Vtep};
pub use node_subnets::NodeSubnets;
pub use outer::{FlowLabel, UdpHeaders, VXLAN_INNER_OFFSET, VxlanHeaders};
pub use range::Range;
pub use reason::{Advice, Reason};
pub use route::Route;
pub use selection::{Pace, Selection};
pub use traffic::Traffic;

/// Magic value in front of a packet that `xdp_decap` has decapsulated, in the packet's metadata area.
///
/// Only an XDP program can write there, so a packet from the wire cannot carry it.
pub const XDP_DECAPSULATED: u32 = 0x6f76_6c79;
