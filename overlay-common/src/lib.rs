//! The contract between the eBPF programs and the agent.
//!
//! Everything here is `no_std`, does no I/O and has no `unsafe` beyond the `Pod` markers. The rules that every
//! type which crosses the border keeps:
//!
//! - Addresses, ports and network numbers are bytes in **network order**; only [`core::net::Ipv4Addr`] and host
//!   integers leave the getters.
//! - What the kernel API itself counts in host order (interface indexes, counters) is a `u32` or `u64` in host order.
//! - Padding is written out and zero; no `bool`, no `usize`; the layout is asserted beside the type.
//!
//! `bpf-maps.md` describes the maps that these types live in, and a test compares it with the compiled object.
#![no_std]

#[cfg(test)]
extern crate std;

mod ecn;
mod endpoint;
mod event;
mod flow;
mod neighbour;
mod node;
mod outer;
mod reason;
mod route;
mod selection;
mod traffic;

pub use ecn::{CeOnNotEct, decapsulated_tos};
pub use endpoint::Endpoint;
pub use event::{Event, Program, Slow, Step, Tuple};
pub use flow::{Flow, FlowKey, MAX_CANDIDATES, MAX_FLOWS, Sightings, Ticks};
pub use neighbour::Neighbour;
pub use node::{Encapsulation, LocalNode, Vtep};
pub use outer::{FlowLabel, IPV4_HEADER, UdpHeaders, VxlanHeaders, ipv4_checksum, updated_checksum, with_tos_and_ttl};
pub use reason::{Advice, Reason};
pub use route::Route;
pub use selection::{Pace, Selection};
pub use traffic::Traffic;

/// Magic value in front of a packet that `xdp_decap` has decapsulated, in the packet's metadata area.
///
/// Only an XDP program can write there, so a packet from the wire cannot carry it.
pub const XDP_DECAPSULATED: u32 = 0x6f76_6c79;
