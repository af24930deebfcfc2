//! The choice as a table: what the operator said on what node, and what comes of it.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::super::{MIN_OVERLAY_MTU, RouteInfo};
use super::*;

fn address(ip: &str) -> Address<Ipv4Addr> {
    let ip: Ipv4Addr = ip.parse().unwrap();
    Address { ip, link_local: ip.is_link_local(), permanent: true, unfit: false }
}

fn interface(name: &str, ifindex: u32, addresses: &[Address<Ipv4Addr>]) -> Interface {
    Interface {
        name: name.to_owned(),
        ifindex,
        mtu: 1500,
        mac: Some([2, 0, 0, 0, 0, ifindex.to_be_bytes()[3]]),
        loopback: false,
        overlay: false,
        up: true,
        carrier: true,
        addresses: addresses.to_vec(),
        ipv6_addresses: Vec::new(),
    }
}

/// lo, eth0 (with the better default route), eth1, bond0.50, and three that will not do.
fn node() -> (Vec<Interface>, Routes) {
    let interfaces = vec![
        Interface { loopback: true, mac: None, ..interface("lo", 1, &[address("10.99.0.1")]) },
        interface("eth0", 2, &[address("192.168.50.1")]),
        interface("eth1", 3, &[address("169.254.7.7"), address("172.16.0.1"), address("172.16.0.2")]),
        interface("bond0.50", 4, &[address("192.168.60.1")]),
        Interface { up: false, ..interface("down0", 5, &[address("192.168.70.1")]) },
        Interface { mac: None, ..interface("wg0", 6, &[address("192.168.80.1")]) },
        interface("bare0", 7, &[]),
        Interface { overlay: true, ..interface("overlay.7", 8, &[address("10.7.3.0")]) },
        interface("docker0", 9, &[address("192.168.90.1"), address("10.1.15.1")]),
    ];
    let route = |ifindex, metric| RouteInfo { ifindex, source: None, metric };
    (interfaces, Routes { default: vec![route(3, 200), route(2, 100)], ..Routes::default() })
}

fn regexes(patterns: &[&str]) -> Vec<Regex> {
    patterns.iter().map(|pattern| Regex::new(pattern).unwrap()).collect()
}

fn strings(values: &[&str]) -> Vec<String> {
    values.iter().map(|value| (*value).to_owned()).collect()
}

/// Chooses on [`node`]: name, address and public address of the underlay, or the error's text.
fn outcome(choice: &UnderlayChoice) -> Result<(String, String, String), String> {
    let (interfaces, routes) = node();
    let chosen = choose(&interfaces, &routes, choice).map_err(|error| error.to_string())?;
    Ok((chosen.name.clone(), chosen.local_text(), chosen.public_text()))
}

#[test]
fn each_option_chooses_the_interface_and_address_it_points_at() {
    let choice = UnderlayChoice::default;
    let public_ip = |ip: &str| ip.parse().ok();
    let cases = [
        ("the better default route", choice(), "eth0", "192.168.50.1"),
        ("a name", UnderlayChoice { iface: strings(&["eth1"]), ..choice() }, "eth1", "172.16.0.1"),
        ("an address", UnderlayChoice { iface: strings(&["172.16.0.2"]), ..choice() }, "eth1", "172.16.0.2"),
        ("a VLAN on a bond", UnderlayChoice { iface: strings(&["bond0.50"]), ..choice() }, "bond0.50", "192.168.60.1"),
        (
            "the first that exists",
            UnderlayChoice { iface: strings(&["eth9", "eth1", "eth0"]), ..choice() },
            "eth1",
            "172.16.0.1",
        ),
        (
            "an expression on a name",
            UnderlayChoice { iface_regex: regexes(&["^eth"]), ..choice() },
            "eth0",
            "192.168.50.1",
        ),
        (
            "addresses before names",
            UnderlayChoice { iface_regex: regexes(&["^(eth0|172\\.16\\..*)$"]), ..choice() },
            "eth1",
            "172.16.0.1",
        ),
        (
            "names before expressions",
            UnderlayChoice { iface: strings(&["eth1"]), iface_regex: regexes(&["eth0"]), ..choice() },
            "eth1",
            "172.16.0.1",
        ),
        (
            "an expression when no name exists",
            UnderlayChoice { iface: strings(&["eth9"]), iface_regex: regexes(&["eth0"]), ..choice() },
            "eth0",
            "192.168.50.1",
        ),
        (
            "an expression skips what will not do",
            UnderlayChoice { iface_regex: regexes(&["^(lo|down0|bond.*)$"]), ..choice() },
            "bond0.50",
            "192.168.60.1",
        ),
        (
            "a public address alone",
            UnderlayChoice { public_ip: public_ip("172.16.0.2"), ..choice() },
            "eth1",
            "172.16.0.2",
        ),
    ];
    for (name, choice, interface, address) in cases {
        let public = address.to_owned();
        assert_eq!(outcome(&choice), Ok((interface.to_owned(), address.to_owned(), public)), "{name}");
    }
}

#[test]
fn a_public_address_beside_an_interface_is_published_and_not_looked_for() {
    let choice = UnderlayChoice {
        iface: strings(&["eth0"]),
        public_ip: "203.0.113.9".parse().ok(),
        ..UnderlayChoice::default()
    };
    let expected = ("eth0", "192.168.50.1", "203.0.113.9");
    let chosen = outcome(&choice).unwrap();
    assert_eq!((chosen.0.as_str(), chosen.1.as_str(), chosen.2.as_str()), expected);
}

#[test]
fn what_is_no_underlay_is_refused_with_the_reason() {
    let iface = |name: &str| UnderlayChoice { iface: strings(&[name]), ..UnderlayChoice::default() };
    let cases = [
        (iface("eth9"), "interface eth9: no interface has this name"),
        (iface("10.0.0.7"), "interface 10.0.0.7: no interface has this name or address"),
        (iface("lo"), "use lo as underlay: it is a loopback interface"),
        (iface("down0"), "run `ip link set down0 up`"),
        (iface("wg0"), "use wg0 as underlay: it has no Ethernet address"),
        (iface("bare0"), "use bare0 as underlay: it has no usable IPv4 address"),
        (UnderlayChoice { iface_regex: regexes(&["^enp"]), ..UnderlayChoice::default() }, "--iface-regex ^enp"),
        (UnderlayChoice { iface_can_reach: "192.0.2.1".parse().ok(), ..UnderlayChoice::default() }, "no route to it"),
        (
            UnderlayChoice { public_ip: "203.0.113.9".parse().ok(), ..UnderlayChoice::default() },
            "--public-ip 203.0.113.9: not assigned",
        ),
    ];
    for (choice, part) in cases {
        let text = outcome(&choice).unwrap_err();
        assert!(text.contains(part), "{text:?} does not say {part:?}");
        assert_eq!(text.lines().count(), 1);
    }
}

#[test]
fn all_that_was_tried_is_named_when_none_will_do() {
    let choice = UnderlayChoice { iface: strings(&["eth9", "lo"]), ..UnderlayChoice::default() };
    let text = outcome(&choice).unwrap_err();
    assert!(text.contains("eth9: no interface") && text.contains("use lo as underlay"), "{text}");
}

#[test]
fn without_a_default_route_the_operator_must_choose() {
    let (interfaces, _) = node();
    let error = choose(&interfaces, &Routes::default(), &UnderlayChoice::default()).unwrap_err();
    assert!(matches!(error, UnderlayError::NoDefaultRoute), "{error}");
}

#[test]
fn can_reach_takes_the_source_address_of_the_route() {
    let (interfaces, mut routes) = node();
    routes.reach = Some(RouteInfo { ifindex: 3, source: "172.16.0.2".parse().ok(), metric: 0 });
    let choice = UnderlayChoice { iface_can_reach: "192.0.2.1".parse().ok(), ..UnderlayChoice::default() };
    let chosen = choose(&interfaces, &routes, &choice).unwrap();
    assert_eq!((chosen.name.as_str(), chosen.local_text()), ("eth1", "172.16.0.2".to_owned()));
}

#[test]
fn an_interface_is_known_by_its_best_address() {
    let dynamic = |ip| Address { permanent: false, ..address(ip) };
    let deprecated = |ip| Address { unfit: true, ..address(ip) };
    let cases: [(&[Address<Ipv4Addr>], Option<&str>); 5] = [
        (&[address("169.254.0.1"), dynamic("10.0.0.1")], Some("10.0.0.1")),
        (&[dynamic("10.0.0.1"), address("10.0.0.2")], Some("10.0.0.2")),
        (&[deprecated("10.0.0.1"), dynamic("10.0.0.2")], Some("10.0.0.2")),
        (&[address("10.0.0.1"), address("10.0.0.2")], Some("10.0.0.1")),
        (&[deprecated("10.0.0.1")], None),
    ];
    for (addresses, expected) in cases {
        assert_eq!(preferred(addresses), expected.map(|ip| ip.parse().unwrap()), "{addresses:?}");
    }
}

#[test]
fn an_underlay_address_inside_the_overlay_network_is_refused() {
    let (interfaces, routes) = node();
    let underlay = choose(&interfaces, &routes, &UnderlayChoice::default()).unwrap();
    assert!(underlay.check_outside(["10.1.0.0/16".parse().unwrap()].into_iter()).is_ok());
    let text = underlay.check_outside(["192.168.0.0/16".parse().unwrap()].into_iter()).unwrap_err().to_string();
    assert!(text.contains("192.168.50.1 lies inside the overlay network 192.168.0.0/16"), "{text}");

    let bridge = UnderlayChoice { iface: strings(&["docker0"]), ..UnderlayChoice::default() };
    let underlay = choose(&interfaces, &routes, &bridge).unwrap();
    let text = underlay.check_outside(["10.1.0.0/16".parse().unwrap()].into_iter()).unwrap_err().to_string();
    assert!(text.contains("10.1.15.1 lies inside the overlay network"), "{text}");
}

#[test]
fn the_overlay_mtu_is_what_the_overhead_leaves_and_never_tiny() {
    let (interfaces, routes) = node();
    let mut underlay = choose(&interfaces, &routes, &UnderlayChoice::default()).unwrap();
    assert_eq!(underlay.overlay_mtu(50, MIN_OVERLAY_MTU).unwrap(), 1450);
    underlay.mtu = 625;
    let text = underlay.overlay_mtu(50, MIN_OVERLAY_MTU).unwrap_err().to_string();
    assert!(text.contains("MTU 625 less 50 bytes") && text.contains("at least 626"), "{text}");
    underlay.mtu = 20;
    assert!(underlay.overlay_mtu(28, MIN_OVERLAY_MTU).is_err());
}

#[test]
fn ipv6_comes_from_the_same_interface_where_it_is_asked_for() {
    let (mut interfaces, routes) = node();
    let address = |ip: &str, permanent, unfit| Address {
        ip: ip.parse::<Ipv6Addr>().unwrap(),
        link_local: false,
        permanent,
        unfit,
    };
    interfaces[1].ipv6_addresses =
        vec![address("fd00::1", true, true), address("fd00::2", false, false), address("fd00::3", true, false)];
    let end = |choice: &UnderlayChoice| {
        let chosen = choose(&interfaces, &routes, choice).map_err(|error| error.to_string())?;
        Ok::<_, String>(chosen.ipv6.map(|end| (end.address.to_string(), end.public_ip.to_string())))
    };
    let of = |iface: &str, public_ipv6: Option<&str>| UnderlayChoice {
        iface: strings(&[iface]),
        outer: Outer::Either,
        public_ipv6: public_ipv6.map(|ip| ip.parse().unwrap()),
        ..UnderlayChoice::default()
    };
    let ends = |address: &str, public: &str| Ok(Some((address.to_owned(), public.to_owned())));
    assert_eq!(end(&UnderlayChoice::default()), Ok(None), "nobody asked");
    assert_eq!(end(&of("eth0", None)), ends("fd00::3", "fd00::3"), "permanent before dynamic, never an unfit one");
    assert_eq!(end(&of("eth0", Some("2001:db8::9"))), ends("fd00::3", "2001:db8::9"));
    assert_eq!(end(&of("eth1", None)), Ok(None), "IPv4 alone carries all");
    let refused = end(&of("eth1", Some("2001:db8::9"))).unwrap_err();
    assert!(refused.contains("eth1") && refused.contains("--public-ipv6 2001:db8::9"), "{refused}");
}

#[test]
fn an_interface_needs_an_address_of_a_family_that_outer_packets_may_have() {
    let ipv6 =
        Address { ip: Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1), link_local: false, permanent: true, unfit: false };
    let (mut interfaces, _) = node();
    interfaces[1].ipv6_addresses = vec![ipv6];
    interfaces[6].ipv6_addresses = vec![ipv6];
    let routes = Routes { default_ipv6: vec![RouteInfo { ifindex: 7, source: None, metric: 0 }], ..Routes::default() };
    let chosen = |outer, iface: &[&str]| {
        let choice = UnderlayChoice { iface: strings(iface), outer, ..UnderlayChoice::default() };
        let chosen = choose(&interfaces, &routes, &choice).map_err(|error| error.to_string())?;
        Ok::<_, String>((chosen.ipv4.is_some(), chosen.ipv6.is_some()))
    };
    assert_eq!(chosen(Outer::Either, &["eth0"]), Ok((true, true)));
    assert_eq!(chosen(Outer::Ipv6, &["eth0"]), Ok((false, true)));
    assert_eq!(chosen(Outer::Ipv6, &["eth1"]), Ok((true, false)), "IPv4 carries IPv6 where there is nothing else");
    assert_eq!(chosen(Outer::Either, &["bare0"]), Ok((false, true)));
    assert_eq!(chosen(Outer::Ipv6, &["fd00::1"]), Ok((false, true)), "named by its address");
    assert_eq!(chosen(Outer::Either, &[]), Ok((false, true)), "by the IPv6 default route");
    assert!(chosen(Outer::Ipv4, &["bare0"]).unwrap_err().contains("no usable IPv4 address"));
}
