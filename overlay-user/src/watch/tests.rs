use std::net::Ipv4Addr;

use tokio::time::Instant;

use super::known::Known;
use crate::datastore::{Entry, Revision};
use crate::lease::{Backend, Lease, LeaseEvent, Node, SubnetKey};

fn key(third: u8) -> String {
    format!("10.1.{third}.0-24")
}

fn node(last: u8) -> Node {
    Node { public_ip: Ipv4Addr::new(192, 0, 2, last), public_ipv6: None, backend: Backend::Udp }
}

fn entry(third: u8, last: u8, revision: Revision) -> Entry {
    Entry { key: key(third), value: node(last).to_value(), revision, permanent: false }
}

fn subnet(third: u8) -> SubnetKey {
    key(third).parse().unwrap()
}

fn added(third: u8, last: u8) -> LeaseEvent {
    LeaseEvent::Added(Lease { subnet: subnet(third), node: node(last) })
}

fn removed(third: u8) -> LeaseEvent {
    LeaseEvent::Removed(subnet(third))
}

fn subnets(leases: &[Lease]) -> Vec<SubnetKey> {
    leases.iter().map(|lease| lease.subnet).collect()
}

/// A grace that is over already.
fn over() -> Option<Instant> {
    Some(Instant::now())
}

#[test]
fn what_a_snapshot_does_not_have_is_gone() {
    let mut known = Known::default();
    known.reset(&[entry(2, 2, 5), entry(3, 3, 6)], None);
    assert_eq!(subnets(&known.reset(&[entry(3, 3, 6)], None)), [subnet(3)]);
    assert_eq!(known.grace(), None);
}

#[test]
fn what_a_rewound_store_forgot_stays_until_the_grace_is_over() {
    let mut known = Known::default();
    known.reset(&[entry(2, 2, 5), entry(3, 3, 6)], None);
    assert_eq!(subnets(&known.reset(&[], over())), [subnet(2), subnet(3)]);
    assert_eq!(known.put(&entry(2, 2, 1)), [added(2, 2)], "back in time");
    assert_eq!(known.end_grace(), [removed(3)]);
    assert_eq!(known.grace(), None);
    assert_eq!(subnets(&known.reset(&[entry(2, 2, 1)], None)), [subnet(2)]);
}

#[test]
fn grace_lasts_over_another_gap_and_not_longer() {
    let mut known = Known::default();
    known.reset(&[entry(2, 2, 5)], None);
    known.reset(&[], over());
    assert_eq!(subnets(&known.reset(&[], None)), [subnet(2)]);
    assert_eq!(known.end_grace(), [removed(2)]);
    assert!(known.reset(&[], None).is_empty());
}

#[test]
fn nobody_stays_by_grace_whose_subnet_or_node_is_there_again() {
    let mut known = Known::default();
    known.reset(&[entry(2, 2, 5), entry(3, 3, 6), entry(4, 4, 7), entry(5, 5, 8)], None);
    // Node 2 has another subnet now, and subnet 3 another node.
    let leases = known.reset(&[entry(20, 2, 1), entry(3, 33, 2)], over());
    assert_eq!(subnets(&leases), [subnet(3), subnet(4), subnet(5), subnet(20)]);
    assert_eq!(known.put(&entry(40, 4, 3)), [removed(4), added(40, 4)]);
    assert_eq!(known.put(&entry(5, 55, 4)), [added(5, 55)]);
    assert!(known.end_grace().is_empty());
}

#[test]
fn a_key_that_is_older_than_it_was_gives_a_restored_store_away() {
    let mut known = Known::default();
    known.reset(&[entry(2, 2, 5)], None);
    assert!(!known.is_newer_than(&[entry(2, 2, 5), entry(3, 3, 1)]));
    assert!(known.is_newer_than(&[entry(2, 2, 4)]));
    known.put(&entry(2, 2, 9));
    assert!(known.is_newer_than(&[entry(2, 2, 8)]));
}

#[test]
fn bad_keys_are_counted_while_they_are_there() {
    let mut known = Known::default();
    let bad = |key: &str, revision| Entry { key: key.to_owned(), value: b"{}".to_vec(), revision, permanent: true };
    assert!(known.reset(&[bad("x", 1), bad("10.1.9.0-24", 2)], None).is_empty());
    assert_eq!(known.changed_bad_keys(), Some(2));
    assert_eq!(known.changed_bad_keys(), None);
    assert_eq!(known.put(&entry(9, 9, 3)), [added(9, 9)]);
    assert_eq!(known.changed_bad_keys(), Some(1));
    assert!(known.delete("x").is_empty());
    assert_eq!(known.changed_bad_keys(), Some(0));
}

#[test]
fn a_bad_value_leaves_the_last_good_one_even_over_a_gap() {
    let mut known = Known::default();
    known.reset(&[entry(2, 2, 5)], None);
    let bad = Entry { value: b"oops".to_vec(), ..entry(2, 2, 6) };
    assert!(known.put(&bad).is_empty());
    assert_eq!(subnets(&known.reset(&[bad], None)), [subnet(2)]);
    assert_eq!(known.delete(&key(2)), [removed(2)]);
    assert!(known.delete(&key(2)).is_empty());
}
