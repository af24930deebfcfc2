//! The fast path on single packets: who may take it, and what becomes of the packet.

use std::net::Ipv4Addr;

use nix::time::{ClockId, clock_gettime};
use overlay_common::{Encapsulation, Endpoint, Flow, FlowKey, Sightings, Ticks};
use overlay_tests::{
    packets::{ETHER_IPV4, Ipv4, PROTO_TCP, PROTO_UDP, ethernet},
    programs::{Context, Outcome, Programs, VTEP},
};

use crate::{
    BOTH, FROM_UNDERLAY, Hook, LOCAL, REMOTE, TO_OVERLAY,
    container::{HERE, MAC},
    from_wire, inner, tcp, tunnel,
};

const FROM_CONTAINER: Hook = Hook { program: "from_container", ..TO_OVERLAY };
/// About ten minutes: no approval of a test runs out by itself.
const TTL: Ticks = 600_000;

/// The flow of [`inner`], seen from the container here.
fn key(incoming: bool) -> FlowKey {
    let (local, remote) = if incoming { (2000_u16, 1000_u16) } else { (1000, 2000) };
    FlowKey::new(PROTO_UDP, (LOCAL.octets(), local.to_be_bytes()), (REMOTE.octets(), remote.to_be_bytes()))
}

fn now() -> Ticks {
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("read the clock");
    ((time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64) >> 20) as Ticks
}

fn programs(encapsulation: Encapsulation, approved: Option<FlowKey>) -> Programs {
    let mut programs = Programs::load_with_fast_path(encapsulation, TTL).expect("load the programs");
    programs.set_endpoint(LOCAL.octets(), Endpoint::new(HERE, MAC)).expect("enter an endpoint");
    if let Some(key) = approved {
        let seen = Sightings { before: now(), after: now() };
        programs.set_flow(key, Flow { outgoing: seen, incoming: seen }).expect("enter a flow");
    }
    programs
}

fn sent(ip: &Ipv4) -> Vec<u8> {
    ethernet([2; 6], MAC, ETHER_IPV4, &ip.bytes())
}

fn run(programs: &mut Programs, hook: &Hook, packet: &[u8]) -> Outcome {
    programs.run(hook.program, packet, Context::default()).expect("run the program")
}

#[test]
fn an_approved_flow_leaves_at_once_with_its_ttl_lower() {
    for encapsulation in BOTH {
        let ip = inner(LOCAL, REMOTE);
        let outcome = run(&mut programs(encapsulation, Some(key(false))), &FROM_CONTAINER, &sent(&ip));
        assert_eq!((outcome.verdict, outcome.counted), (FROM_CONTAINER.taken, None));
        let forwarded = Ipv4 { ttl: ip.ttl - 1, ..ip }.bytes();
        assert!(outcome.packet.ends_with(&forwarded), "{outcome:?}");
        assert_eq!(outcome.packet[26..30], VTEP.address.octets());
    }
}

#[test]
fn an_approved_flow_enters_its_container_with_its_ttl_lower() {
    for encapsulation in BOTH {
        let ip = Ipv4 { tos: 0xb9, ..inner(REMOTE, LOCAL) };
        let packet = from_wire(&tunnel(encapsulation, &ip));
        let outcome = run(&mut programs(encapsulation, Some(key(true))), &FROM_UNDERLAY, &packet);
        assert_eq!((outcome.verdict, outcome.counted), (FROM_UNDERLAY.taken, None));
        let expected = ethernet(MAC, VTEP.mac, ETHER_IPV4, &Ipv4 { ttl: ip.ttl - 1, ..ip }.bytes());
        assert_eq!(outcome.packet, expected, "{encapsulation:?}");
    }
}

#[test]
fn what_is_not_approved_or_not_simple_is_the_kernels() {
    let plain = inner(LOCAL, REMOTE);
    let rows = [
        ("a flow that nobody approved", None, plain.clone()),
        ("another flow", Some(key(true)), plain.clone()),
        ("TTL 1", Some(key(false)), Ipv4 { ttl: 1, ..plain.clone() }),
        ("IP options", Some(key(false)), Ipv4 { options: vec![1, 1, 1, 0], ..plain.clone() }),
        ("a first fragment", Some(key(false)), Ipv4 { flags_and_offset: 0x2000, ..plain.clone() }),
        ("a later fragment", Some(key(false)), Ipv4 { flags_and_offset: 0x00b9, ..plain.clone() }),
        ("another protocol", Some(key(false)), Ipv4 { protocol: 132, ..plain.clone() }),
        (
            "beyond the overlay MTU",
            Some(key(false)),
            Ipv4 { payload: [plain.payload.as_slice(), &[0; 1450]].concat(), ..plain.clone() },
        ),
        ("to the outside", Some(key(false)), Ipv4 { destination: Ipv4Addr::new(8, 8, 8, 8), ..plain.clone() }),
        ("to a neighbour", Some(key(false)), Ipv4 { destination: Ipv4Addr::new(10, 1, 15, 9), ..plain }),
    ];
    for (name, approved, ip) in rows {
        let outcome = run(&mut programs(Encapsulation::Vxlan, approved), &FROM_CONTAINER, &sent(&ip));
        assert_eq!((outcome.verdict, outcome.counted), (FROM_CONTAINER.next, None), "{name}");
        assert_eq!(outcome.packet, sent(&ip), "{name}: changed");
    }
}

#[test]
fn tcp_control_packets_end_an_approval() {
    for flags in [0x01, 0x02, 0x04] {
        let mut segment = tcp(10);
        segment[13] = flags;
        let ip = Ipv4 { protocol: PROTO_TCP, payload: segment, ..inner(LOCAL, REMOTE) };
        let key = FlowKey::new(PROTO_TCP, (LOCAL.octets(), [0x13, 0x88]), (REMOTE.octets(), [0, 0x50]));
        let mut programs = programs(Encapsulation::Vxlan, Some(key));
        let outcome = run(&mut programs, &FROM_CONTAINER, &sent(&ip));
        assert_eq!(outcome.verdict, FROM_CONTAINER.next, "flags {flags:02x}");
        assert_eq!(programs.flow(key).expect("read the flow"), None, "flags {flags:02x}");
    }
}

#[test]
fn a_flow_is_approved_when_both_directions_were_seen_behind_netfilter() {
    let mut programs = programs(Encapsulation::Vxlan, None);
    let there = inner(LOCAL, REMOTE);
    let mut back = inner(REMOTE, LOCAL);
    back.payload[..4].copy_from_slice(&[0x07, 0xd0, 0x03, 0xe8]);
    let arrives = from_wire(&tunnel(Encapsulation::Vxlan, &back));
    for (program, packet) in
        [("from_container", sent(&there)), ("to_overlay", sent(&there)), ("from_underlay", arrives)]
    {
        programs.run(program, &packet, Context::default()).expect("run the program");
        assert_eq!(programs.flow(key(false)).expect("read the flow"), None, "after {program}");
    }
    programs.run("to_container", &sent(&back), Context::default()).expect("run the program");
    assert!(programs.flow(key(false)).expect("read the flow").is_some());
    assert_eq!(run(&mut programs, &FROM_CONTAINER, &sent(&there)).verdict, FROM_CONTAINER.taken);
}

#[test]
fn a_packet_that_netfilter_changed_approves_nothing() {
    let mut programs = programs(Encapsulation::Vxlan, None);
    let there = inner(LOCAL, REMOTE);
    let translated = inner(LOCAL, Ipv4Addr::new(10, 1, 16, 77));
    programs.run("from_container", &sent(&there), Context::default()).expect("run the program");
    programs.run("to_overlay", &sent(&translated), Context::default()).expect("run the program");
    let outcome = run(&mut programs, &FROM_CONTAINER, &sent(&there));
    assert_eq!(outcome.verdict, FROM_CONTAINER.next);
    assert_eq!(programs.flow(key(false)).expect("read the flow"), None);
}
