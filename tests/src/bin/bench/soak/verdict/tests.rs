use overlay_tests::chaos::Blows;

use super::*;
use crate::soak::{churn::ChurnCount, flaps::Side};

const ONE: Ipv4Addr = Ipv4Addr::new(10, 1, 1, 2);
const TWO: Ipv4Addr = Ipv4Addr::new(10, 1, 2, 2);
const THREE: Ipv4Addr = Ipv4Addr::new(10, 1, 3, 2);

fn nodes() -> Vec<NodeOfPair> {
    [("node1", ONE), ("node2", TWO), ("node3", THREE)].map(|(name, address)| (name.to_owned(), address)).to_vec()
}

fn pair(from: Ipv4Addr, to: Ipv4Addr, lost: &[u64]) -> Pair {
    let lost: Vec<_> = lost.iter().copied().map(Duration::from_millis).collect();
    Pair { from, to, sent: 1000, received: 1000 - lost.len() as u32, doubled: 0, lost }
}

/// The first node's interface is down from the tenth second to the eleventh.
fn flap() -> Flap {
    Flap { node: 0, side: Side::Port, down: Duration::from_secs(10), up: Duration::from_secs(11) }
}

fn clean() -> SoakReport {
    SoakReport {
        problems: Vec::new(),
        seed: 0,
        seconds: 60.0,
        blows: Blows::default(),
        containers: ChurnCount::default(),
        flaps: Vec::new(),
        pairs: attribute(&[pair(ONE, TWO, &[])], &[], &nodes()).0,
        tcp: TcpOutcome::Carried { bytes: 1, retransmitted: 7 },
        memory: samples(|_| (10_000, 30)),
        counts: compare(&[("node1: links".to_owned(), 4)].into(), &[("node1: links".to_owned(), 4)].into()),
        difference: None,
        drops: Vec::new(),
    }
}

fn samples(of: impl Fn(u64) -> (u64, u64)) -> Vec<Sample> {
    let sample = |at: u64| Sample { at: at as f64, resident_kib: of(at).0, descriptors: of(at).1 };
    (0..100).map(sample).collect()
}

#[track_caller]
fn assert_wrong(report: &SoakReport, words: &[&str]) {
    let problems = problems(report);
    assert_eq!(problems.len(), 1, "{problems:?}");
    for word in words {
        assert!(problems[0].contains(word), "no {word:?} in {problems:?}");
    }
}

#[test]
fn what_a_flap_has_lost_is_the_flaps_with_the_time_it_took_to_recover() {
    let lost = [9_950, 10_500, 11_400, 14_100];
    let (pairs, flaps) = attribute(&[pair(ONE, TWO, &lost), pair(TWO, ONE, &lost[..2])], &[flap()], &nodes());
    assert_eq!((pairs[0].lost_by_flaps, &pairs[0].lost_for_no_reason[..]), (3, &[14.1][..]));
    assert_eq!((pairs[1].lost_by_flaps, pairs[1].lost_for_no_reason.len()), (2, 0));
    assert_eq!(flaps[0].lost, 5);
    assert!((flaps[0].recovery - 0.4).abs() < 1e-9, "{flaps:?}");
}

#[test]
fn a_flap_accounts_for_no_packet_between_other_nodes_nor_long_before() {
    let (pairs, flaps) = attribute(&[pair(TWO, THREE, &[10_500]), pair(ONE, TWO, &[9_800])], &[flap()], &nodes());
    assert_eq!(pairs.iter().map(|pair| pair.lost_for_no_reason.len()).collect::<Vec<_>>(), [1, 1]);
    assert_eq!(flaps[0].lost, 0);
}

#[test]
fn nothing_is_wrong_where_everything_is_as_it_was() {
    assert_eq!(problems(&clean()), [""; 0]);
}

#[test]
fn each_thing_that_is_wrong_is_named() {
    let pairs = |lost: &[u64]| attribute(&[pair(ONE, TWO, lost)], &[], &nodes()).0;
    assert_wrong(&SoakReport { pairs: pairs(&[1500, 2000]), ..clean() }, &["2 packets", "node1", "node2", "1.5 s"]);
    let mut doubled = clean();
    doubled.pairs[0].doubled = 3;
    assert_wrong(&doubled, &["3 packets", "twice"]);
    assert_wrong(&SoakReport { tcp: TcpOutcome::Broken("stalled".to_owned()), ..clean() }, &["stalled"]);
    let counts = compare(&[("node1: links".to_owned(), 4)].into(), &[("node1: maps".to_owned(), 1)].into());
    let problems = problems(&SoakReport { counts, ..clean() });
    assert_eq!(problems, ["node1: links: 4 before, 0 after", "node1: maps: 0 before, 1 after"]);
    assert_wrong(&SoakReport { difference: Some("a route".to_owned()), ..clean() }, &["a route"]);
}

#[test]
fn what_grows_once_it_has_settled_is_a_leak() {
    let with = |memory| SoakReport { memory, ..clean() };
    // What an agent takes at first is none.
    assert_eq!(super::problems(&with(samples(|at| (if at < 5 { 1000 } else { 10_000 }, 30)))), [""; 0]);
    assert_wrong(&with(samples(|at| (10_000 + at * 100, 30))), &["memory", "KiB"]);
    assert_wrong(&with(samples(|at| (10_000, 30 + at))), &["descriptors"]);
    assert_eq!(super::problems(&with(Vec::new())), [""; 0]);
}
