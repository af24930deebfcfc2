//! What `overlay trace` is told of a packet.
//!
//! The programs that are attached are loaded with [`TRACE`] 0: the verifier takes all of this out of them. `overlay trace`
//! loads the same programs once more, with [`TRACE`] 1. With `--live` those stand in the places of the attached ones for a
//! while, and tell of the real packets in [`SELECTION`].

use aya_ebpf::{
    Global,
    helpers::bpf_ktime_get_ns,
    macros::map,
    maps::{PerCpuArray, RingBuf},
};
use network_types::{
    ip::{Ipv4Hdr, Ipv6Hdr},
    udp::UdpHdr,
};
use overlay_common::{
    Address as _, Encapsulation, Event, IpHeader as _, Pace, Program, Route, Selection, Slow, Step, Tuple,
    UnderlayAddress,
};

use crate::{
    inner::Inner,
    maps,
    outer::Outer,
    packet::{Ethernet, L2, Packet, opaque},
};

/// Whether the programs tell what they do.
#[unsafe(link_section = ".rodata.trace")]
#[unsafe(no_mangle)]
static TRACE: Global<u8> = Global::new(0);

/// Of which packets they tell, and of how many. All zero: of all.
#[unsafe(link_section = ".rodata.selection")]
#[unsafe(no_mangle)]
static SELECTION: Global<Selection> = Global::new(Selection::ALL);

/// What the programs tell. Only a page: who traces, asks for more.
#[map]
static EVENTS: RingBuf = RingBuf::with_byte_size(4096, 0);

/// The event about the packet that each CPU is at; its time is 0 when nobody wants to know of this one.
#[map]
static TRACED: PerCpuArray<Event> = PerCpuArray::with_max_entries(1, 0);

/// How many packets each CPU has told of.
#[map]
static PACE: PerCpuArray<Pace> = PerCpuArray::with_max_entries(1, 0);

const PROTO_TCP: u8 = 6;
const PROTO_UDP: u8 = 17;

/// Begins to tell of a container's packet.
#[inline(always)]
pub(crate) fn begin<P: Packet>(program: Program, packet: &P) {
    if TRACE.load() != 0 {
        begin_at(program, packet, L2);
    }
}

/// The same on the underlay, where the packet that is told of is that in the tunnel, if there is one.
#[inline(always)]
pub(crate) fn begin_on_underlay<P: Packet>(program: Program, packet: &P) {
    if TRACE.load() != 0 {
        begin_at(program, packet, inner_offset(packet).unwrap_or(L2));
    }
}

/// Tells a step that says all itself.
#[inline(always)]
pub(crate) fn step(step: Step) {
    tell(step, 0, [0; 6]);
}

/// Tells why a packet does not take the fast path.
#[inline(always)]
pub(crate) fn slow(why: Slow) {
    tell(Step::Slow, why as u32, [0; 6]);
}

/// Tells of the way to another node.
#[inline(always)]
pub(crate) fn route(route: &Route) {
    if TRACE.load() != 0 {
        note_next_hop(route);
        tell(Step::Route, 0, route.vtep_mac());
    }
}

/// Tells that a packet is accepted from the node `sender`.
#[inline(always)]
pub(crate) fn accepted(sender: &UnderlayAddress) {
    if TRACE.load() != 0 {
        note_node(sender);
        step(Step::Accepted);
    }
}

/// Tells a step, and what goes with it.
#[inline(always)]
pub(crate) fn tell(step: Step, value: u32, mac: [u8; 6]) {
    if TRACE.load() != 0 {
        let [a, b, c, d, e, f] = mac;
        emit(step as u8, value, u64::from_ne_bytes([a, b, c, d, e, f, 0, 0]));
    }
}

/// A function of its own, with a stack of its own: the programs' are nearly full.
#[inline(never)]
fn emit(step: u8, value: u32, mac: u64) {
    let Some(traced) = TRACED.get(0) else { return };
    if traced.time == 0 {
        return;
    }
    let Some(mut entry) = EVENTS.reserve::<Event>(0) else {
        // No room: the reader falls behind.
        if let Some(pace) = PACE.get_ptr_mut(0) {
            // SAFETY: as in `note`.
            unsafe { (*pace).lost += 1 };
        }
        return;
    };
    entry.write(*traced).go_on(now(), step, value, mac);
    entry.submit(0);
}

/// Begins to tell of the IP packet at `offset`.
#[inline(always)]
fn begin_at<P: Packet>(program: Program, packet: &P, offset: usize) {
    note(program, packet, offset);
    choose();
    tell(Step::Seen, packet.interface(), [0; 6]);
}

/// Notes the packet, where it stays until the program ends. A function of its own as [`emit`] is.
#[inline(never)]
fn note<P: Packet>(program: Program, packet: &P, offset: usize) {
    let packet = opaque(packet);
    let Some(traced) = TRACED.get_ptr_mut(0) else { return };
    // SAFETY: the value belongs to this CPU, and programs on one CPU do not interrupt each other here.
    let traced = unsafe { &mut *traced };
    traced.begin(program, packet.len() as u32);
    let ether_type = match maps::encapsulation() {
        // In its tunnel there is no Ethernet header.
        Encapsulation::Udp if offset != L2 => Ok(Ipv4Hdr::ETHER_TYPE),
        _ => packet.header::<Ethernet>(offset - L2).map(|ethernet| ethernet.ether_type),
    };
    match ether_type {
        Ok(Ipv4Hdr::ETHER_TYPE) => describe::<Ipv4Hdr, P>(&mut traced.tuple, packet, offset),
        Ok(Ipv6Hdr::ETHER_TYPE) => describe::<Ipv6Hdr, P>(&mut traced.tuple, packet, offset),
        _ => {}
    }
}

/// Notes the other node: this event and those behind it bear its address. A function of its own as [`emit`] is.
#[inline(never)]
fn note_node(address: &UnderlayAddress) {
    if let Some(traced) = TRACED.get_ptr_mut(0) {
        // SAFETY: as in `note`.
        unsafe { (*traced).node = *address };
    }
}

/// The same of the node that a route leads to: here the address may take stack.
#[inline(never)]
fn note_next_hop(route: &Route) {
    note_node(&route.next_hop());
}

/// Gives the noted packet a time, if somebody wants to know of it. A function of its own as [`emit`] is.
#[inline(never)]
fn choose() {
    let Some(traced) = TRACED.get_ptr_mut(0) else { return };
    // SAFETY: as in `note`.
    let traced = unsafe { &mut *traced };
    let selection = SELECTION.load();
    if !selection.has(&traced.tuple) {
        return;
    }
    let Some(pace) = PACE.get_ptr_mut(0) else { return };
    let now = now();
    // SAFETY: as above.
    if unsafe { (*pace).admits(selection.rate, (now >> 30) as u32) } {
        traced.time = now;
    }
}

#[inline(always)]
fn now() -> u64 {
    // SAFETY: the helper takes nothing.
    unsafe { bpf_ktime_get_ns() }
}

/// Writes down addresses and ports of the IP packet at `offset`, as far as it has them.
#[inline(always)]
fn describe<I: Inner, P: Packet>(tuple: &mut Tuple, packet: &P, offset: usize) {
    let Ok(ip) = packet.header::<I>(offset) else { return };
    let [a, b, c, d] = match (ip.transport(), packet.header::<[u8; 4]>(offset + size_of::<I>())) {
        (Some(PROTO_TCP | PROTO_UDP), Ok(ports)) => *ports,
        _ => [0; 4],
    };
    *tuple = Tuple::new(ip.protocol(), (ip.source().mapped(), [a, b]), (ip.destination().mapped(), [c, d]));
}

/// Where the inner IP packet begins, if this looks like a tunnel packet for us. It is told of also if it is refused then.
#[inline(always)]
fn inner_offset<P: Packet>(packet: &P) -> Option<usize> {
    match (packet.header::<Ethernet>(0).ok()?.ether_type, maps::encapsulation()) {
        (Ipv4Hdr::ETHER_TYPE, _) => inner_offset_over::<Ipv4Hdr, P>(packet),
        (Ipv6Hdr::ETHER_TYPE, Encapsulation::Vxlan) => inner_offset_over::<Ipv6Hdr, P>(packet),
        _ => None,
    }
}

#[inline(always)]
fn inner_offset_over<O: Outer, P: Packet>(packet: &P) -> Option<usize> {
    let outer = packet.header::<O>(L2).ok()?;
    let udp = packet.header::<UdpHdr>(L2 + size_of::<O>()).ok()?;
    let is_tunnel =
        !outer.has_options() && outer.datagram(packet).is_some() && udp.dst_port() == maps::local_node()?.port();
    is_tunnel.then_some(L2 + usize::from(maps::encapsulation().overhead::<O::Address>()))
}
