//! What an operator does to the datastore by hand.

use std::{net::Ipv4Addr, sync::Arc};

use overlay_user::{
    admin::{self, AdminError, Ours},
    datastore::{Datastore, Lifetime},
    holder::{Claim, HoldEvent, acquire},
    lease::SubnetKey,
};
use tokio::sync::mpsc;

use crate::ground::{Ground, lease, network, next, node, on_both, until};

on_both!(
    a_config_is_checked_before_it_is_stored,
    leases_are_listed_with_what_is_wrong_with_them,
    a_reserved_subnet_goes_to_its_node,
    reserving_the_lease_of_a_living_node_disturbs_nothing,
    only_free_and_fitting_subnets_are_reserved,
    a_released_subnet_is_gone_unless_its_node_lives,
);

const NETWORK: &[u8] = br#"{ "Network": "10.1.0.0/16", "Backend": {"Type": "vxlan"} }"#;
const NODE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

fn key(text: &str) -> SubnetKey {
    text.parse().expect("a subnet")
}

async fn with_network(ground: &Ground) -> Arc<dyn Datastore> {
    let store = ground.store();
    admin::config_set(&*store, NETWORK).await.unwrap();
    store
}

async fn a_config_is_checked_before_it_is_stored(ground: Ground) {
    let store = ground.store();
    assert!(matches!(admin::config_get(&*store).await, Err(AdminError::NoConfig)));
    let error = admin::config_set(&*store, br#"{"Network":"10.1.0.0/29"}"#).await.unwrap_err();
    assert!(error.to_string().contains("Network 10.1.0.0/29"), "{error}");
    assert!(matches!(admin::config_get(&*store).await, Err(AdminError::NoConfig)));
    admin::config_set(&*store, NETWORK).await.unwrap();
    assert_eq!(admin::config_get(&*store).await.unwrap().as_bytes(), NETWORK);
}

async fn leases_are_listed_with_what_is_wrong_with_them(ground: Ground) {
    let store = with_network(&ground).await;
    store.create("10.1.100.0-24", &node(1, 1).to_value(), Lifetime::Ttl).await.unwrap();
    store.create("10.1.20.0-24", br#"{"PublicIP":"192.0.2.2"}"#, Lifetime::Permanent).await.unwrap();
    store.create("0", b"{}", Lifetime::Ttl).await.unwrap();
    let rows = admin::lease_list(&*store, &Ours::default()).await.unwrap();
    let subnets: Vec<&str> = rows.iter().map(|row| row.subnet.as_str()).collect();
    assert_eq!(subnets, ["10.1.20.0-24", "10.1.100.0-24", "0"]);
    assert!(rows[0].reserved && !rows[1].reserved);
    assert_eq!(rows[0].expires_in, None);
    let day = store.ttl().as_secs();
    assert!(rows[1].expires_in.is_some_and(|seconds| (day - 60..=day).contains(&seconds)), "{:?}", rows[1]);
    assert_eq!(rows[1].vtep_mac.as_deref(), Some("02:00:00:00:00:01"));
    assert!(rows[2].problem.is_some());
    let table = admin::lease_table(&rows);
    assert!(table.contains("10.1.100.0-24") && table.lines().count() == 4, "{table}");
    assert!(table.contains("never") && (table.contains("23h 59m") || table.contains("24h 0m")), "{table}");
}

async fn a_reserved_subnet_goes_to_its_node(ground: Ground) {
    let store = with_network(&ground).await;
    admin::lease_reserve(&*store, key("10.1.50.0-24"), NODE.into()).await.unwrap();
    admin::lease_reserve(&*store, key("10.1.50.0-24"), NODE.into()).await.expect("twice is once");
    let holder = acquire(ground.store(), &network(), &Claim::new(node(1, 1))).await.unwrap();
    assert_eq!(holder.lease().subnet, key("10.1.50.0-24"));
    assert_eq!(holder.expires(), None);
}

async fn reserving_the_lease_of_a_living_node_disturbs_nothing(ground: Ground) {
    let store = with_network(&ground).await;
    let holder = acquire(ground.store(), &network(), &Claim::new(node(1, 1))).await.unwrap();
    let subnet = holder.lease().subnet;
    let (sender, mut events) = mpsc::channel(16);
    let _keeping = tokio::spawn(holder.keep(sender));
    assert!(matches!(next(&mut events).await, HoldEvent::Held { expires: Some(_), .. }));
    admin::lease_reserve(&*store, subnet, NODE.into()).await.unwrap();
    assert!(matches!(next(&mut events).await, HoldEvent::Held { expires: None, .. }));
    let entry = lease(&store, &subnet.to_string()).await.unwrap();
    assert!(entry.permanent && entry.value == node(1, 1).to_value());
}

async fn only_free_and_fitting_subnets_are_reserved(ground: Ground) {
    let store = with_network(&ground).await;
    store.create("10.1.2.0-24", &node(2, 2).to_value(), Lifetime::Ttl).await.unwrap();
    for (subnet, expected) in [
        ("10.1.2.0-24", "10.1.2.0-24 is leased by 192.0.2.2"),
        ("10.1.3.0-25", "wants /24 from 10.1.1.0 to 10.1.255.0"),
        ("10.2.3.0-24", "not a subnet of the network config"),
        ("10.1.3.0-24&fd00::-64", "not a subnet of the network config"),
    ] {
        let error = admin::lease_reserve(&*store, key(subnet), NODE.into()).await.unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    let nobody = admin::lease_reserve(&*store, key("10.1.3.0-24"), Ipv4Addr::UNSPECIFIED.into()).await.unwrap_err();
    assert!(nobody.to_string().contains("PublicIP 0.0.0.0"), "{nobody}");
    let second =
        admin::lease_reserve(&*store, key("10.1.3.0-24"), Ipv4Addr::new(192, 0, 2, 2).into()).await.unwrap_err();
    assert!(second.to_string().contains("192.0.2.2 has 10.1.2.0-24"), "{second}");
}

async fn a_released_subnet_is_gone_unless_its_node_lives(ground: Ground) {
    let store = with_network(&ground).await;
    let subnet = key("10.1.50.0-24");
    assert!(matches!(admin::lease_release(&*store, subnet).await, Err(AdminError::Unknown(_))));
    admin::lease_reserve(&*store, subnet, NODE.into()).await.unwrap();
    admin::lease_release(&*store, subnet).await.unwrap();
    assert!(admin::lease_list(&*store, &Ours::default()).await.unwrap().is_empty());
    let holder = acquire(ground.store(), &network(), &Claim::new(node(1, 1))).await.unwrap();
    let subnet = holder.lease().subnet;
    let (sender, mut events) = mpsc::channel(16);
    let _keeping = tokio::spawn(holder.keep(sender));
    assert!(matches!(next(&mut events).await, HoldEvent::Held { .. }));
    admin::lease_release(&*store, subnet).await.unwrap();
    assert!(matches!(next(&mut events).await, HoldEvent::Retaken { .. }));
    until("the lease is back", async || lease(&store, &subnet.to_string()).await.is_some()).await;
}
