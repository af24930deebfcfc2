//! [`Neighbour`]: the Ethernet addresses of the way to a node, as the kernel knew them a moment ago.

use crate::{Ticks, UnderlayAddress};

/// How outer packets for one node travel on the underlay. Value of `NEIGHBOURS`, one per CPU.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Neighbour {
    next_hop: UnderlayAddress,
    destination: [u8; 6],
    source: [u8; 6],
    read_at: Ticks,
    packets: u32,
}

const _: () = assert!(size_of::<Neighbour>() == 36 && align_of::<Neighbour>() == 4);

impl Neighbour {
    /// How many there is room for, on each CPU.
    pub const SLOTS: u32 = 4096;

    /// For so long the kernel is believed: about 0.1 s. After that one packet goes the kernel's way, which keeps its
    /// neighbour entry in use and probed, and its answer is read again.
    pub const FRESH: Ticks = 100;

    /// Notes the way to `next_hop`, read at `now`: frames go to `destination`, with `source` as their sender.
    #[inline(always)]
    pub fn note(&mut self, next_hop: UnderlayAddress, (destination, source): ([u8; 6], [u8; 6]), now: Ticks) {
        (self.next_hop, self.destination, self.source, self.read_at) = (next_hop, destination, source, now);
    }

    /// Counts `packets` more that take this way, and returns how many took it before: where their identifications start,
    /// if it is IPv4. Segments of one super-packet count up, and so does what follows it: then receivers can merge them all.
    #[inline(always)]
    pub fn count(&mut self, packets: u64) -> u16 {
        let before = self.packets;
        self.packets = before.wrapping_add(packets as u32);
        before as u16
    }

    /// Where `next_hop` is noted. Another node may claim the same place; the later one has it then.
    #[must_use]
    #[inline(always)]
    pub const fn slot(next_hop: UnderlayAddress) -> u32 {
        // Nodes of one rack differ in the last bytes: spread by Knuth's multiplicative hash.
        next_hop.low().wrapping_mul(0x9e37_79b1) >> (32 - Self::SLOTS.ilog2())
    }

    /// Whether this says how to reach `next_hop` at `now`.
    #[must_use]
    #[inline(always)]
    pub fn leads_to(&self, next_hop: UnderlayAddress, now: Ticks) -> bool {
        self.next_hop == next_hop && now.wrapping_sub(self.read_at) < Self::FRESH
    }

    /// The node that this is about; unspecified where nothing was noted.
    #[must_use]
    pub const fn next_hop(&self) -> UnderlayAddress {
        self.next_hop
    }

    /// MAC address of the node, or of the router to it.
    #[must_use]
    #[inline(always)]
    pub const fn destination(&self) -> [u8; 6] {
        self.destination
    }

    /// MAC address of the underlay interface.
    #[must_use]
    #[inline(always)]
    pub const fn source(&self) -> [u8; 6] {
        self.source
    }

    /// How many packets took this way.
    #[must_use]
    pub const fn packets(&self) -> u32 {
        self.packets
    }

    /// When the kernel was asked.
    #[must_use]
    pub const fn read_at(&self) -> Ticks {
        self.read_at
    }
}

#[cfg(feature = "user")]
// SAFETY: `repr(C)`, no padding (asserted above), every bit pattern is valid.
unsafe impl aya::Pod for Neighbour {}

#[cfg(test)]
mod tests {
    use core::net::{Ipv4Addr, Ipv6Addr};
    use std::collections::BTreeSet;

    use super::*;

    fn node() -> UnderlayAddress {
        Ipv4Addr::new(192, 168, 50, 1).into()
    }

    fn read_at(now: Ticks) -> Neighbour {
        let mut neighbour = Neighbour::default();
        neighbour.note(node(), ([2; 6], [4; 6]), now);
        neighbour
    }

    #[test]
    fn the_kernel_is_believed_for_a_moment() {
        let neighbour = read_at(1000);
        assert!(neighbour.leads_to(node(), 1000) && neighbour.leads_to(node(), 1000 + Neighbour::FRESH - 1));
        assert!(!neighbour.leads_to(node(), 1000 + Neighbour::FRESH));
        assert!(read_at(u32::MAX).leads_to(node(), 5), "the clock wraps");
    }

    #[test]
    fn another_node_in_the_same_slot_is_not_taken_for_this_one() {
        assert!(!read_at(1000).leads_to(Ipv4Addr::new(192, 168, 50, 2).into(), 1000));
    }

    #[test]
    fn identifications_go_on_where_they_were_when_the_way_is_read_again() {
        let mut neighbour = read_at(1000);
        assert_eq!((neighbour.count(44), neighbour.count(1)), (0, 44));
        neighbour.note(node(), ([2; 6], [4; 6]), 1200);
        assert_eq!(neighbour.count(1), 45);
    }

    #[test]
    fn the_nodes_of_a_rack_have_slots_of_their_own() {
        let rack: [fn(u8) -> UnderlayAddress; 2] = [
            |host| Ipv4Addr::new(10, 0, 7, host).into(),
            |host| Ipv6Addr::new(0xfd50, 0, 0, 7, 0, 0, 0, host.into()).into(),
        ];
        for node in rack {
            let slots: BTreeSet<u32> = (0..=255).map(|host| Neighbour::slot(node(host))).collect();
            assert_eq!(slots.len(), 256);
            assert!(slots.iter().all(|slot| *slot < Neighbour::SLOTS));
        }
    }
}
