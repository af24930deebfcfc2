//! Masquerading, judged by real packets.

use std::net::IpAddr;
use std::time::Duration;

use overlay_user::masquerade::{Masquerade, RulesConfig, TrafficRules, remove};

use crate::site::{Addresses, IPV4, IPV6, PATIENCE, Packet, Site, config};

/// Everything that crosses the node: name, packet, source address without and with masquerading.
fn traffic<'a>(site: &'a Site, addresses: &Addresses) -> Vec<(&'static str, Packet<'a>, IpAddr, IpAddr)> {
    let &Addresses { container: ours, remote, outside, node, node_in_overlay, bridge, group } = addresses;
    let (host, peer) = (&site.node.netns, &site.node.peer);
    let packet = |sender, source, receiver, destination| Packet { sender, source, receiver, destination, port: 7000 };
    let container = |receiver, destination| packet(&site.container, ours, receiver, destination);
    vec![
        ("our container to a remote one", container(&site.remote, remote), ours, ours),
        ("a remote container to ours", packet(&site.remote, remote, &site.container, ours), remote, remote),
        ("a client outside to our container", packet(peer, outside, &site.container, ours), outside, outside),
        ("our container to the outside", container(peer, outside), ours, node),
        ("our container to its node", container(host, node), ours, ours),
        ("a remote container to the outside", packet(&site.remote, remote, peer, outside), remote, node),
        ("the node to a remote container", packet(host, node, &site.remote, remote), node, node_in_overlay),
        (
            "a client outside to a remote container",
            packet(peer, outside, &site.remote, remote),
            outside,
            node_in_overlay,
        ),
        ("the node to our container", packet(host, bridge, &site.container, ours), bridge, bridge),
        ("multicast from the overlay", packet(host, bridge, peer, group), bridge, bridge),
        ("marked by kube-proxy", Packet { port: 7999, ..container(peer, outside) }, ours, ours),
    ]
}

#[test]
fn each_kind_of_traffic_keeps_or_changes_its_source_address_as_with_flannel() {
    for masquerade in [None, Some(Masquerade { random_fully: true }), Some(Masquerade { random_fully: false })] {
        let site = Site::new();
        // kube-proxy's mark, and a bit of somebody else's beside it.
        site.nft("add table inet kube");
        site.nft("add chain inet kube pre { type filter hook prerouting priority mangle ; }");
        site.nft("add rule inet kube pre udp dport 7999 meta mark set 0x4001");
        site.ensure(&RulesConfig { masquerade, ..config() });
        for (name, packet, plain, masqueraded) in [&IPV4, &IPV6].into_iter().flat_map(|family| traffic(&site, family)) {
            let expected = if masquerade.is_some() { masqueraded } else { plain };
            assert_eq!(
                site.seen(&packet, PATIENCE),
                Some(expected),
                "{name} to {}, {masquerade:?}",
                packet.destination
            );
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
fn rules_of_an_address_family_that_the_overlay_had_earlier_are_removed() {
    let site = Site::new();
    site.iptables("ip6tables-nft", &["-P FORWARD DROP"]);
    site.nft("add table ip6 operator");
    let before = site.nft("list ruleset");
    site.ensure(&RulesConfig { forward: true, ..config() });
    let mut rules = TrafficRules::new(RulesConfig { ipv6: None, masquerade: None, ..config() });
    assert!(site.node.run(async |_| rules.ensure().await).unwrap(), "IPv4 goes as the options say");
    assert!(site.nft("list ruleset").contains("fd00:1::/48"), "IPv6 is not looked at");
    assert!(site.node.run(async |_| rules.remove_unused().await).unwrap());
    assert!(!site.node.run(async |_| rules.remove_unused().await).unwrap());
    assert_eq!(site.nft("list ruleset"), before);
}

#[test]
fn rules_that_others_flush_or_change_come_back() {
    let site = Site::new();
    site.node.run(async |_| {
        let mut rules = TrafficRules::new(config());
        rules.ensure().await.unwrap();
        assert!(!rules.ensure().await.unwrap(), "nothing to do");
        // In whatever order: a table that is made anew comes last.
        let listed = || {
            let ruleset = site.nft("list ruleset");
            let mut lines: Vec<_> = ruleset.lines().map(str::to_owned).collect();
            lines.sort();
            lines
        };
        let expected = listed();
        for vandalism in ["flush ruleset", "delete table ip overlay.1", "flush table ip6 overlay.1"] {
            let damage = async {
                site.nft(vandalism);
                let deadline = tokio::time::Instant::now() + PATIENCE;
                while listed() != expected {
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
