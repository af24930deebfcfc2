//! Flows that netfilter has let through unchanged: what the fast path knows of them.

use crate::{Address, address::FIBONACCI};

/// How many entries `FLOWS` has (and `FLOWS_V6`, where the overlay has IPv6) unless the agent is told otherwise.
pub const MAX_FLOWS: u32 = 65_536;

/// The same of `CANDIDATES` and `CANDIDATES_V6`, unless the agent is told otherwise.
pub const MAX_CANDIDATES: u32 = 16_384;

/// A TCP or UDP flow as the container on this node sees it. Key of the tables of flows of each family.
///
/// One key serves both directions: what the container sends and what it receives.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FlowKey<A = [u8; 4]> {
    local: A,
    remote: A,
    local_port: [u8; 2],
    remote_port: [u8; 2],
    /// And three zeros, all written at once: LLVM would call `memset` for three bytes of padding, for each packet.
    protocol: [u8; 4],
}

const _: () = assert!(size_of::<FlowKey<[u8; 4]>>() == 16 && align_of::<FlowKey<[u8; 4]>>() == 1);
const _: () = assert!(size_of::<FlowKey<[u8; 16]>>() == 40 && align_of::<FlowKey<[u8; 16]>>() == 1);

impl<A: Address> FlowKey<A> {
    /// The flow between `local`, a container here, and `remote`, one on another node. Ports in network order.
    #[must_use]
    #[inline(always)]
    pub const fn new(protocol: u8, local: (A, [u8; 2]), remote: (A, [u8; 2])) -> Self {
        let protocol = [protocol, 0, 0, 0];
        Self { local: local.0, remote: remote.0, local_port: local.1, remote_port: remote.1, protocol }
    }

    /// What packets share that are not known to belong to a TCP or UDP flow, fragments for one: their addresses.
    #[must_use]
    #[inline(always)]
    pub const fn of_addresses(local: A, remote: A) -> Self {
        Self::new(0, (local, [0; 2]), (remote, [0; 2]))
    }

    /// A hash that is the same for all packets of the flow. The kernel's own costs more: it dissects the packet.
    #[must_use]
    #[inline(always)]
    pub fn hash(&self) -> u32 {
        let ports =
            u32::from(u16::from_ne_bytes(self.local_port)) | u32::from(u16::from_ne_bytes(self.remote_port)) << 16;
        // Once for each half of the key: every bit of it reaches the upper half of the product.
        let mixed = A::mix(self.local, self.remote).wrapping_mul(FIBONACCI);
        let mixed =
            (mixed ^ (mixed >> 32) ^ u64::from(ports) ^ (u64::from(self.protocol[0]) << 40)).wrapping_mul(FIBONACCI);
        (mixed >> 32) as u32
    }

    /// The container here: address and port.
    #[must_use]
    pub fn local(&self) -> (A::Ip, u16) {
        (self.local.ip(), u16::from_be_bytes(self.local_port))
    }

    /// The container on the other node: address and port.
    #[must_use]
    pub fn remote(&self) -> (A::Ip, u16) {
        (self.remote.ip(), u16::from_be_bytes(self.remote_port))
    }

    /// IP protocol number: TCP or UDP.
    #[must_use]
    pub const fn protocol(&self) -> u8 {
        self.protocol[0]
    }
}

/// When something was last seen, in ticks of 2^20 ns (1.05 ms) since boot; 0 is never. Wraps after 52 days.
pub type Ticks = u32;

/// How long before `now` something was. Another CPU may have noted it a moment after this one read the clock.
#[inline(always)]
const fn age(now: Ticks, then: Ticks) -> Ticks {
    const MOMENT: Ticks = 64;
    let age = now.wrapping_sub(then);
    if age > Ticks::MAX - MOMENT { 0 } else { age }
}

/// When a packet of a direction was last seen in front of netfilter and, unchanged, behind it.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sightings {
    /// In front of netfilter.
    pub before: Ticks,
    /// Behind it, with the same addresses and ports.
    pub after: Ticks,
}

impl Sightings {
    /// Whether netfilter has let the direction through unchanged within the last `ttl`.
    #[must_use]
    #[inline(always)]
    pub const fn approved(&self, now: Ticks, ttl: Ticks) -> bool {
        self.after != 0 && age(now, self.after) < ttl
    }

    /// Whether the approval wants to be renewed by sending this packet past netfilter: once in its second half for
    /// every sixteenth of it, while the other packets keep to the fast path.
    #[must_use]
    #[inline(always)]
    pub const fn wants_renewal(&self, now: Ticks, ttl: Ticks) -> bool {
        age(now, self.after) >= ttl / 2 && age(now, self.before) >= ttl / 16
    }
}

/// What is known of a flow. Value of the same tables.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Flow {
    /// What the container here sends.
    pub outgoing: Sightings,
    /// What it receives.
    pub incoming: Sightings,
}

const _: () = assert!(size_of::<Flow>() == 16 && align_of::<Flow>() == 4);

impl Flow {
    /// Whether netfilter has let both directions through unchanged within the last `ttl`.
    #[must_use]
    #[inline(always)]
    pub const fn approved(&self, now: Ticks, ttl: Ticks) -> bool {
        self.outgoing.approved(now, ttl) && self.incoming.approved(now, ttl)
    }
}

#[cfg(feature = "user")]
// SAFETY: `repr(C)` over byte arrays, no padding (asserted above), every bit pattern is valid.
unsafe impl<A: Address> aya::Pod for FlowKey<A> {}

#[cfg(feature = "user")]
// SAFETY: `repr(C)` over four `u32`, no padding (asserted above), every bit pattern is valid.
unsafe impl aya::Pod for Flow {}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Ticks = 1600;

    /// How many of 1024 bins the flows fall into that `key` makes of a host and a port.
    fn spread<A: Address>(
        key: impl Fn(u8, u16) -> FlowKey<A>,
        flow: impl Fn(u16) -> (u8, u16),
    ) -> std::collections::BTreeSet<u32> {
        let hash = |number| {
            let (host, port) = flow(number);
            key(host, port).hash() >> 22
        };
        (0..1024).map(hash).collect()
    }

    #[test]
    fn flows_that_differ_in_one_port_or_one_address_spread() {
        let v4 =
            |host: u8, port: u16| FlowKey::new(6, ([10, 1, 2, host], port.to_be_bytes()), ([10, 1, 7, 3], [0, 80]));
        let address = |subnet, host| [0xfd, 0, 0, 1, 0, 0, 0, subnet, 0, 0, 0, 0, 0, 0, 0, host];
        let v6 =
            |host: u8, port: u16| FlowKey::new(6, (address(2, host), port.to_be_bytes()), (address(7, 3), [0, 80]));
        let (ports, both) = (|number| (2, 32_768 + number), |number: u16| ((number % 32) as u8, 40_000 + number / 32));
        // 1024 balls into 1024 bins leave a third of them empty.
        for bins in [spread(v4, ports), spread(v4, both), spread(v6, ports), spread(v6, both)] {
            assert!(bins.len() > 550, "{} of 1024", bins.len());
        }
    }

    #[test]
    fn every_part_of_an_ipv6_address_counts() {
        let of = |at: usize, local: bool| {
            let mut address = [0xfd; 16];
            address[at] ^= 1;
            if local { FlowKey::of_addresses(address, [7; 16]) } else { FlowKey::of_addresses([7; 16], address) }
        };
        let keys = (0..16).flat_map(|at| [of(at, true), of(at, false)]);
        let hashes: std::collections::BTreeSet<u32> = keys.map(|key| key.hash()).collect();
        assert_eq!(hashes.len(), 32);
    }

    #[test]
    fn an_approval_ends_with_its_time() {
        let seen = Sightings { before: 100, after: 100 };
        assert!(seen.approved(100, TTL));
        assert!(seen.approved(100 + TTL - 1, TTL));
        assert!(!seen.approved(100 + TTL, TTL));
    }

    #[test]
    fn what_was_never_seen_behind_netfilter_is_not_approved() {
        assert!(!Sightings { before: 5, after: 0 }.approved(5, TTL));
    }

    #[test]
    fn both_directions_are_needed() {
        let seen = Sightings { before: 10, after: 10 };
        assert!(Flow { outgoing: seen, incoming: seen }.approved(20, TTL));
        assert!(!Flow { outgoing: seen, ..Flow::default() }.approved(20, TTL));
        assert!(!Flow { incoming: seen, ..Flow::default() }.approved(20, TTL));
    }

    #[test]
    fn approvals_survive_the_wrap_of_the_clock() {
        let seen = Sightings { before: u32::MAX - 1, after: u32::MAX - 1 };
        assert!(seen.approved(10, TTL));
    }

    #[test]
    fn what_another_cpu_noted_a_moment_later_is_fresh() {
        let seen = Sightings { before: 103, after: 103 };
        assert!(seen.approved(100, TTL));
        assert!(!seen.wants_renewal(100, TTL));
    }

    #[test]
    fn renewal_is_asked_for_by_few_packets_of_the_second_half() {
        let seen = Sightings { before: 100, after: 100 };
        assert!(!seen.wants_renewal(100 + TTL / 2 - 1, TTL));
        assert!(seen.wants_renewal(100 + TTL / 2, TTL));
        let asked = Sightings { before: 100 + TTL / 2, after: 100 };
        assert!(!asked.wants_renewal(101 + TTL / 2, TTL));
        assert!(asked.wants_renewal(100 + TTL / 2 + TTL / 16, TTL));
    }
}
