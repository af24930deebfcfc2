//! Nodes that take subnets and keep them.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use overlay_user::{
    allocate::Previous,
    datastore::{Created, Datastore, Lifetime, Replaced},
    holder::{AcquireError, Claim, HoldEvent, Holder, acquire},
    lease::{Lease, Node},
    network::NetworkConfig,
};
use tokio::{sync::mpsc, task::JoinHandle};

use crate::ground::{Ground, SHORT, keys, lease, network, next, node, on_both, until};

/// For tests in which nobody is there to answer.
const PATIENCE: Duration = Duration::from_millis(300);

on_both!(
    a_lease_holds_flannels_bytes,
    a_restarted_node_has_its_lease_back_at_once,
    after_a_reboot_the_lease_is_found_by_public_ip,
    a_freed_previous_subnet_is_taken_again,
    two_living_nodes_with_one_public_ip_do_not_both_start,
    nodes_that_start_together_get_different_subnets,
    nodes_that_start_together_share_a_subnet_of_neither_family,
    a_node_keeps_its_ipv4_subnet_when_its_cluster_becomes_dual_stack,
    a_full_network_is_refused_with_the_reason,
    a_lease_that_no_longer_fits_is_given_up,
    a_reservation_for_a_node_is_taken_and_stays_one,
    a_kept_lease_is_renewed,
    a_lease_that_vanished_is_taken_back,
    a_stolen_subnet_is_never_overwritten_and_taken_back_when_free,
    a_changed_value_is_restored,
    a_contest_for_one_public_ip_ends_degraded_and_not_in_a_storm,
    keeping_ends_when_nobody_listens,
);

pub(crate) fn claim(node: Node) -> Claim {
    Claim { answer_wait: PATIENCE, ..Claim::new(node) }
}

pub(crate) async fn take(store: &Arc<dyn Datastore>, claim: &Claim) -> Holder {
    acquire(Arc::clone(store), &network(), claim).await.expect("take a subnet")
}

pub(crate) fn key(lease: &Lease) -> String {
    lease.subnet.to_string()
}

pub(crate) fn keep(holder: Holder) -> (mpsc::Receiver<HoldEvent>, JoinHandle<()>) {
    let (sender, events) = mpsc::channel(16);
    (events, tokio::spawn(holder.keep(sender)))
}

pub(crate) async fn held(events: &mut mpsc::Receiver<HoldEvent>) -> Lease {
    match next(events).await {
        HoldEvent::Held { lease, .. } => lease,
        other => panic!("not held: {other:?}"),
    }
}

pub(crate) async fn overwrite(store: &Arc<dyn Datastore>, key: &str, value: &[u8]) {
    loop {
        let entry = lease(store, key).await.expect("the lease is there");
        if let Replaced::Yes(_) = store.replace(key, entry.revision, value, Lifetime::Ttl).await.unwrap() {
            return;
        }
    }
}

async fn a_lease_holds_flannels_bytes(ground: Ground) {
    let store = ground.store();
    let holder = take(&store, &claim(node(1, 1))).await;
    let entry = lease(&store, &key(holder.lease())).await.unwrap();
    let expected = r#"{"PublicIP":"192.0.2.1","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"02:00:00:00:00:01"}}"#;
    assert_eq!(String::from_utf8(entry.value).unwrap(), expected);
    assert!(!entry.permanent && holder.expires().is_some());
}

async fn a_restarted_node_has_its_lease_back_at_once(ground: Ground) {
    let store = ground.store();
    let first = take(&store, &claim(node(1, 1))).await.lease().clone();
    take(&store, &claim(node(2, 2))).await;
    let patient = Claim { answer_wait: Duration::from_secs(60), ..claim(node(1, 1)) };
    let start = Instant::now();
    assert_eq!(take(&store, &patient).await.lease(), &first);
    // The device was made anew, but subnet.env remembers the subnet.
    let previous = Previous { v4: Some(first.subnet.v4), v6: None };
    let renewed = Claim { previous, node: node(1, 9), ..patient };
    assert_eq!(take(&store, &renewed).await.lease(), &Lease { node: node(1, 9), ..first.clone() });
    assert!(start.elapsed() < Duration::from_secs(20), "asked though it was known");
    let stored = lease(&store, &key(&first)).await.unwrap().value;
    assert_eq!(stored, node(1, 9).to_value());
}

async fn after_a_reboot_the_lease_is_found_by_public_ip(ground: Ground) {
    let store = ground.store();
    let first = take(&store, &claim(node(1, 1))).await.lease().clone();
    let again = take(&store, &claim(node(1, 9))).await;
    assert_eq!(again.lease().subnet, first.subnet);
    assert_eq!(lease(&store, &key(&first)).await.unwrap().value, node(1, 9).to_value(), "no question is left behind");
    assert_eq!(keys(&store).await.len(), 1);
}

async fn a_freed_previous_subnet_is_taken_again(ground: Ground) {
    let store = ground.store();
    let previous = Previous { v4: Some("10.1.77.1/24".parse().unwrap()), v6: None };
    let holder = take(&store, &Claim { previous, ..claim(node(1, 1)) }).await;
    assert_eq!(key(holder.lease()), "10.1.77.0-24");
    let other = take(&store, &Claim { previous, ..claim(node(2, 2)) }).await;
    assert_ne!(key(other.lease()), "10.1.77.0-24");
}

async fn two_living_nodes_with_one_public_ip_do_not_both_start(ground: Ground) {
    let holder = take(&ground.store(), &claim(node(1, 1))).await;
    let lease = holder.lease().clone();
    let (mut events, _keeping) = keep(holder);
    assert_eq!(held(&mut events).await, lease);
    let patient = Claim { answer_wait: Duration::from_secs(20), ..claim(node(1, 2)) };
    let refused = acquire(ground.store(), &network(), &patient).await;
    let Err(AcquireError::Duplicate { subnet, .. }) = refused else { panic!("both started: {refused:?}") };
    assert_eq!(subnet, lease.subnet);
    let message = refused.unwrap_err().to_string();
    assert!(message.contains("192.0.2.1") && message.contains("--public-ip"), "{message}");
    assert_eq!(crate::ground::lease(&ground.store(), &key(&lease)).await.unwrap().value, node(1, 1).to_value());
}

async fn nodes_that_start_together_get_different_subnets(ground: Ground) {
    let config =
        NetworkConfig::parse(br#"{"Network":"10.1.0.0/24","SubnetLen":29,"Backend":{"Type":"vxlan"}}"#).unwrap();
    let nodes = (1..=31u8).map(|last| {
        let (store, config) = (ground.store(), config.clone());
        tokio::spawn(async move { acquire(store, &config, &claim(node(last, last))).await.unwrap().lease().clone() })
    });
    let leases = futures::future::join_all(nodes).await;
    let subnets: BTreeSet<_> = leases.iter().map(|lease| lease.as_ref().unwrap().subnet).collect();
    assert_eq!(subnets.len(), 31, "31 nodes for 31 subnets");
    assert_eq!(keys(&ground.store()).await.len(), 31);
}

/// A network with 15 subnets of each family.
fn small_dual_stack() -> NetworkConfig {
    let config = br#"{"Network":"10.1.0.0/20","SubnetLen":24,"EnableIPv6":true,"IPv6Network":"fd00:1::/60","Backend":{"Type":"vxlan"}}"#;
    NetworkConfig::parse(config).unwrap()
}

async fn nodes_that_start_together_share_a_subnet_of_neither_family(ground: Ground) {
    let nodes = (1..=8).map(|last| {
        let store = ground.store();
        let claim = claim(node(last, last));
        tokio::spawn(async move { acquire(store, &small_dual_stack(), &claim).await.unwrap().lease().subnet })
    });
    let leased = futures::future::join_all(nodes).await;
    let subnets: BTreeSet<_> = leased.iter().flat_map(|key| key.as_ref().unwrap().subnets()).collect();
    assert_eq!(subnets.len(), 16, "{subnets:?}");
    assert_eq!(keys(&ground.store()).await.len(), 8, "nothing is left of what was given up");
}

async fn a_node_keeps_its_ipv4_subnet_when_its_cluster_becomes_dual_stack(ground: Ground) {
    let store = ground.store();
    let old = "10.1.7.0-24";
    store.create(old, &node(1, 1).to_value(), Lifetime::Ttl).await.unwrap();
    let holder = acquire(Arc::clone(&store), &small_dual_stack(), &claim(node(1, 1))).await.unwrap();
    let subnet = holder.lease().subnet;
    assert_eq!((subnet.v4.to_string().as_str(), subnet.v6.is_some()), ("10.1.7.0/24", true));
    assert_eq!(keys(&store).await, [subnet.to_string()]);
}

async fn a_full_network_is_refused_with_the_reason(ground: Ground) {
    let config = NetworkConfig::parse(br#"{"Network":"10.1.0.0/22","Backend":{"Type":"vxlan"}}"#).unwrap();
    let store = ground.store();
    for third in 1..=3 {
        // Nobody can read what holds the last one, but it is taken all the same.
        let value = if third == 3 { b"?".to_vec() } else { node(third, third).to_value() };
        store.create(&format!("10.1.{third}.0-24"), &value, Lifetime::Ttl).await.unwrap();
    }
    let refused = acquire(store, &config, &claim(node(9, 9))).await.unwrap_err();
    assert!(matches!(refused, AcquireError::Full(_)), "{refused}");
    assert!(refused.to_string().contains("3 subnets of /24"), "{refused}");
}

async fn a_lease_that_no_longer_fits_is_given_up(ground: Ground) {
    let store = ground.store();
    for (unfit, lifetime) in [("10.9.3.0-24", Lifetime::Ttl), ("10.1.3.0-25", Lifetime::Permanent)] {
        store.create(unfit, &node(1, 1).to_value(), lifetime).await.unwrap();
        let holder = take(&store, &claim(node(1, 1))).await;
        assert!(key(holder.lease()).ends_with("-24"));
        let stays = lifetime == Lifetime::Permanent;
        assert_eq!(lease(&store, unfit).await.is_some(), stays, "{unfit}: only an operator ends a reservation");
        let entry = lease(&store, &key(holder.lease())).await.unwrap();
        assert!(store.delete(&entry.key, entry.revision).await.unwrap());
    }
}

async fn a_reservation_for_a_node_is_taken_and_stays_one(ground: Ground) {
    let ground = ground.with_ttl(SHORT);
    let store = ground.store();
    store.create("10.1.50.0-24", br#"{"PublicIP":"192.0.2.1"}"#, Lifetime::Permanent).await.unwrap();
    let holder = take(&store, &Claim { answer_wait: Duration::from_secs(60), ..claim(node(1, 1)) }).await;
    assert_eq!((key(holder.lease()).as_str(), holder.expires()), ("10.1.50.0-24", None));
    let (mut events, _keeping) = keep(holder);
    assert!(matches!(next(&mut events).await, HoldEvent::Held { expires: None, .. }));
    // Another node's lease is the clock.
    take(&store, &claim(node(2, 2))).await;
    until("the other lease has run out", async || keys(&store).await.len() == 1).await;
    let entry = lease(&store, "10.1.50.0-24").await.unwrap();
    assert!(entry.permanent && entry.value == node(1, 1).to_value());
}

async fn a_kept_lease_is_renewed(ground: Ground) {
    let store = ground.with_ttl(SHORT).store();
    let holder = take(&store, &claim(node(1, 1))).await;
    let key = key(holder.lease());
    let (mut events, _keeping) = keep(holder);
    let mut last = None;
    let start = Instant::now();
    while start.elapsed() < SHORT * 3 {
        let HoldEvent::Held { expires, .. } = next(&mut events).await else { panic!("trouble without a cause") };
        assert!(expires > last, "a renewal moves the expiry");
        last = expires;
        assert_eq!(lease(&store, &key).await.unwrap().value, node(1, 1).to_value());
    }
}

async fn a_lease_that_vanished_is_taken_back(ground: Ground) {
    let store = ground.store();
    let holder = take(&store, &claim(node(1, 1))).await;
    let ours = holder.lease().clone();
    let (mut events, _keeping) = keep(holder);
    held(&mut events).await;
    for _ in 0..3 {
        let entry = lease(&store, &key(&ours)).await.unwrap();
        assert!(store.delete(&entry.key, entry.revision).await.unwrap());
        assert!(matches!(next(&mut events).await, HoldEvent::Retaken { lease, .. } if lease == ours));
        assert_eq!(lease(&store, &key(&ours)).await.unwrap().value, node(1, 1).to_value());
    }
}

async fn a_stolen_subnet_is_never_overwritten_and_taken_back_when_free(ground: Ground) {
    let ground = ground.with_ttl(SHORT);
    let store = ground.store();
    let holder = take(&store, &claim(node(1, 1))).await;
    let ours = key(holder.lease());
    let (mut events, _keeping) = keep(holder);
    held(&mut events).await;
    overwrite(&store, &ours, &node(2, 2).to_value()).await;
    assert_eq!(next(&mut events).await, HoldEvent::Lost { to: node(2, 2) });
    // Nobody renews the thief's lease, so it ends by itself, untouched until then.
    let stolen = lease(&store, &ours).await.unwrap();
    assert_eq!(stolen.value, node(2, 2).to_value());
    assert!(matches!(next(&mut events).await, HoldEvent::Retaken { .. }));
    assert_eq!(lease(&store, &ours).await.unwrap().value, node(1, 1).to_value());
}

async fn a_changed_value_is_restored(ground: Ground) {
    let store = ground.store();
    let holder = take(&store, &claim(node(1, 1))).await;
    let ours = key(holder.lease());
    let (mut events, _keeping) = keep(holder);
    held(&mut events).await;
    for value in [&b"garbage"[..], &node(1, 7).to_value()] {
        overwrite(&store, &ours, value).await;
        held(&mut events).await;
        assert_eq!(lease(&store, &ours).await.unwrap().value, node(1, 1).to_value());
    }
}

async fn a_contest_for_one_public_ip_ends_degraded_and_not_in_a_storm(ground: Ground) {
    let store = ground.store();
    let holder = take(&store, &claim(node(1, 1))).await;
    let ours = key(holder.lease());
    let (mut events, _keeping) = keep(holder);
    held(&mut events).await;
    let mut restored = 0;
    let reason = loop {
        overwrite(&store, &ours, &node(1, 7).to_value()).await;
        match next(&mut events).await {
            HoldEvent::Held { .. } => restored += 1,
            HoldEvent::Degraded { reason } => break reason,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(restored, 3);
    assert!(reason.contains("192.0.2.1") && reason.contains(&ours), "{reason}");
    // When the other one is gone, all is well again.
    let entry = lease(&store, &ours).await.unwrap();
    assert!(store.delete(&ours, entry.revision).await.unwrap());
    assert!(matches!(next(&mut events).await, HoldEvent::Retaken { .. }));
}

async fn keeping_ends_when_nobody_listens(ground: Ground) {
    let store = ground.store();
    let (events, keeping) = keep(take(&store, &claim(node(1, 1))).await);
    drop(events);
    crate::ground::within("the end", keeping).await.unwrap();
    let created = store.create("10.1.200.0-24", b"x", Lifetime::Ttl).await.unwrap();
    assert!(matches!(created, Created::Yes(_)));
}
