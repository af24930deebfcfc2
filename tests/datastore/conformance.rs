//! What every datastore does.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use overlay_user::datastore::{Change, Created, Datastore, Lifetime, Replaced, Scope};

use crate::ground::{Ground, SHORT, change, keys, lease, on_both, until, within};

const KEY: &str = "10.1.15.0-24";
const OTHER: &str = "10.1.16.0-24&fd00:1:16::-64";

on_both!(
    a_new_store_is_empty,
    the_config_is_written_read_and_watched,
    of_many_racers_one_creates_the_lease,
    a_lease_is_replaced_only_at_its_revision,
    a_lease_is_deleted_only_at_its_revision,
    an_expired_lease_is_gone_for_readers_watchers_and_creators,
    a_reservation_outlives_every_lease,
    a_renewed_lease_lives_on,
    a_watch_goes_on_where_the_snapshot_ended,
    a_watch_on_one_lease_tells_of_no_other,
    changes_come_in_their_order,
    any_bytes_are_stored,
    two_nodes_share_nothing_but_the_store,
);

async fn create(store: &Arc<dyn Datastore>, key: &str, value: &[u8], lifetime: Lifetime) -> i64 {
    match store.create(key, value, lifetime).await.unwrap() {
        Created::Yes(revision) => revision,
        Created::Exists => panic!("{key} exists"),
    }
}

async fn a_new_store_is_empty(ground: Ground) {
    let store = ground.store();
    assert_eq!(store.config().await.unwrap(), None);
    assert!(store.snapshot(&Scope::Everything).await.unwrap().entries.is_empty());
    assert_eq!(lease(&store, KEY).await, None);
    assert_eq!(store.replace(KEY, 1, b"x", Lifetime::Ttl).await.unwrap(), Replaced::Changed(None));
    assert!(!store.delete(KEY, 1).await.unwrap());
}

async fn the_config_is_written_read_and_watched(ground: Ground) {
    let (store, other) = (ground.store(), ground.store());
    let position = store.snapshot(&Scope::Everything).await.unwrap().position;
    let mut changes = store.watch(Scope::Everything, &position).await.unwrap();
    for value in [&b"{}"[..], b"{\"Network\":\"10.1.0.0/16\"}"] {
        let revision = other.put_config(value).await.unwrap();
        let Change::Config(Some(seen)) = change(&mut changes).await else { panic!("not a config") };
        assert_eq!((seen.value.as_slice(), seen.revision), (value, revision));
        assert_eq!(store.config().await.unwrap(), Some(seen));
    }
    assert!(keys(&store).await.is_empty(), "the config is no lease");
}

async fn of_many_racers_one_creates_the_lease(ground: Ground) {
    let racers = (0..16u8).map(|racer| {
        let store = ground.store();
        tokio::spawn(async move { store.create(KEY, &[b'0' + racer], Lifetime::Ttl).await.unwrap() })
    });
    let outcomes = futures::future::join_all(racers).await;
    let winners: Vec<u8> =
        (0u8..).zip(&outcomes).filter(|(_, o)| matches!(o, Ok(Created::Yes(_)))).map(|(i, _)| i).collect();
    assert_eq!(winners.len(), 1);
    let entry = lease(&ground.store(), KEY).await.unwrap();
    assert_eq!(entry.value, [b'0' + winners[0]]);
    assert_eq!(outcomes[usize::from(winners[0])].as_ref().unwrap(), &Created::Yes(entry.revision));
}

async fn a_lease_is_replaced_only_at_its_revision(ground: Ground) {
    let (store, other) = (ground.store(), ground.store());
    let first = create(&store, KEY, b"one", Lifetime::Ttl).await;
    let Replaced::Yes(second) = other.replace(KEY, first, b"two", Lifetime::Ttl).await.unwrap() else { panic!() };
    assert_ne!(first, second);
    let Replaced::Changed(Some(found)) = store.replace(KEY, first, b"three", Lifetime::Ttl).await.unwrap() else {
        panic!()
    };
    assert_eq!((found.value.as_slice(), found.revision), (&b"two"[..], second));
    assert_eq!(lease(&store, KEY).await, Some(found));
}

async fn a_lease_is_deleted_only_at_its_revision(ground: Ground) {
    let store = ground.store();
    let first = create(&store, KEY, b"one", Lifetime::Ttl).await;
    let Replaced::Yes(second) = store.replace(KEY, first, b"two", Lifetime::Ttl).await.unwrap() else { panic!() };
    assert!(!store.delete(KEY, first).await.unwrap());
    assert!(lease(&store, KEY).await.is_some());
    assert!(store.delete(KEY, second).await.unwrap());
    assert_eq!(lease(&store, KEY).await, None);
    create(&store, KEY, b"three", Lifetime::Ttl).await;
}

async fn an_expired_lease_is_gone_for_readers_watchers_and_creators(ground: Ground) {
    let store = ground.with_ttl(SHORT).store();
    assert_eq!(store.ttl(), SHORT);
    create(&store, KEY, b"one", Lifetime::Ttl).await;
    let start = Instant::now();
    let position = store.snapshot(&Scope::Everything).await.unwrap().position;
    let mut changes = store.watch(Scope::Everything, &position).await.unwrap();
    assert_eq!(change(&mut changes).await, Change::Deleted(KEY.to_owned()));
    assert!(start.elapsed() > SHORT / 2, "expired early, after {:?}", start.elapsed());
    assert!(keys(&store).await.is_empty());
    create(&store, KEY, b"two", Lifetime::Ttl).await;
    assert!(matches!(change(&mut changes).await, Change::Put(entry) if entry.value == b"two"));
}

async fn a_reservation_outlives_every_lease(ground: Ground) {
    let store = ground.with_ttl(SHORT).store();
    let revision = create(&store, OTHER, b"reserved", Lifetime::Permanent).await;
    let Replaced::Yes(_) = store.replace(OTHER, revision, b"still", Lifetime::Permanent).await.unwrap() else {
        panic!()
    };
    // The lease is the clock: when it has run out, a reservation that ages would have done so, too.
    create(&store, KEY, b"lease", Lifetime::Ttl).await;
    assert!(lease(&store, OTHER).await.unwrap().permanent);
    assert!(!lease(&store, KEY).await.unwrap().permanent);
    let position = store.snapshot(&Scope::Everything).await.unwrap().position;
    let mut changes = store.watch(Scope::Everything, &position).await.unwrap();
    assert_eq!(change(&mut changes).await, Change::Deleted(KEY.to_owned()));
    assert_eq!(lease(&store, OTHER).await.unwrap().value, b"still");
    assert_eq!(store.create(OTHER, b"mine", Lifetime::Ttl).await.unwrap(), Created::Exists);
}

async fn a_renewed_lease_lives_on(ground: Ground) {
    let store = ground.with_ttl(SHORT).store();
    let mut revision = create(&store, KEY, b"one", Lifetime::Ttl).await;
    let start = Instant::now();
    while start.elapsed() < SHORT * 3 {
        tokio::time::sleep(SHORT / 4).await;
        match store.replace(KEY, revision, b"one", Lifetime::Ttl).await.unwrap() {
            Replaced::Yes(next) => revision = next,
            Replaced::Changed(found) => panic!("expired or changed: {found:?}"),
        }
    }
    until("the lease has run out", async || lease(&store, KEY).await.is_none()).await;
}

async fn a_watch_goes_on_where_the_snapshot_ended(ground: Ground) {
    let (store, other) = (ground.store(), ground.store());
    let gone = create(&other, KEY, b"gone", Lifetime::Ttl).await;
    let changed = create(&other, OTHER, b"old", Lifetime::Ttl).await;
    create(&other, "10.1.20.0-24", b"same", Lifetime::Ttl).await;
    let snapshot = store.snapshot(&Scope::Everything).await.unwrap();
    assert_eq!(snapshot.entries.len(), 3);
    assert!(other.delete(KEY, gone).await.unwrap());
    other.replace(OTHER, changed, b"new", Lifetime::Ttl).await.unwrap();
    create(&other, "10.1.21.0-24", b"born", Lifetime::Ttl).await;
    let mut changes = store.watch(Scope::Everything, &snapshot.position).await.unwrap();
    let mut seen = Vec::new();
    for _ in 0..3 {
        seen.push(match change(&mut changes).await {
            Change::Put(entry) => format!("{} {}", entry.key, String::from_utf8(entry.value).unwrap()),
            Change::Deleted(key) => format!("{key} deleted"),
            other => panic!("{other:?}"),
        });
    }
    seen.sort();
    assert_eq!(seen, [format!("{KEY} deleted"), format!("{OTHER} new"), "10.1.21.0-24 born".to_owned()]);
    create(&other, "10.1.22.0-24", b"last", Lifetime::Ttl).await;
    assert!(
        matches!(change(&mut changes).await, Change::Put(entry) if entry.key == "10.1.22.0-24"),
        "and nothing else came"
    );
}

async fn a_watch_on_one_lease_tells_of_no_other(ground: Ground) {
    let store = ground.store();
    let scope = Scope::Lease(KEY.to_owned());
    let snapshot = store.snapshot(&scope).await.unwrap();
    assert!(snapshot.entries.is_empty());
    let mut changes = store.watch(scope, &snapshot.position).await.unwrap();
    create(&store, OTHER, b"no", Lifetime::Ttl).await;
    store.put_config(b"{}").await.unwrap();
    create(&store, "10.1.15.0-25", b"no", Lifetime::Ttl).await;
    create(&store, KEY, b"yes", Lifetime::Ttl).await;
    assert!(matches!(change(&mut changes).await, Change::Put(entry) if entry.value == b"yes"));
}

async fn changes_come_in_their_order(ground: Ground) {
    let (store, other) = (ground.store(), ground.store());
    let position = store.snapshot(&Scope::Everything).await.unwrap().position;
    let mut changes = store.watch(Scope::Everything, &position).await.unwrap();
    let mut revision = create(&other, KEY, b"0", Lifetime::Ttl).await;
    let mut last = b"0".to_vec();
    for step in 1..=50u32 {
        last = step.to_string().into_bytes();
        let Replaced::Yes(next) = other.replace(KEY, revision, &last, Lifetime::Ttl).await.unwrap() else { panic!() };
        assert!(next > revision);
        revision = next;
    }
    let mut before = 0;
    within("the last value", async {
        loop {
            let Change::Put(entry) = change(&mut changes).await else { panic!("only puts were made") };
            assert!(entry.revision > before, "told twice or backwards");
            before = entry.revision;
            if entry.value == last {
                return;
            }
        }
    })
    .await;
    assert!(other.delete(KEY, revision).await.unwrap());
    assert_eq!(change(&mut changes).await, Change::Deleted(KEY.to_owned()));
}

async fn any_bytes_are_stored(ground: Ground) {
    let store = ground.store();
    let large = vec![b'x'; 1 << 20];
    for (key, value) in [("a", &b"\xff\x00\n"[..]), ("x y&:", b" "), (KEY, &large)] {
        create(&store, key, value, Lifetime::Ttl).await;
        assert_eq!(lease(&store, key).await.unwrap().value, value, "{key}");
    }
    assert_eq!(keys(&store).await, [KEY, "a", "x y&:"]);
}

async fn two_nodes_share_nothing_but_the_store(ground: Ground) {
    let (one, two) = (ground.store(), ground.store());
    create(&one, KEY, b"one", Lifetime::Ttl).await;
    let started = Instant::now();
    drop(one);
    assert_eq!(lease(&two, KEY).await.unwrap().value, b"one");
    assert!(started.elapsed() < Duration::from_secs(5));
}
