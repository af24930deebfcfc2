//! The way to the next hop: out of the underlay interface, to which MAC address.
//!
//! The kernel knows it: `bpf_redirect_neigh` looks the route and the neighbour up for each packet, which takes longer than
//! all the rest of encapsulation. So the answer is kept for a moment, and only the packet that finds it stale goes the
//! kernel's way. Through that one packet the kernel keeps its neighbour entry resolved and probed, as it would for its own
//! traffic: nobody else has to.

use core::net::Ipv4Addr;

use aya_ebpf::{macros::map, maps::PerCpuArray};
use overlay_common::{LocalNode, Neighbour};

use crate::{
    Verdict, clock,
    encap::{ETHER_IPV4, Ethernet},
    packet::TcPacket,
};

/// What the kernel said last, by [`Neighbour::slot`]. Per CPU: nobody reads what another writes meanwhile.
#[map]
static NEIGHBOURS: PerCpuArray<Neighbour> = PerCpuArray::with_max_entries(Neighbour::SLOTS, 0);

/// How one packet gets to its next hop.
pub(crate) struct Way {
    /// The frame's header, if it is known already; otherwise the kernel writes it.
    pub(crate) ethernet: Option<Ethernet>,
    /// What the IPv4 identification counts up from.
    pub(crate) id: u16,
}

/// The way of a packet, or of `packets` in one, to `next_hop`.
#[inline(always)]
pub(crate) fn way(packet: &TcPacket, node: &LocalNode, next_hop: Ipv4Addr, packets: u64) -> Way {
    let now = clock::now();
    let Some(known) = NEIGHBOURS.get_ptr_mut(Neighbour::slot(next_hop)) else { return Way { ethernet: None, id: 0 } };
    // SAFETY: the value belongs to this CPU; where one program interrupts another there, an identification is used twice.
    let known = unsafe { &mut *known };
    let id = known.count(packets);
    if !known.leads_to(next_hop, now) {
        if let Some(found) = packet.look_up_neighbour(node, next_hop) {
            known.note(next_hop, found, now);
        }
        return Way { ethernet: None, id };
    }
    let (destination, source) = (known.destination(), known.source());
    Way { ethernet: Some(Ethernet { destination, source, ether_type: ETHER_IPV4 }), id }
}

/// Sends an outer packet its way.
#[inline(always)]
pub(crate) fn send(packet: &mut TcPacket, node: &LocalNode, way: &Way) -> Verdict {
    match way.ethernet {
        Some(_) => packet.redirect_out(node.underlay_ifindex),
        None => packet.redirect_to_neighbour(node.underlay_ifindex),
    }
}
