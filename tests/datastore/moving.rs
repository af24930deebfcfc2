//! Nodes whose PublicIP changes while they keep their lease.

use overlay_user::{datastore::Lifetime, holder::HoldEvent, lease::Lease};

use crate::{
    ground::{Ground, keys, lease, next, node, on_both, until},
    holding::{claim, held, keep, key, overwrite, take},
};

on_both!(
    a_new_public_ip_is_written_in_place,
    a_new_public_ip_overwrites_nobody,
    a_reservation_stays_one_under_a_new_public_ip,
    a_lease_that_vanished_is_taken_back_with_the_new_public_ip,
);

async fn a_new_public_ip_is_written_in_place(ground: Ground) {
    let store = ground.store();
    let holder = take(&store, &claim(node(1, 1))).await;
    let (ours, presented) = (holder.lease().clone(), holder.node());
    let (mut events, _keeper) = keep(holder);
    assert_eq!(held(&mut events).await, ours);
    presented.send_replace(node(9, 1));
    let moved = Lease { node: node(9, 1), ..ours.clone() };
    assert_eq!(held(&mut events).await, moved);
    assert_eq!(lease(&store, &key(&ours)).await.unwrap().value, node(9, 1).to_value());
    assert_eq!(keys(&store).await, [key(&ours)]);
    // It is kept as it is now, and whoever had the old address is another node.
    overwrite(&store, &key(&ours), &node(1, 1).to_value()).await;
    assert_eq!(next(&mut events).await, HoldEvent::Lost { to: node(1, 1) });
}

async fn a_new_public_ip_overwrites_nobody(ground: Ground) {
    let store = ground.store();
    let holder = take(&store, &claim(node(1, 1))).await;
    let (ours, presented) = (holder.lease().clone(), holder.node());
    let (mut events, _keeper) = keep(holder);
    held(&mut events).await;
    overwrite(&store, &key(&ours), &node(2, 2).to_value()).await;
    assert_eq!(next(&mut events).await, HoldEvent::Lost { to: node(2, 2) });
    presented.send_replace(node(9, 1));
    // Once it is free, it is taken back under the new address.
    let theirs = lease(&store, &key(&ours)).await.unwrap();
    assert_eq!(theirs.value, node(2, 2).to_value());
    assert!(store.delete(&key(&ours), theirs.revision).await.unwrap());
    let HoldEvent::Retaken { lease: retaken, .. } = next(&mut events).await else { panic!("not retaken") };
    assert_eq!(retaken, Lease { node: node(9, 1), ..ours });
}

async fn a_reservation_stays_one_under_a_new_public_ip(ground: Ground) {
    let store = ground.store();
    let reserved = "10.1.77.0-24";
    store.create(reserved, &node(1, 1).to_value(), Lifetime::Permanent).await.unwrap();
    let holder = take(&store, &claim(node(1, 1))).await;
    let presented = holder.node();
    let (mut events, _keeper) = keep(holder);
    held(&mut events).await;
    presented.send_replace(node(9, 1));
    held(&mut events).await;
    let entry = lease(&store, reserved).await.unwrap();
    assert!(entry.permanent && entry.value == node(9, 1).to_value());
}

async fn a_lease_that_vanished_is_taken_back_with_the_new_public_ip(ground: Ground) {
    let store = ground.store();
    let holder = take(&store, &claim(node(1, 1))).await;
    let (ours, presented) = (holder.lease().clone(), holder.node());
    let (_events, _keeper) = keep(holder);
    let entry = lease(&store, &key(&ours)).await.unwrap();
    // Both at once, in whatever order the keeper hears of them.
    presented.send_replace(node(9, 1));
    store.delete(&key(&ours), entry.revision).await.unwrap();
    let value = node(9, 1).to_value();
    until("the lease is there with the new address", async || {
        lease(&store, &key(&ours)).await.is_some_and(|entry| entry.value == value)
    })
    .await;
}
