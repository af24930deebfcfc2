//! Masquerading, judged by real packets.

use std::net::Ipv4Addr;
use std::time::Duration;

use overlay_user::masquerade::{Masquerade, RulesConfig, TrafficRules, remove};

use crate::site::{BRIDGE, CONTAINER, GROUP, NODE, NODE_IN_OVERLAY, OUTSIDE, PATIENCE, Packet, REMOTE, Site, config};

/// Everything that crosses the node: name, packet, source address without and with masquerading.
fn traffic(site: &Site) -> Vec<(&'static str, Packet<'_>, Ipv4Addr, Ipv4Addr)> {
    let (host, peer) = (&site.node.netns, &site.node.peer);
    let packet = |sender, source, receiver, destination| Packet { sender, source, receiver, destination, port: 7000 };
    let container = |receiver, destination| packet(&site.container, CONTAINER, receiver, destination);
    vec![
        ("our container to a remote one", container(&site.remote, REMOTE), CONTAINER, CONTAINER),
        ("a remote container to ours", packet(&site.remote, REMOTE, &site.container, CONTAINER), REMOTE, REMOTE),
        ("a client outside to our container", packet(peer, OUTSIDE, &site.container, CONTAINER), OUTSIDE, OUTSIDE),
        ("our container to the outside", container(peer, OUTSIDE), CONTAINER, NODE),
        ("our container to its node", container(host, NODE), CONTAINER, CONTAINER),
        ("a remote container to the outside", packet(&site.remote, REMOTE, peer, OUTSIDE), REMOTE, NODE),
        ("the node to a remote container", packet(host, NODE, &site.remote, REMOTE), NODE, NODE_IN_OVERLAY),
        (
            "a client outside to a remote container",
            packet(peer, OUTSIDE, &site.remote, REMOTE),
            OUTSIDE,
            NODE_IN_OVERLAY,
        ),
        ("the node to our container", packet(host, BRIDGE, &site.container, CONTAINER), BRIDGE, BRIDGE),
        ("multicast from the overlay", packet(host, BRIDGE, peer, GROUP), BRIDGE, BRIDGE),
        ("marked by kube-proxy", Packet { port: 7999, ..container(peer, OUTSIDE) }, CONTAINER, CONTAINER),
    ]
}

#[test]
fn each_kind_of_traffic_keeps_or_changes_its_source_address_as_with_flannel() {
    for masquerade in [None, Some(Masquerade { random_fully: true }), Some(Masquerade { random_fully: false })] {
        let site = Site::new();
        // kube-proxy's mark, and a bit of somebody else's beside it.
        site.nft("add table ip kube");
        site.nft("add chain ip kube pre { type filter hook prerouting priority mangle ; }");
        site.nft("add rule ip kube pre udp dport 7999 meta mark set 0x4001");
        site.ensure(&RulesConfig { masquerade, ..config() });
        for (name, packet, plain, masqueraded) in traffic(&site) {
            let expected = if masquerade.is_some() { masqueraded } else { plain };
            assert_eq!(site.seen(&packet, PATIENCE), Some(expected), "{name}, {masquerade:?}");
        }
        let random = site.nft("list ruleset").contains("fully-random");
        assert_eq!(random, masquerade.is_some_and(|masquerade| masquerade.random_fully));
    }
}

#[test]
fn setting_the_rules_again_does_not_double_them_and_removing_leaves_nothing() {
    let site = Site::new();
    site.nft("add table ip operator");
    let before = site.nft("list ruleset");
    assert!(site.ensure(&config()));
    let first = site.nft("list ruleset");
    assert!(site.ensure(&config()), "a new agent sets them whatever is there");
    assert_eq!(site.nft("list ruleset"), first);
    assert!(site.node.run(async |_| remove("overlay.1").await).unwrap());
    assert!(!site.node.run(async |_| remove("overlay.1").await).unwrap());
    assert_eq!(site.nft("list ruleset"), before);
}

#[test]
fn without_masquerading_what_an_earlier_run_left_is_removed() {
    let site = Site::new();
    site.ensure(&config());
    assert!(site.ensure(&RulesConfig { masquerade: None, ..config() }));
    assert_eq!(site.nft("list ruleset"), "");
}

#[test]
fn rules_that_others_flush_or_change_come_back() {
    let site = Site::new();
    site.node.run(async |_| {
        let mut rules = TrafficRules::new(config());
        rules.ensure().await.unwrap();
        assert!(!rules.ensure().await.unwrap(), "nothing to do");
        let expected = site.nft("list ruleset");
        for vandalism in ["flush ruleset", "delete table ip overlay.1", "flush table ip overlay.1"] {
            let damage = async {
                site.nft(vandalism);
                let deadline = tokio::time::Instant::now() + PATIENCE;
                while site.nft("list ruleset") != expected {
                    assert!(tokio::time::Instant::now() < deadline, "{vandalism}: not restored");
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            };
            tokio::select! {
                biased;
                stopped = rules.keep(std::future::pending::<()>()) => panic!("{stopped:?}"),
                () = damage => {}
            }
        }
    });
}
