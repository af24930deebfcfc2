//! The fast path's memory: which flows netfilter lets through unchanged. Each family has tables of its own.
//!
//! A packet is seen in front of netfilter (`from_container`, `from_underlay`) and behind it (`to_overlay`,
//! `to_container`). Seen on both sides with the same addresses and ports, it was neither dropped nor translated: the
//! direction is approved for a while. A flow with both directions approved moves from `CANDIDATES`, which a flood of new
//! flows may wash through, to `FLOWS`, which it cannot reach. Before the approval ends a few packets go past netfilter
//! again; a rule that drops them lets the approval run out.
//!
//! TCP packets with SYN, FIN or RST end whatever approval there is: conntrack must see them, and a new connection on
//! old ports starts anew.

#![expect(
    clippy::needless_borrows_for_generic_args,
    reason = "a key of IPv6 is 40 bytes: handed over by value it would be copied on the stack"
)]

use aya_ebpf::{Global, macros::map, maps::LruHashMap};
use overlay_common::{Address, Flow, FlowKey, MAX_CANDIDATES, MAX_FLOWS, Sightings, Slow, Ticks};

use crate::{clock, inner::Inner, packet::Packet};

/// Flows with both directions approved.
#[map]
static FLOWS: LruHashMap<FlowKey, Flow> = LruHashMap::with_max_entries(MAX_FLOWS, 0);

/// Flows that may be approved one day.
#[map]
static CANDIDATES: LruHashMap<FlowKey, Flow> = LruHashMap::with_max_entries(MAX_CANDIDATES, 0);

/// The same for IPv6. The agent makes it small where the overlay has none.
#[map]
static FLOWS_V6: LruHashMap<FlowKey<[u8; 16]>, Flow> = LruHashMap::with_max_entries(MAX_FLOWS, 0);

/// The same for IPv6.
#[map]
static CANDIDATES_V6: LruHashMap<FlowKey<[u8; 16]>, Flow> = LruHashMap::with_max_entries(MAX_CANDIDATES, 0);

/// The tables of flows of one family.
pub(crate) struct Tables<A: 'static> {
    flows: &'static LruHashMap<FlowKey<A>, Flow>,
    candidates: &'static LruHashMap<FlowKey<A>, Flow>,
}

/// An address whose flows are remembered.
pub(crate) trait Remembered: Address {
    /// Its family's tables.
    fn tables() -> Tables<Self>;
}

impl Remembered for [u8; 4] {
    #[inline(always)]
    fn tables() -> Tables<Self> {
        Tables { flows: &FLOWS, candidates: &CANDIDATES }
    }
}

impl Remembered for [u8; 16] {
    #[inline(always)]
    fn tables() -> Tables<Self> {
        Tables { flows: &FLOWS_V6, candidates: &CANDIDATES_V6 }
    }
}

/// How long an approval lasts; 0 switches the fast path off, and the verifier takes its code out.
/// In a section of its own, as `ENCAPSULATION` is.
#[unsafe(link_section = ".rodata.flow_ttl")]
#[unsafe(no_mangle)]
static FLOW_TTL: Global<u32> = Global::new(0);

/// How long after a packet was seen in front of netfilter it may turn up behind it: about a second.
const CROSSING: Ticks = 1000;

const PROTO_TCP: u8 = 6;
const PROTO_UDP: u8 = 17;
const TCP_FIN_SYN_RST: u8 = 0b0000_0111;
/// The first bytes of TCP and UDP alike.
#[repr(C)]
struct Ports {
    source: [u8; 2],
    destination: [u8; 2],
}
/// The TCP header from its start to its flags.
#[repr(C)]
struct TcpStart {
    _before: [u8; 12],
    offset: u8,
    flags: u8,
}

/// The direction of a packet, seen from the container on this node.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    /// The container here sent it.
    Outgoing,
    /// It is for the container here.
    Incoming,
}

/// A packet that the fast path may one day carry.
pub(crate) struct Candidate<A> {
    key: FlowKey<A>,
    /// Bytes of IP and TCP or UDP header together.
    pub(crate) headers: u32,
    /// It opens or closes a connection.
    control: bool,
}

impl<A: Address> Candidate<A> {
    /// The same for all packets of the flow in one direction.
    #[inline(always)]
    pub(crate) fn hash(&self) -> u32 {
        self.key.hash()
    }
}

/// Whether the fast path is on.
#[inline(always)]
pub(crate) fn enabled() -> bool {
    FLOW_TTL.load() != 0
}

/// What the IP packet at `offset` is to the fast path: `None` unless it is a whole TCP or UDP packet without options or
/// extension headers.
#[inline(always)]
pub(crate) fn candidate<I: Inner>(
    packet: &impl Packet,
    offset: usize,
    direction: Direction,
) -> Option<Candidate<I::Address>> {
    let ip = packet.header::<I>(offset).ok()?;
    let protocol = ip.transport()?;
    let transport = offset + size_of::<I>();
    let ports = packet.header::<Ports>(transport).ok()?;
    let (transport_len, control) = match protocol {
        PROTO_UDP => (8, false),
        PROTO_TCP => {
            let tcp = packet.header::<TcpStart>(transport).ok()?;
            (u32::from(tcp.offset >> 4) * 4, tcp.flags & TCP_FIN_SYN_RST != 0)
        }
        _ => return None,
    };
    let (source, destination) = ((ip.source(), ports.source), (ip.destination(), ports.destination));
    let key = match direction {
        Direction::Outgoing => FlowKey::new(protocol, source, destination),
        Direction::Incoming => FlowKey::new(protocol, destination, source),
    };
    Some(Candidate { key, headers: size_of::<I>() as u32 + transport_len, control })
}

/// In front of netfilter: whether the packet may skip it. If not, the sighting is noted.
#[inline(always)]
pub(crate) fn may_skip_netfilter<A: Remembered>(packet: &Candidate<A>, direction: Direction) -> Result<(), Slow> {
    let Tables { flows, candidates } = A::tables();
    if packet.control {
        // Nothing to undo when there is no such entry.
        flows.remove(&packet.key).ok();
        candidates.remove(&packet.key).ok();
        return Err(Slow::Control);
    }
    let (now, ttl) = (clock::now(), FLOW_TTL.load());
    if let Some(flow) = flows.get_ptr_mut(&packet.key) {
        // SAFETY: the element lives as long as the program runs; two CPUs that write one time at once write nearly the
        // same, and either value is right.
        let flow = unsafe { &mut *flow };
        let renew = flow_side(flow, direction).wants_renewal(now, ttl);
        let approved = flow.approved(now, ttl);
        if approved && !renew {
            return Ok(());
        }
        flow_side(flow, direction).before = now;
        return Err(if approved { Slow::Renewal } else { Slow::NotApproved });
    }
    note_candidate(packet, direction, now);
    Err(Slow::NotApproved)
}

#[inline(always)]
fn note_candidate<A: Remembered>(packet: &Candidate<A>, direction: Direction, now: Ticks) {
    let candidates = A::tables().candidates;
    if let Some(flow) = candidates.get_ptr_mut(&packet.key) {
        // SAFETY: as in `may_skip_netfilter`.
        flow_side(unsafe { &mut *flow }, direction).before = now;
        return;
    }
    let mut flow = Flow::default();
    flow_side(&mut flow, direction).before = now;
    // A table that is full of busy flows refuses: then this one keeps to netfilter.
    candidates.insert(&packet.key, flow, 0).ok();
}

/// Behind netfilter: notes that it has let the packet through as it was seen in front.
#[inline(always)]
pub(crate) fn note_behind_netfilter<A: Remembered>(packet: &Candidate<A>, direction: Direction) {
    let Tables { flows, candidates } = A::tables();
    if packet.control {
        return;
    }
    let now = clock::now();
    if let Some(flow) = flows.get_ptr_mut(&packet.key) {
        // SAFETY: as in `may_skip_netfilter`.
        approve(unsafe { &mut *flow }, direction, now);
        return;
    }
    let Some(flow) = candidates.get_ptr_mut(&packet.key) else { return };
    // SAFETY: as in `may_skip_netfilter`.
    let flow = unsafe { &mut *flow };
    approve(flow, direction, now);
    if flow.approved(now, FLOW_TTL.load()) {
        // As above: refused, the flow keeps to netfilter.
        flows.insert(&packet.key, *flow, 0).ok();
    }
}

#[inline(always)]
fn approve(flow: &mut Flow, direction: Direction, now: Ticks) {
    let side = flow_side(flow, direction);
    if side.before != 0 && now.wrapping_sub(side.before) <= CROSSING {
        side.after = now;
    }
}

#[inline(always)]
fn flow_side(flow: &mut Flow, direction: Direction) -> &mut Sightings {
    match direction {
        Direction::Outgoing => &mut flow.outgoing,
        Direction::Incoming => &mut flow.incoming,
    }
}
