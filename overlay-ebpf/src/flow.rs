//! The fast path's memory: which flows netfilter lets through unchanged.
//!
//! A packet is seen in front of netfilter (`from_container`, `from_underlay`) and behind it (`to_overlay`,
//! `to_container`). Seen on both sides with the same addresses and ports, it was neither dropped nor translated: the
//! direction is approved for a while. A flow with both directions approved moves from `CANDIDATES`, which a flood of new
//! flows may wash through, to `FLOWS`, which it cannot reach. Before the approval ends a few packets go past netfilter
//! again; a rule that drops them lets the approval run out.
//!
//! TCP packets with SYN, FIN or RST end whatever approval there is: conntrack must see them, and a new connection on
//! old ports starts anew.

use aya_ebpf::{Global, macros::map, maps::LruHashMap};
use network_types::ip::Ipv4Hdr;
use overlay_common::{Flow, FlowKey, MAX_CANDIDATES, MAX_FLOWS, Sightings, Slow, Ticks};

use crate::{clock, packet::Packet};

/// Flows with both directions approved.
#[map]
static FLOWS: LruHashMap<FlowKey, Flow> = LruHashMap::with_max_entries(MAX_FLOWS, 0);

/// Flows that may be approved one day.
#[map]
static CANDIDATES: LruHashMap<FlowKey, Flow> = LruHashMap::with_max_entries(MAX_CANDIDATES, 0);

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
pub(crate) struct Candidate {
    key: FlowKey,
    /// Bytes of IP and TCP or UDP header together.
    pub(crate) headers: u32,
    /// It opens or closes a connection.
    control: bool,
}

impl Candidate {
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

/// What the IP packet at `offset` is to the fast path: `None` unless it is a whole TCP or UDP packet without options.
#[inline(always)]
pub(crate) fn candidate<P: Packet>(packet: &P, offset: usize, direction: Direction) -> Option<Candidate> {
    let ip = packet.header::<Ipv4Hdr>(offset).ok()?;
    if ip.vihl != 0x45 || ip.frag_offset() != 0 || ip.frag_flags() & 0b001 != 0 {
        return None;
    }
    let transport = offset + Ipv4Hdr::LEN;
    let ports = packet.header::<Ports>(transport).ok()?;
    let (transport_len, control) = match ip.proto {
        PROTO_UDP => (8, false),
        PROTO_TCP => {
            let tcp = packet.header::<TcpStart>(transport).ok()?;
            (u32::from(tcp.offset >> 4) * 4, tcp.flags & TCP_FIN_SYN_RST != 0)
        }
        _ => return None,
    };
    let (source, destination) = ((ip.src_addr, ports.source), (ip.dst_addr, ports.destination));
    let key = match direction {
        Direction::Outgoing => FlowKey::new(ip.proto, source, destination),
        Direction::Incoming => FlowKey::new(ip.proto, destination, source),
    };
    Some(Candidate { key, headers: Ipv4Hdr::LEN as u32 + transport_len, control })
}

/// In front of netfilter: whether the packet may skip it. If not, the sighting is noted.
#[inline(always)]
pub(crate) fn may_skip_netfilter(packet: &Candidate, direction: Direction) -> Result<(), Slow> {
    if packet.control {
        // Nothing to undo when there is no such entry.
        FLOWS.remove(packet.key).ok();
        CANDIDATES.remove(packet.key).ok();
        return Err(Slow::Control);
    }
    let (now, ttl) = (clock::now(), FLOW_TTL.load());
    if let Some(flow) = FLOWS.get_ptr_mut(packet.key) {
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
fn note_candidate(packet: &Candidate, direction: Direction, now: Ticks) {
    if let Some(flow) = CANDIDATES.get_ptr_mut(packet.key) {
        // SAFETY: as in `may_skip_netfilter`.
        flow_side(unsafe { &mut *flow }, direction).before = now;
        return;
    }
    let mut flow = Flow::default();
    flow_side(&mut flow, direction).before = now;
    // A table that is full of busy flows refuses: then this one keeps to netfilter.
    CANDIDATES.insert(packet.key, flow, 0).ok();
}

/// Behind netfilter: notes that it has let the packet through as it was seen in front.
#[inline(always)]
pub(crate) fn note_behind_netfilter(packet: &Candidate, direction: Direction) {
    if packet.control {
        return;
    }
    let now = clock::now();
    if let Some(flow) = FLOWS.get_ptr_mut(packet.key) {
        // SAFETY: as in `may_skip_netfilter`.
        approve(unsafe { &mut *flow }, direction, now);
        return;
    }
    let Some(flow) = CANDIDATES.get_ptr_mut(packet.key) else { return };
    // SAFETY: as in `may_skip_netfilter`.
    let flow = unsafe { &mut *flow };
    approve(flow, direction, now);
    if flow.approved(now, FLOW_TTL.load()) {
        // As above: refused, the flow keeps to netfilter.
        FLOWS.insert(packet.key, *flow, 0).ok();
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
