use super::*;
use crate::lease::{Backend, Node, Vtep};
use crate::mac::Mac;
use proptest::prelude::*;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

const OURS: &str = "10.1.1.0-24";

fn config(backend: &str) -> NetworkConfig {
    NetworkConfig::parse(format!(r#"{{"Network":"10.1.0.0/16","Backend":{{"Type":"{backend}"}}}}"#).as_bytes()).unwrap()
}

fn table() -> RouteTable {
    RouteTable::new(&config("vxlan"), lease(OURS, 1, 1).node, key(OURS))
}

fn key(text: &str) -> SubnetKey {
    text.parse().unwrap()
}

fn ip(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 168, 50, last)
}

fn lease(subnet: &str, node: u8, mac: u8) -> Lease {
    let backend = Backend::Vxlan {
        v4: Some(Vtep { vni: 1, mac: Mac([2, 0, 0, 0, 0, mac]), takes_no_checksum: false }),
        v6: None,
    };
    Lease { subnet: key(subnet), node: Node { public_ip: ip(node), public_ipv6: None, backend } }
}

fn set(subnet: &str, node: u8, mac: u8) -> RouteChange {
    RouteChange::Set { subnet: key(subnet).v4.into(), route: Route::new(ip(node), [2, 0, 0, 0, 0, mac]) }
}

fn remove(subnet: &str) -> RouteChange {
    RouteChange::Remove { subnet: key(subnet).v4.into() }
}

/// The IPv4 subnet of a key, as a skipped one.
fn skipped(subnet: &str) -> Skipped {
    (key(subnet), key(subnet).v4.into())
}

#[test]
fn a_lease_comes_changes_and_goes() {
    let mut table = table();
    assert_eq!(table.apply(LeaseEvent::Added(lease("10.1.2.0-24", 2, 2))), [set("10.1.2.0-24", 2, 2)]);
    assert_eq!(table.apply(LeaseEvent::Added(lease("10.1.2.0-24", 2, 2))), [], "a renewal");
    assert_eq!(table.apply(LeaseEvent::Added(lease("10.1.2.0-24", 2, 9))), [set("10.1.2.0-24", 2, 9)], "a new MAC");
    assert_eq!(table.apply(LeaseEvent::Added(lease("10.1.2.0-24", 3, 9))), [set("10.1.2.0-24", 3, 9)], "a new address");
    assert_eq!(table.apply(LeaseEvent::Removed(key("10.1.2.0-24"))), [remove("10.1.2.0-24")]);
    assert_eq!(table.apply(LeaseEvent::Removed(key("10.1.2.0-24"))), []);
}

#[test]
fn another_public_ip_of_ours_changes_no_route_whichever_our_lease_carries() {
    let mut table = table();
    let leases = [lease(OURS, 1, 1), lease("10.1.2.0-24", 2, 2), lease("10.1.3.0-24", 7, 3)];
    assert_eq!(table.apply(LeaseEvent::Reset(leases.to_vec())).len(), 2);
    // Somebody else's lease carries the address that is ours now.
    assert_eq!(table.move_to(lease(OURS, 7, 1).node), [remove("10.1.3.0-24")]);
    assert_eq!(table.skipped(), &BTreeMap::from([(skipped("10.1.3.0-24"), Skip::OurPublicIp)]));
    assert_eq!(table.apply(LeaseEvent::Added(lease(OURS, 7, 1))), []);
    assert!(!table.skipped().contains_key(&skipped(OURS)));
    assert_eq!(table.apply(LeaseEvent::Added(lease("10.1.4.0-24", 1, 4))), [set("10.1.4.0-24", 1, 4)], "not ours now");
}

#[test]
fn a_reset_is_a_difference_and_not_a_flush() {
    let mut table = table();
    let before = [
        lease("10.1.2.0-24", 2, 2),
        lease("10.1.3.0-24", 3, 3),
        lease("10.1.4.0-24", 4, 4),
        lease("10.1.5.0-24", 5, 5),
    ];
    assert_eq!(table.apply(LeaseEvent::Reset(before.to_vec())).len(), 4);
    let after = [
        lease("10.1.2.0-24", 2, 2),
        lease("10.1.3.0-24", 3, 33),
        lease("10.1.4.0-24", 44, 4),
        lease("10.1.6.0-24", 6, 6),
    ];
    let changes = table.apply(LeaseEvent::Reset(after.to_vec()));
    assert_eq!(
        changes,
        [remove("10.1.5.0-24"), set("10.1.3.0-24", 3, 33), set("10.1.4.0-24", 44, 4), set("10.1.6.0-24", 6, 6)]
    );
    assert_eq!(table.apply(LeaseEvent::Reset(after.to_vec())), []);
}

#[test]
fn our_own_lease_is_no_route_and_nothing_to_report() {
    let mut table = table();
    assert_eq!(table.apply(LeaseEvent::Reset(vec![lease(OURS, 1, 1)])), []);
    assert_eq!(table.apply(LeaseEvent::Added(lease(OURS, 1, 2))), []);
    assert!(table.skipped().is_empty());
}

#[test]
fn unusable_leases_are_skipped_each_for_its_reason() {
    let with =
        |backend| Lease { node: Node { backend, ..lease("10.1.2.0-24", 2, 2).node }, ..lease("10.1.2.0-24", 2, 2) };
    let cases = [
        (lease("10.2.2.0-24", 2, 2), Skip::OutsideNetwork),
        (lease("0.0.0.0-0", 2, 2), Skip::OutsideNetwork),
        (lease("10.1.2.0-25", 2, 2), Skip::WrongLength),
        (lease("10.1.0.0-16", 2, 2), Skip::WrongLength),
        (lease("10.1.2.0-24", 1, 2), Skip::OurPublicIp),
        (lease(OURS, 2, 2), Skip::OurSubnet),
        (with(Backend::Udp), Skip::OtherBackend("udp".to_owned())),
        (with(Backend::Other("host-gw".to_owned())), Skip::OtherBackend("host-gw".to_owned())),
        (with(Backend::Vxlan { v4: None, v6: None }), Skip::NoCommonUnderlay),
    ];
    for (lease, reason) in cases {
        let mut table = table();
        assert_eq!(table.apply(LeaseEvent::Added(lease.clone())), [], "{lease:?}");
        assert_eq!(table.skipped().values().collect::<Vec<_>>(), [&reason]);
        assert_eq!(table.apply(LeaseEvent::Removed(lease.subnet)), []);
        assert!(table.skipped().is_empty());
    }
}

#[test]
fn a_udp_network_takes_udp_leases_alone() {
    let mut table =
        RouteTable::new(&config("udp"), Node { backend: Backend::Udp, ..lease(OURS, 1, 1).node }, key(OURS));
    let udp =
        Lease { subnet: key("10.1.2.0-24"), node: Node { public_ip: ip(2), public_ipv6: None, backend: Backend::Udp } };
    let route = Route::new(ip(2), [0; 6]);
    let subnet = udp.subnet.v4.into();
    assert_eq!(
        table.apply(LeaseEvent::Reset(vec![udp, lease("10.1.3.0-24", 3, 3)])),
        [RouteChange::Set { subnet, route }]
    );
    assert_eq!(table.skipped().len(), 1);
}

#[test]
fn a_lease_that_turns_unusable_loses_its_route() {
    let mut table = table();
    table.apply(LeaseEvent::Added(lease("10.1.2.0-24", 2, 2)));
    assert_eq!(table.apply(LeaseEvent::Added(lease("10.1.2.0-24", 1, 2))), [remove("10.1.2.0-24")]);
}

#[test]
fn of_two_keys_for_one_subnet_the_first_wins_and_the_other_takes_over() {
    let (alone, dual) = (lease("10.1.2.0-24", 2, 2), lease("10.1.2.0-24&fd00::-64", 3, 3));
    let mut table = table();
    assert_eq!(table.apply(LeaseEvent::Added(dual.clone())), [set("10.1.2.0-24", 3, 3)]);
    assert_eq!(table.apply(LeaseEvent::Added(alone.clone())), [set("10.1.2.0-24", 2, 2)]);
    assert_eq!(table.skipped().get(&(dual.subnet, dual.subnet.v4.into())), Some(&Skip::Overlaps(alone.subnet)));
    assert_eq!(table.apply(LeaseEvent::Removed(alone.subnet)), [set("10.1.2.0-24", 3, 3)]);
    assert!(table.skipped().is_empty());
}

/// The subnets of node `number` in a dual-stack cluster.
fn dual_key(number: u8) -> SubnetKey {
    key(&format!("10.1.{number}.0-24&fd00:1:0:{number}::-64"))
}

fn ipv6(last: u8) -> Ipv6Addr {
    Ipv6Addr::new(0xfd50, 0, 0, 0, 0, 0, 0, last.into())
}

/// Node `number` with tunnel ends over these families.
fn dual_node(number: u8, over_ipv4: bool, over_ipv6: bool) -> Node {
    let vtep = |family| Vtep { vni: 1, mac: Mac([2, 0, 0, 0, family, number]), takes_no_checksum: true };
    Node {
        public_ip: if over_ipv4 { ip(number) } else { Ipv4Addr::UNSPECIFIED },
        public_ipv6: over_ipv6.then(|| ipv6(number)),
        backend: Backend::Vxlan { v4: over_ipv4.then(|| vtep(4)), v6: over_ipv6.then(|| vtep(6)) },
    }
}

#[test]
fn each_family_travels_over_its_own_underlay_where_both_nodes_have_it_and_else_over_the_one_that_both_have() {
    let config =
        br#"{"Network":"10.1.0.0/16","EnableIPv6":true,"IPv6Network":"fd00:1::/48","Backend":{"Type":"vxlan"}}"#;
    let network = NetworkConfig::parse(config).unwrap();
    let over4 = Some(Route::new(ip(2), [2, 0, 0, 0, 4, 2]));
    let over6 = Some(Route::new(ipv6(2), [2, 0, 0, 0, 6, 2]));
    for (ours, theirs, expected) in [
        ((true, true), (true, true), [over4, over6]),
        ((true, true), (true, false), [over4, over4]),
        ((true, true), (false, true), [over6, over6]),
        ((true, false), (true, true), [over4, over4]),
        ((false, true), (true, true), [over6, over6]),
        ((true, false), (false, true), [None, None]),
    ] {
        let mut table = RouteTable::new(&network, dual_node(1, ours.0, ours.1), dual_key(1));
        let lease = Lease { subnet: dual_key(2), node: dual_node(2, theirs.0, theirs.1) };
        table.apply(LeaseEvent::Added(lease));
        let routes: Vec<_> = dual_key(2).subnets().map(|subnet| table.routes().get(&subnet).copied()).collect();
        assert_eq!(routes, expected, "{ours:?} to {theirs:?}");
        assert_eq!(table.skipped().len(), if expected == [None, None] { 2 } else { 0 });
    }
}

#[test]
fn a_dual_stack_lease_makes_two_routes_and_both_go_with_it() {
    let config =
        br#"{"Network":"10.1.0.0/16","EnableIPv6":true,"IPv6Network":"fd00:1::/48","Backend":{"Type":"vxlan"}}"#;
    let network = NetworkConfig::parse(config).unwrap();
    let mut table = RouteTable::new(&network, dual_node(1, true, true), dual_key(1));
    let lease = |node| Lease { subnet: dual_key(2), node };
    assert_eq!(table.apply(LeaseEvent::Added(lease(dual_node(2, true, true)))).len(), 2);
    assert_eq!(table.apply(LeaseEvent::Added(lease(dual_node(2, true, true)))), [], "a renewal");
    assert_eq!(table.apply(LeaseEvent::Added(lease(dual_node(2, true, false)))).len(), 1, "IPv6 moves, IPv4 stays");
    let other = Lease { subnet: key("10.1.3.0-24&fd00:1:0:2::-64"), node: dual_node(3, true, true) };
    assert_eq!(table.apply(LeaseEvent::Added(other.clone())).len(), 1, "its IPv6 subnet is another's");
    assert_eq!(table.skipped().len(), 1);
    let removed = dual_key(2).subnets().map(|subnet| RouteChange::Remove { subnet }).next().unwrap();
    let changes = table.apply(LeaseEvent::Removed(dual_key(2)));
    assert_eq!((changes[0], changes.len()), (removed, 2), "and the other lease has its IPv6 subnet now");
    assert!(table.skipped().is_empty());
}

fn any_lease() -> impl Strategy<Value = Lease> {
    let subnet = prop_oneof![
        (0u8..6).prop_map(|third| format!("10.1.{third}.0-24")),
        (0u8..6).prop_map(|third| format!("10.1.{third}.0-24&fd00::-64")),
        Just("10.1.2.0-25".to_owned()),
        Just("10.2.2.0-24".to_owned()),
    ];
    (subnet, 1u8..5, 0u8..3, 0u8..8).prop_map(|(subnet, node, mac, kind)| {
        let mut lease = lease(&subnet, node, mac);
        match kind {
            0 => lease.node.backend = Backend::Udp,
            1 => lease.node.public_ip = Ipv4Addr::UNSPECIFIED,
            _ => {}
        }
        lease
    })
}

fn any_event() -> impl Strategy<Value = LeaseEvent> {
    prop_oneof![
        4 => any_lease().prop_map(LeaseEvent::Added),
        2 => any_lease().prop_map(|lease| LeaseEvent::Removed(lease.subnet)),
        1 => proptest::collection::vec(any_lease(), 0..8).prop_map(LeaseEvent::Reset),
    ]
}

fn fold(table: &mut RouteTable, model: &mut BTreeMap<IpNetwork, Route>, event: LeaseEvent) {
    for change in table.apply(event) {
        match change {
            RouteChange::Set { subnet, route } => assert_ne!(model.insert(subnet, route), Some(route), "told twice"),
            RouteChange::Remove { subnet } => assert!(model.remove(&subnet).is_some(), "removed twice"),
        }
    }
}

proptest! {
    #[test]
    fn the_changes_make_the_table(events in proptest::collection::vec(any_event(), 0..40)) {
        let (mut table, mut model) = (table(), BTreeMap::new());
        for event in events {
            fold(&mut table, &mut model, event);
            prop_assert_eq!(&model, table.routes());
        }
    }

    #[test]
    fn the_past_does_not_matter(events in proptest::collection::vec(any_event(), 0..40), last in proptest::collection::vec(any_lease(), 0..12)) {
        let (mut old, mut fresh) = (table(), table());
        for event in events {
            old.apply(event);
        }
        old.apply(LeaseEvent::Reset(last.clone()));
        fresh.apply(LeaseEvent::Reset(last.clone()));
        prop_assert_eq!(old.routes(), fresh.routes());
        prop_assert_eq!(old.skipped(), fresh.skipped());
        let mut one_by_one = table();
        for lease in last {
            one_by_one.apply(LeaseEvent::Added(lease));
        }
        prop_assert_eq!(one_by_one.routes(), fresh.routes());
        prop_assert_eq!(one_by_one.skipped(), fresh.skipped());
    }
}

#[test]
fn the_largest_cluster_takes_linear_time() {
    let network =
        NetworkConfig::parse(br#"{"Network":"10.0.0.0/8","SubnetLen":24,"Backend":{"Type":"vxlan"}}"#).unwrap();
    let raw: Vec<(String, Vec<u8>)> = (1..=65_535u32)
        .map(|i| {
            let [_, b, c, _] = (i << 8).to_be_bytes();
            let node = Node { public_ip: Ipv4Addr::from_bits(0xac10_0000 + i), ..lease("10.1.2.0-24", 2, c).node };
            (format!("10.{b}.{c}.0-24"), node.to_value())
        })
        .collect();
    let start = Instant::now();
    let leases = |raw: &[(String, Vec<u8>)]| raw.iter().map(|(key, value)| Lease::parse(key, value).unwrap()).collect();
    let mut table = RouteTable::new(&network, lease(OURS, 1, 1).node, key("10.0.0.0-24"));
    assert_eq!(table.apply(LeaseEvent::Reset(leases(&raw))).len(), 65_535);
    assert_eq!(table.apply(LeaseEvent::Reset(leases(&raw[1..]))).len(), 1);
    let took = start.elapsed();
    // Three seconds unoptimised on a slow machine; a quadratic table would need minutes.
    assert!(took < Duration::from_secs(20), "{took:?}");
}
