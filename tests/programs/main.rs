//! Tables of packets through the programs in the kernel: packet in; verdict, counter and packet out.

mod container;
mod decap;
mod encap;
mod families;
mod fast;
mod hostile;
mod unreachable;

use std::net::Ipv4Addr;

use overlay_common::{Encapsulation, Reason, XDP_DECAPSULATED};
use overlay_tests::{
    packets::{ETHER_IPV4, Ipv4, PROTO_TCP, PROTO_UDP, ethernet, udp, vxlan},
    programs::{Context, Outcome, Programs, REMOTE_MAC, REMOTE_NODE, VTEP},
};

/// A container here.
const LOCAL: Ipv4Addr = Ipv4Addr::new(10, 1, 15, 2);
/// A container on the other node.
const REMOTE: Ipv4Addr = Ipv4Addr::new(10, 1, 16, 2);

/// What a case says should become of its packet.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Expect {
    /// The hook lets it go on, unchanged and uncounted.
    Untouched,
    /// It is dropped for a reason.
    Dropped(Reason),
    /// It is redirected and holds these bytes.
    Becomes(Vec<u8>),
    /// It counts as dropped for a reason, and what is redirected in its place holds these bytes.
    Answered(Reason, Vec<u8>),
}

struct Case {
    name: &'static str,
    input: Vec<u8>,
    context: Context,
    expect: Expect,
}

impl Case {
    fn new(name: &'static str, input: Vec<u8>, expect: Expect) -> Self {
        Self { name, input, context: Context::default(), expect }
    }
}

/// The verdicts of a hook.
struct Hook {
    program: &'static str,
    next: i32,
    drop: i32,
    taken: i32,
}

const TO_OVERLAY: Hook = Hook { program: "to_overlay", next: -1, drop: 2, taken: 7 };
const FROM_UNDERLAY: Hook = Hook { program: "from_underlay", ..TO_OVERLAY };
/// XDP has one verdict for "decapsulated" and "not ours": the packet itself tells them apart.
const XDP_DECAP: Hook = Hook { program: "xdp_decap", next: 2, drop: 1, taken: 2 };

/// Runs every case and reports all that differ, not the first alone. `normalise` takes out of a packet what a
/// program may choose freely.
fn check(hook: &Hook, encapsulation: Encapsulation, cases: &[Case], normalise: fn(&mut [u8])) {
    let mut programs = Programs::load(encapsulation).expect("load the programs");
    let failures: Vec<String> = cases
        .iter()
        .filter_map(|case| {
            let mut outcome = programs.run(hook.program, &case.input, case.context).expect("run the program");
            normalise(&mut outcome.packet);
            let (verdict, counted, packet) = match &case.expect {
                Expect::Untouched => (hook.next, None, &case.input),
                Expect::Dropped(reason) => (hook.drop, Some(*reason), &outcome.packet),
                Expect::Becomes(bytes) => (hook.taken, None, bytes),
                Expect::Answered(reason, bytes) => (hook.taken, Some(*reason), bytes),
            };
            let expected = Outcome { verdict, counted, packet: packet.clone() };
            let complaint = format!("{}:\n  expected {expected:?}\n  got      {outcome:?}", case.name);
            (outcome != expected).then_some(complaint)
        })
        .collect();
    assert!(failures.is_empty(), "{} on {encapsulation:?}:\n{}", hook.program, failures.join("\n"));
}

/// For programs that leave nothing to chance.
fn exactly(_: &mut [u8]) {}

fn inner(source: Ipv4Addr, destination: Ipv4Addr) -> Ipv4 {
    Ipv4::new(source, destination, PROTO_UDP, udp(1000, 2000, b"what the containers say"))
}

/// A container's packet as the kernel hands it to the overlay device.
fn from_kernel(ip: &Ipv4) -> Vec<u8> {
    ethernet(VTEP.mac, VTEP.mac, ETHER_IPV4, &ip.bytes())
}

/// A packet as the underlay interface receives it from the other node.
fn from_wire(outer: &Ipv4) -> Vec<u8> {
    ethernet([0x52, 0, 0, 0, 0, 1], [0x52, 0, 0, 0, 0, 2], ETHER_IPV4, &outer.bytes())
}

/// A decapsulated packet as it enters the overlay device.
fn delivered(ip: &Ipv4) -> Vec<u8> {
    ethernet(VTEP.mac, [0; 6], ETHER_IPV4, &ip.bytes())
}

/// A frame that `xdp_decap` has decapsulated; the kernel shows its metadata in front.
fn marked(ip: &Ipv4) -> Vec<u8> {
    [&XDP_DECAPSULATED.to_ne_bytes(), delivered(ip).as_slice()].concat()
}

/// The outer packet that carries `inner` from the other node.
fn tunnel(encapsulation: Encapsulation, inner: &Ipv4) -> Ipv4 {
    tunnel_bytes(encapsulation, &inner.bytes())
}

fn tunnel_bytes(encapsulation: Encapsulation, inner: &[u8]) -> Ipv4 {
    let payload = match encapsulation {
        Encapsulation::Udp => inner.to_vec(),
        Encapsulation::Vxlan => vxlan(0x08, VTEP.vni, &ethernet(VTEP.mac, REMOTE_MAC, ETHER_IPV4, inner)),
    };
    Ipv4::new(REMOTE_NODE, VTEP.address, PROTO_UDP, udp(50_000, VTEP.port, &payload))
}

/// A TCP segment with `length` bytes of data.
fn tcp(length: usize) -> Vec<u8> {
    let mut segment = vec![0; 20 + length];
    segment[..4].copy_from_slice(&[0x13, 0x88, 0x00, 0x50]);
    segment[12] = 5 << 4;
    segment
}

fn inner_tcp(source: Ipv4Addr, destination: Ipv4Addr, length: usize) -> Ipv4 {
    Ipv4::new(source, destination, PROTO_TCP, tcp(length))
}

const BOTH: [Encapsulation; 2] = [Encapsulation::Udp, Encapsulation::Vxlan];
