//! The fast path of either inner family over either underlay.

use std::fs;

use nix::time::{ClockId, clock_gettime};
use overlay_common::{Endpoint, Flow, FlowKey, Sightings, Ticks};
use overlay_tests::{
    packets::{ETHER_IPV4, Extension, Ip, Ipv6, PROTO_TCP, PROTO_UDP, ethernet},
    programs::{Context, Outcome, Programs, VTEP, VTEP_V6},
};
use overlay_user::maps::Family;

use super::{
    LOCAL, OUTSIDE, REMOTE, UNDERLAYS, Underlay, extended, first_fragment, later_fragment, to_local, to_remote,
};
use crate::{
    FROM_UNDERLAY, Hook, TO_OVERLAY,
    container::{HERE, MAC},
    tcp,
};

const FROM_CONTAINER: Hook = Hook { program: "from_container", ..TO_OVERLAY };
/// About ten minutes: no approval of a test runs out by itself.
const TTL: Ticks = 600_000;

/// The flow of a datagram from port 1000 to 2000, seen from the container here.
fn key<A: Family>(local: A, remote: A, incoming: bool) -> FlowKey<A> {
    let (here, there) = if incoming { (2000_u16, 1000_u16) } else { (1000, 2000) };
    FlowKey::new(PROTO_UDP, (local, here.to_be_bytes()), (remote, there.to_be_bytes()))
}

/// The programs, which know the container here by both addresses.
fn programs(underlay: Underlay) -> Programs {
    let mut programs = underlay.programs(TTL);
    let endpoint = Endpoint::new(HERE, MAC);
    programs.set_endpoint(LOCAL.octets(), endpoint).expect("enter an endpoint");
    programs.set_endpoint(crate::LOCAL.octets(), endpoint).expect("enter an endpoint");
    programs
}

fn approve<A: Family>(programs: &mut Programs, key: FlowKey<A>) {
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("read the clock");
    let now = ((time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64) >> 20) as Ticks;
    let seen = Sightings { before: now, after: now };
    programs.set_flow(key, Flow { outgoing: seen, incoming: seen }).expect("enter a flow");
}

fn sent<I: Ip>(ip: &I) -> Vec<u8> {
    ethernet([2; 6], MAC, I::ETHER_TYPE, &ip.to_bytes())
}

fn run(programs: &mut Programs, hook: &Hook, packet: &[u8]) -> Outcome {
    programs.run(hook.program, packet, Context::default()).expect("run the program")
}

fn assert_leaves<I: Ip>(programs: &mut Programs, underlay: Underlay, ip: &I) {
    let outcome = run(programs, &FROM_CONTAINER, &sent(ip));
    assert_eq!((outcome.verdict, outcome.counted), (FROM_CONTAINER.taken, None), "over {underlay:?}");
    assert!(outcome.packet.ends_with(&ip.clone().forwarded().to_bytes()), "over {underlay:?}: {outcome:?}");
    let outer = underlay.headers() + 8 + 8 + 14;
    assert_eq!(outcome.packet.len(), outer + ip.to_bytes().len(), "over {underlay:?}");
    assert_eq!(outcome.packet[outer - 2..outer], I::ETHER_TYPE.to_be_bytes(), "over {underlay:?}");
}

/// Whether the kernel lets a program make a packet of one family out of one of the other: since Linux 6.3.
fn changes_family() -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").expect("read the kernel's release");
    let numbers: Vec<u32> = release.split('.').take(2).map(|number| number.parse().expect("a number")).collect();
    numbers >= vec![6, 3]
}

fn assert_enters<I: Ip>(programs: &mut Programs, underlay: Underlay, source: [u8; 6], ip: &I) {
    let packet = underlay.tunnel(ip, 0b11);
    let outcome = run(programs, &FROM_UNDERLAY, &packet);
    let is_mixed = matches!(underlay, Underlay::Ipv4) != (I::ETHER_TYPE == ETHER_IPV4);
    if is_mixed && !changes_family() {
        let untouched = (FROM_UNDERLAY.next, None, &packet);
        assert_eq!((outcome.verdict, outcome.counted, &outcome.packet), untouched, "over {underlay:?}");
        return;
    }
    assert_eq!((outcome.verdict, outcome.counted), (FROM_UNDERLAY.taken, None), "over {underlay:?}");
    // The congestion mark has come along.
    let inside = ip.clone().with_tos(ip.tos() | 0b11).forwarded();
    assert_eq!(outcome.packet, ethernet(MAC, source, I::ETHER_TYPE, &inside.to_bytes()), "over {underlay:?}");
}

#[test]
fn approved_flows_of_either_family_leave_and_enter_at_once_over_every_underlay() {
    for underlay in UNDERLAYS {
        let mut programs = programs(underlay);
        let (v4, v6) = to_remote();
        approve(&mut programs, key(crate::LOCAL.octets(), crate::REMOTE.octets(), false));
        approve(&mut programs, key(LOCAL.octets(), REMOTE.octets(), false));
        assert_leaves(&mut programs, underlay, &v4.with_tos(0xb9));
        assert_leaves(&mut programs, underlay, &v6.with_tos(0xb9));
        let (v4, v6) = to_local();
        approve(&mut programs, key(crate::LOCAL.octets(), crate::REMOTE.octets(), true));
        approve(&mut programs, key(LOCAL.octets(), REMOTE.octets(), true));
        assert_enters(&mut programs, underlay, VTEP.mac, &v4.with_tos(0xba));
        assert_enters(&mut programs, underlay, VTEP_V6.mac, &v6.with_tos(0xba));
    }
}

#[test]
fn ipv6_that_is_not_approved_or_not_simple_is_the_kernels() {
    let (_, plain) = to_remote();
    let rows = [
        ("hop limit 1", Ipv6 { hop_limit: 1, ..plain.clone() }),
        ("hop-by-hop options", extended(&plain, Extension::padding(Extension::HOP_BY_HOP))),
        ("destination options", extended(&plain, Extension::padding(Extension::DESTINATION))),
        ("a first fragment", first_fragment(&plain)),
        ("a later fragment", later_fragment(&plain)),
        ("another protocol", Ipv6 { protocol: 132, ..plain.clone() }),
        ("beyond the overlay MTU", Ipv6 { payload: [plain.payload.as_slice(), &[0; 1400]].concat(), ..plain.clone() }),
        ("to the outside", Ipv6 { destination: OUTSIDE, ..plain.clone() }),
        ("another flow", Ipv6 { payload: [&[7; 4], &plain.payload[4..]].concat(), ..plain }),
    ];
    let mut programs = programs(Underlay::Ipv6);
    approve(&mut programs, key(LOCAL.octets(), REMOTE.octets(), false));
    for (name, ip) in rows {
        let outcome = run(&mut programs, &FROM_CONTAINER, &sent(&ip));
        assert_eq!((outcome.verdict, outcome.counted), (FROM_CONTAINER.next, None), "{name}");
        assert_eq!(outcome.packet, sent(&ip), "{name}: changed");
    }
}

#[test]
fn an_ipv6_flow_is_approved_by_both_directions_and_ended_by_tcp() {
    let (mut there, mut back) = (to_remote().1, to_local().1);
    (there.protocol, back.protocol) = (PROTO_TCP, PROTO_TCP);
    (there.payload, back.payload) = (tcp(10), tcp(10));
    back.payload[..4].copy_from_slice(&[0, 0x50, 0x13, 0x88]);
    let key = FlowKey::new(PROTO_TCP, (LOCAL.octets(), [0x13, 0x88]), (REMOTE.octets(), [0, 0x50]));
    let mut programs = programs(Underlay::Ipv6);
    let arrives = Underlay::Ipv6.tunnel(&back, 0);
    for (program, packet) in
        [("from_container", sent(&there)), ("to_overlay", sent(&there)), ("from_underlay", arrives)]
    {
        programs.run(program, &packet, Context::default()).expect("run the program");
        assert_eq!(programs.flow(key).expect("read the flow"), None, "after {program}");
    }
    programs.run("to_container", &sent(&back), Context::default()).expect("run the program");
    assert!(programs.flow(key).expect("read the flow").is_some());
    assert_eq!(run(&mut programs, &FROM_CONTAINER, &sent(&there)).verdict, FROM_CONTAINER.taken);
    there.payload[13] = 0x01;
    assert_eq!(run(&mut programs, &FROM_CONTAINER, &sent(&there)).verdict, FROM_CONTAINER.next);
    assert_eq!(programs.flow(key).expect("read the flow"), None, "FIN");
}
