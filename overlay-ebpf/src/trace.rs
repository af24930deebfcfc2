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
use network_types::{ip::Ipv4Hdr, udp::UdpHdr};
use overlay_common::{
    Address as _, Encapsulation, Event, IpHeader as _, Pace, Program, Route, Selection, Slow, Step, Tuple,
    UnderlayAddress, VXLAN_INNER_OFFSET,
};

use crate::{
    maps,
    packet::{Ethernet, L2, Packet},
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
pub(crate) fn begin(program: Program, packet: &impl Packet) {
    if TRACE.load() != 0 {
        note(program, packet, L2);
    }
}

/// The same on the underlay, where the packet that is told of is that in the tunnel, if there is one.
#[inline(always)]
pub(crate) fn begin_on_underlay(program: Program, packet: &impl Packet) {
    if TRACE.load() != 0 {
        note(program, packet, inner_offset(packet).unwrap_or(L2));
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
    node(Step::Route, route.next_hop(), route.vtep_mac());
}

/// Tells a step that has to do with a node, whose address is 0.0.0.0 if it is no IPv4 address.
#[inline(always)]
pub(crate) fn node(step: Step, address: UnderlayAddress, mac: [u8; 6]) {
    if TRACE.load() != 0 {
        let octets = if address.is_ipv4() { <[u8; 4]>::from_underlay(address) } else { [0; 4] };
        tell(step, u32::from_ne_bytes(octets), mac);
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
            // SAFETY: as in `choose`.
            unsafe { (*pace).lost += 1 };
        }
        return;
    };
    entry.write(*traced).go_on(now(), step, value, mac);
    entry.submit(0);
}

#[inline(always)]
fn note(program: Program, packet: &impl Packet, offset: usize) {
    let Some(traced) = TRACED.get_ptr_mut(0) else { return };
    let event = Event::new(program, tuple(packet, offset), packet.len() as u32);
    // SAFETY: the value belongs to this CPU, and programs on one CPU do not interrupt each other here.
    unsafe { *traced = event };
    choose();
    tell(Step::Seen, packet.interface(), [0; 6]);
}

/// Gives the noted packet a time, if somebody wants to know of it. A function of its own as [`emit`] is.
#[inline(never)]
fn choose() {
    let Some(traced) = TRACED.get_ptr_mut(0) else { return };
    // SAFETY: the value belongs to this CPU, and programs on one CPU do not interrupt each other here.
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

/// Addresses and ports of the IP packet at `offset`, as far as it has them.
#[inline(always)]
fn tuple(packet: &impl Packet, offset: usize) -> Tuple {
    let is_ipv4 =
        packet.header::<Ethernet>(offset - L2).is_ok_and(|ethernet| ethernet.ether_type == Ipv4Hdr::ETHER_TYPE);
    // In the tunnel of `udp` there is no Ethernet header.
    if !is_ipv4 && offset == L2 {
        return Tuple::default();
    }
    let Ok(ip) = packet.header::<Ipv4Hdr>(offset) else { return Tuple::default() };
    let has_ports = (ip.proto == PROTO_TCP || ip.proto == PROTO_UDP) && ip.vihl == 0x45 && ip.frag_offset() == 0;
    let ports = match packet.header::<[u8; 4]>(offset + Ipv4Hdr::LEN) {
        Ok(ports) if has_ports => *ports,
        _ => [0; 4],
    };
    let [a, b, c, d] = ports;
    Tuple::new(ip.proto, (ip.src_addr, [a, b]), (ip.dst_addr, [c, d]))
}

/// Where the inner IP packet begins, if this looks like a tunnel packet for us. It is told of also if it is refused then.
#[inline(always)]
fn inner_offset(packet: &impl Packet) -> Option<usize> {
    let outer = packet.header::<Ipv4Hdr>(L2).ok()?;
    let udp = packet.header::<UdpHdr>(L2 + Ipv4Hdr::LEN).ok()?;
    let port = maps::local_node()?.port();
    let is_tunnel =
        outer.vihl == 0x45 && outer.proto == PROTO_UDP && outer.frag_offset() == 0 && udp.dst_port() == port;
    let payload = L2 + Ipv4Hdr::LEN + UdpHdr::LEN;
    is_tunnel.then_some(match maps::encapsulation() {
        Encapsulation::Udp => payload,
        Encapsulation::Vxlan => payload + VXLAN_INNER_OFFSET,
    })
}
