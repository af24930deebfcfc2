//! The way to the next hop: out of the underlay interface, to which MAC address.
//!
//! The kernel knows it: `bpf_redirect_neigh` looks the route and the neighbour up for each packet, which takes longer than
//! all the rest of encapsulation. So the answer is kept for a moment, and only the packet that finds it stale goes the
//! kernel's way. Through that one packet the kernel keeps its neighbour entry resolved and probed, as it would for its own
//! traffic: nobody else has to.

use aya_ebpf::{macros::map, maps::PerCpuArray};
use overlay_common::{LocalNode, Neighbour, UnderlayAddress};

use crate::{
    Verdict, clock,
    outer::Outer,
    packet::{Ethernet, Packet as _, TcPacket},
};

/// What the kernel said last, by [`Neighbour::slot`]. Per CPU: nobody reads what another writes meanwhile.
#[map]
static NEIGHBOURS: PerCpuArray<Neighbour> = PerCpuArray::with_max_entries(Neighbour::SLOTS, 0);

/// How one packet gets to its next hop.
pub(crate) struct Way {
    /// The frame's header, if it is known already; otherwise the kernel writes it.
    pub(crate) ethernet: Option<Ethernet>,
    /// What the identification counts up from, if the outer packet is IPv4.
    pub(crate) id: u16,
}

/// The way of a packet, or of several in one, to `next_hop`.
#[inline(always)]
pub(crate) fn way<O: Outer>(packet: &TcPacket, node: &LocalNode, next_hop: UnderlayAddress) -> Way {
    let now = clock::now();
    let Some(known) = NEIGHBOURS.get_ptr_mut(Neighbour::slot(next_hop)) else { return Way { ethernet: None, id: 0 } };
    // SAFETY: the value belongs to this CPU; where one program interrupts another there, an identification is used twice.
    let known = unsafe { &mut *known };
    let id = known.count(packet.wire_packets());
    if !known.leads_to(next_hop, now) {
        ask::<O>(packet, node, known, next_hop);
        return Way { ethernet: None, id };
    }
    let (destination, source) = (known.destination(), known.source());
    Way { ethernet: Some(Ethernet { destination, source, ether_type: O::ETHER_TYPE }), id }
}

/// Asks the kernel. A function of its own, with a stack of its own: it is called ten times a second.
#[inline(never)]
fn ask<O: Outer>(packet: &TcPacket, node: &LocalNode, known: &mut Neighbour, next_hop: UnderlayAddress) {
    if let Some(found) = packet.look_up_neighbour::<O>(node, next_hop) {
        known.note(next_hop, found, clock::now());
    }
}

/// Sends an outer packet its way.
#[inline(always)]
pub(crate) fn send(packet: &mut TcPacket, node: &LocalNode, way: &Way) -> Verdict {
    match way.ethernet {
        Some(_) => packet.redirect_out(node.underlay_ifindex),
        None => packet.redirect_to_neighbour(node.underlay_ifindex),
    }
}
