//! Following the leases: one snapshot, then the changes.

use std::sync::Arc;

use overlay_user::{
    datastore::{Created, Datastore, Lifetime, Replaced},
    lease::{Lease, LeaseEvent},
    watch::{self, WatchEvent},
};
use tokio::{sync::mpsc, task::JoinHandle};

use crate::ground::{Ground, SHORT, next, node, on_both, within};

on_both!(
    a_follower_hears_of_everything_once,
    a_follower_is_told_the_config_once,
    an_expired_lease_is_removed,
    one_bad_key_does_not_blind_a_node,
    a_slip_of_the_hand_does_not_cut_a_node_off,
    a_slow_follower_misses_nothing,
    following_ends_when_nobody_listens,
);

pub(crate) fn follow(store: Arc<dyn Datastore>) -> (mpsc::Receiver<WatchEvent>, JoinHandle<()>) {
    let (sender, events) = mpsc::channel(4);
    (events, tokio::spawn(watch::run(store, sender)))
}

pub(crate) async fn reset(events: &mut mpsc::Receiver<WatchEvent>) -> Vec<String> {
    match next(events).await {
        WatchEvent::Lease(LeaseEvent::Reset(leases)) => leases.iter().map(|lease| lease.subnet.to_string()).collect(),
        other => panic!("no snapshot: {other:?}"),
    }
}

pub(crate) async fn put(store: &Arc<dyn Datastore>, key: &str, last: u8) -> i64 {
    match store.create(key, &node(last, last).to_value(), Lifetime::Ttl).await.unwrap() {
        Created::Yes(revision) => revision,
        Created::Exists => panic!("{key} exists"),
    }
}

fn added(key: &str, last: u8) -> WatchEvent {
    WatchEvent::Lease(LeaseEvent::Added(Lease { subnet: key.parse().unwrap(), node: node(last, last) }))
}

fn removed(key: &str) -> WatchEvent {
    WatchEvent::Lease(LeaseEvent::Removed(key.parse().unwrap()))
}

async fn a_follower_hears_of_everything_once(ground: Ground) {
    let store = ground.store();
    put(&store, "10.1.2.0-24", 2).await;
    let (mut events, _following) = follow(ground.store());
    assert_eq!(reset(&mut events).await, ["10.1.2.0-24"]);
    let revision = put(&store, "10.1.3.0-24", 3).await;
    assert_eq!(next(&mut events).await, added("10.1.3.0-24", 3));
    let replaced = store.replace("10.1.3.0-24", revision, &node(4, 4).to_value(), Lifetime::Ttl).await.unwrap();
    assert_eq!(next(&mut events).await, added("10.1.3.0-24", 4));
    let Replaced::Yes(revision) = replaced else { panic!() };
    store.delete("10.1.3.0-24", revision).await.unwrap();
    assert_eq!(next(&mut events).await, removed("10.1.3.0-24"));
    store.put_config(b"{}").await.unwrap();
    assert!(matches!(next(&mut events).await, WatchEvent::Config(Some(config)) if config.value == b"{}"));
}

async fn a_follower_is_told_the_config_once(ground: Ground) {
    let store = ground.store();
    let first = store.put_config(b"{}").await.unwrap();
    let (mut events, _following) = follow(ground.store());
    assert!(reset(&mut events).await.is_empty());
    assert!(matches!(next(&mut events).await, WatchEvent::Config(Some(config)) if config.revision == first));
    put(&store, "10.1.2.0-24", 2).await;
    assert_eq!(next(&mut events).await, added("10.1.2.0-24", 2));
    let second = store.put_config(b"{}").await.unwrap();
    assert!(matches!(next(&mut events).await, WatchEvent::Config(Some(config)) if config.revision == second));
}

async fn an_expired_lease_is_removed(ground: Ground) {
    let store = ground.with_ttl(SHORT).store();
    put(&store, "10.1.2.0-24", 2).await;
    let (mut events, _following) = follow(store);
    assert_eq!(reset(&mut events).await, ["10.1.2.0-24"]);
    assert_eq!(next(&mut events).await, removed("10.1.2.0-24"));
}

async fn one_bad_key_does_not_blind_a_node(ground: Ground) {
    let store = ground.store();
    for (key, value) in [("what", &b"{}"[..]), ("10.1.2.1-24", b"{}"), ("10.1.4.0-24", b"\xff")] {
        store.create(key, value, Lifetime::Ttl).await.unwrap();
    }
    put(&store, "10.1.2.0-24", 2).await;
    let (mut events, _following) = follow(ground.store());
    assert_eq!(reset(&mut events).await, ["10.1.2.0-24"]);
    assert_eq!(next(&mut events).await, WatchEvent::BadKeys(3));
    store.create("worse", &vec![b'x'; 1 << 20], Lifetime::Ttl).await.unwrap();
    assert_eq!(next(&mut events).await, WatchEvent::BadKeys(4));
    put(&store, "10.1.3.0-24", 3).await;
    assert_eq!(next(&mut events).await, added("10.1.3.0-24", 3));
    let entry = crate::ground::lease(&store, "10.1.4.0-24").await.unwrap();
    store.replace("10.1.4.0-24", entry.revision, &node(4, 4).to_value(), Lifetime::Ttl).await.unwrap();
    assert_eq!(next(&mut events).await, added("10.1.4.0-24", 4));
    assert_eq!(next(&mut events).await, WatchEvent::BadKeys(3));
}

async fn a_slip_of_the_hand_does_not_cut_a_node_off(ground: Ground) {
    let store = ground.store();
    let revision = put(&store, "10.1.2.0-24", 2).await;
    let (mut events, _following) = follow(ground.store());
    assert_eq!(reset(&mut events).await, ["10.1.2.0-24"]);
    let Replaced::Yes(revision) = store.replace("10.1.2.0-24", revision, b"oops", Lifetime::Ttl).await.unwrap() else {
        panic!()
    };
    assert_eq!(next(&mut events).await, WatchEvent::BadKeys(1), "and no removal");
    store.delete("10.1.2.0-24", revision).await.unwrap();
    assert_eq!(next(&mut events).await, removed("10.1.2.0-24"));
    assert_eq!(next(&mut events).await, WatchEvent::BadKeys(0));
}

async fn a_slow_follower_misses_nothing(ground: Ground) {
    let store = ground.store();
    let (mut events, _following) = follow(ground.store());
    assert!(reset(&mut events).await.is_empty());
    for third in 1..=100 {
        put(&store, &format!("10.1.{third}.0-24"), third).await;
    }
    for third in 1..=100 {
        assert_eq!(next(&mut events).await, added(&format!("10.1.{third}.0-24"), third));
    }
}

async fn following_ends_when_nobody_listens(ground: Ground) {
    let (mut events, following) = follow(ground.store());
    reset(&mut events).await;
    drop(events);
    within("the end", following).await.unwrap();
}
