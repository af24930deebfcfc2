//! `to_overlay`: who is told that nobody leases a subnet, and how.

use std::net::Ipv4Addr;

use overlay_common::{Encapsulation, Reason};
use overlay_tests::{
    packets::{Ipv4, PROTO_ICMP, PROTO_UDP, internet_checksum, udp},
    programs::{Context, Programs},
};

use crate::{BOTH, Case, Expect, LOCAL, REMOTE, TO_OVERLAY, check, delivered, exactly, from_kernel, inner, inner_tcp};

/// In a subnet that nobody leases.
const NOBODY: Ipv4Addr = Ipv4Addr::new(10, 1, 99, 1);

/// "Network unreachable" (RFC 792) that quotes the first `quoted` bytes of `ip`.
fn answer(ip: &Ipv4, quoted: usize) -> Expect {
    let mut icmp = [&[3, 0, 0, 0, 0, 0, 0, 0], &ip.bytes()[..quoted]].concat();
    let checksum = internet_checksum(&icmp);
    icmp[2..4].copy_from_slice(&checksum.to_be_bytes());
    let (tos, id) = (ip.tos & !3, ip.id);
    Expect::Answered(
        Reason::NoRoute,
        delivered(&Ipv4 { ttl: 64, tos, id, ..Ipv4::new(ip.destination, ip.source, PROTO_ICMP, icmp) }),
    )
}

fn icmp(kind: u8) -> Ipv4 {
    Ipv4::new(LOCAL, NOBODY, PROTO_ICMP, [&[kind, 0], &[7; 30][..]].concat())
}

#[test]
fn the_sender_is_told_unless_the_packet_is_itself_an_error_or_a_later_fragment() {
    let short = Ipv4::new(LOCAL, NOBODY, PROTO_UDP, udp(1, 2, b""));
    let ping = icmp(8);
    let marked = Ipv4 { tos: 0xbb, ..inner(LOCAL, NOBODY) };
    let silent = [
        ("an error is not answered", icmp(3)),
        ("time exceeded is not answered", icmp(11)),
        ("a later fragment is not answered", Ipv4 { flags_and_offset: 100, ..inner(LOCAL, NOBODY) }),
        ("options are not answered", Ipv4 { options: vec![1; 4], ..inner(LOCAL, NOBODY) }),
        ("less than the quote takes is not answered", Ipv4 { payload: vec![0; 4], ..inner(LOCAL, NOBODY) }),
    ];
    for encapsulation in BOTH {
        let answered = [
            ("UDP", inner(LOCAL, NOBODY), 40),
            ("UDP without data", short.clone(), 28),
            ("TCP", inner_tcp(LOCAL, NOBODY, 1000), 40),
            ("ping", ping.clone(), 40),
            ("a first fragment", Ipv4 { flags_and_offset: 0x2000, ..inner(LOCAL, NOBODY) }, 40),
            ("DSCP is kept, ECN is not", marked.clone(), 40),
        ];
        let cases =
            answered.into_iter().map(|(name, ip, quoted)| Case::new(name, from_kernel(&ip), answer(&ip, quoted)));
        let silent = silent.iter().map(|(name, ip)| Case::new(name, from_kernel(ip), Expect::Dropped(Reason::NoRoute)));
        check(&TO_OVERLAY, encapsulation, &cases.chain(silent).collect::<Vec<_>>(), exactly);
    }
}

#[test]
fn what_the_kernel_decapsulated_on_its_own_is_not_admitted() {
    let mut programs = Programs::load(Encapsulation::Vxlan).unwrap();
    let outcome = programs.run("admit", &delivered(&inner(REMOTE, LOCAL)), Context::default()).unwrap();
    assert_eq!((outcome.verdict, outcome.counted), (TO_OVERLAY.drop, Some(Reason::NotAccepted)));
}

#[test]
fn what_follows_a_packet_is_not_quoted() {
    for encapsulation in BOTH {
        let (short, plain) = (Ipv4 { payload: vec![0; 4], ..inner(LOCAL, NOBODY) }, inner(LOCAL, NOBODY));
        let padded = |ip: &Ipv4| [from_kernel(ip).as_slice(), &[0xaa; 30]].concat();
        let cases = [
            Case::new("less than the quote takes", padded(&short), Expect::Dropped(Reason::NoRoute)),
            Case::new("more than the quote takes", padded(&plain), answer(&plain, 40)),
        ];
        check(&TO_OVERLAY, encapsulation, &cases, exactly);
    }
}
