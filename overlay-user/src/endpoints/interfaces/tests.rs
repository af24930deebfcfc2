//! Facts in, containers out.

use super::*;

const BRIDGE: u32 = 2;
const VETH: u32 = 10;
/// Index of the other side in the container's namespace.
const INSIDE: u32 = 3;
const NAMESPACE: i32 = 7;
const MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];

fn subnets() -> Vec<IpNetwork> {
    vec!["10.1.15.0/24".parse().unwrap(), "fd00:1:0:15::/64".parse().unwrap()]
}

fn last_byte(address: &IpAddr) -> u8 {
    match address {
        IpAddr::V4(address) => address.octets()[3],
        IpAddr::V6(address) => address.octets()[15],
    }
}

fn address(host: u8) -> IpAddr {
    Ipv4Addr::new(10, 1, 15, host).into()
}

fn link(ifindex: u32, kind: Kind) -> Link {
    Link { ifindex, name: format!("link{ifindex}"), kind, master: None, peer: None, mac: [2; 6], mtu: 1450, up: true }
}

fn port(ifindex: u32, namespace: Option<i32>) -> Link {
    Link { master: Some(BRIDGE), peer: Some(Peer { namespace, ifindex: INSIDE }), ..link(ifindex, Kind::Veth) }
}

fn has(ifindex: u32, address: impl Into<IpAddr>) -> Fact {
    Fact::Address { ifindex, address: address.into(), present: true }
}

fn lost(ifindex: u32, address: IpAddr) -> Fact {
    Fact::Address { ifindex, address, present: false }
}

fn routed(host: u8, ifindex: u32) -> HostRoute {
    HostRoute { to: address(host), metric: 0, ifindex }
}

fn inside(hosts: &[u8]) -> Inside {
    Inside { mac: MAC, addresses: hosts.iter().map(|&host| address(host)).collect() }
}

/// A node with a bridge.
fn node() -> Interfaces {
    let mut interfaces = Interfaces::new(subnets());
    interfaces.fold(None, Fact::Link(link(BRIDGE, Kind::Bridge)));
    interfaces.fold(None, has(BRIDGE, address(1)));
    interfaces
}

/// A node with a container that has address 2.
fn node_with_container() -> Interfaces {
    let mut interfaces = node();
    interfaces.fold(None, Fact::Link(port(VETH, Some(NAMESPACE))));
    assert_eq!(interfaces.question(), Some(ask(VETH)));
    interfaces.learn(VETH, Some(inside(&[2])));
    assert_eq!(hosts(&mut interfaces), [(VETH, vec![2])]);
    interfaces
}

fn ask(veth: u32) -> Question {
    Question::Inside { veth, namespace: NAMESPACE, ifindex: INSIDE }
}

/// The containers with the last bytes of their addresses.
fn hosts(interfaces: &mut Interfaces) -> Vec<(u32, Vec<u8>)> {
    let last = |container: &Container| container.addresses.iter().map(last_byte).collect();
    interfaces.found().containers.iter().map(|(&index, container)| (index, last(container))).collect()
}

#[test]
fn a_port_of_our_bridge_is_a_container_before_its_addresses_are_known() {
    let mut interfaces = node();
    interfaces.fold(None, Fact::Link(port(VETH, Some(NAMESPACE))));
    assert_eq!(hosts(&mut interfaces), [(VETH, vec![])]);
    assert_eq!(interfaces.question(), Some(ask(VETH)));
    assert_eq!(interfaces.question(), None, "asked twice");
    interfaces.learn(VETH, Some(Inside { addresses: [address(2), Ipv4Addr::LOCALHOST.into()].into(), mac: MAC }));
    let found = interfaces.found();
    let container = Container { name: "link10".to_owned(), mac: MAC, addresses: [address(2)].into() };
    assert_eq!(found.containers, [(VETH, container)].into());
    assert_eq!(found.node, [address(1)].into());
}

#[test]
fn what_is_no_container_is_not_asked_about() {
    let mut interfaces = node();
    let other_bridge = Link { master: Some(99), ..port(11, Some(NAMESPACE)) };
    let no_veth = Link { kind: Kind::Other, ..port(12, Some(NAMESPACE)) };
    let cable_on_the_node = port(13, None);
    let no_port = Link { master: None, ..port(14, Some(NAMESPACE)) };
    let other_side_gone = Link { peer: None, ..port(15, None) };
    for link in [other_bridge, no_veth, cable_on_the_node, no_port, other_side_gone] {
        interfaces.fold(None, Fact::Link(link));
    }
    assert_eq!((hosts(&mut interfaces), interfaces.question()), (vec![], None));
}

#[test]
fn the_smallest_mtu_on_the_way_to_containers_counts() {
    let mut interfaces = node_with_container();
    assert_eq!(interfaces.found().mtu, Some(1450));
    interfaces.fold(None, Fact::Link(Link { mtu: 576, ..link(77, Kind::Other) }));
    assert_eq!(interfaces.found().mtu, Some(1450), "not that of others");
    interfaces.fold(None, Fact::Link(Link { mtu: 1400, ..link(BRIDGE, Kind::Bridge) }));
    assert_eq!(interfaces.found().mtu, Some(1400));
    interfaces.fold(None, Fact::Link(Link { mtu: 1300, ..port(VETH, Some(NAMESPACE)) }));
    assert_eq!(interfaces.found().mtu, Some(1300));
    interfaces.fold(None, Fact::LinkGone(VETH));
    assert_eq!(interfaces.found().mtu, None);
}

#[test]
fn a_bridge_that_gets_our_address_late_has_containers_at_once() {
    let mut interfaces = node_with_container();
    interfaces.fold(None, lost(BRIDGE, address(1)));
    assert_eq!(hosts(&mut interfaces), []);
    interfaces.fold(None, has(BRIDGE, address(1)));
    assert_eq!(hosts(&mut interfaces), [(VETH, vec![2])], "what is known is not forgotten");
    // A bridge with addresses of others is not ours.
    let mut interfaces = Interfaces::new(subnets());
    interfaces.fold(None, Fact::Link(link(BRIDGE, Kind::Bridge)));
    interfaces.fold(None, has(BRIDGE, Ipv4Addr::new(172, 17, 0, 1)));
    interfaces.fold(None, Fact::Link(port(VETH, Some(NAMESPACE))));
    assert_eq!((hosts(&mut interfaces), interfaces.question()), (vec![], None));
    interfaces.fold(None, has(BRIDGE, address(1)));
    assert_eq!(interfaces.question(), Some(ask(VETH)));
}

#[test]
fn what_is_heard_from_inside_a_container_is_followed() {
    let mut interfaces = node_with_container();
    interfaces.fold(Some(NAMESPACE), has(INSIDE, address(3)));
    assert_eq!(hosts(&mut interfaces), [(VETH, vec![2, 3])]);
    interfaces.fold(Some(NAMESPACE), lost(INSIDE, address(2)));
    interfaces.fold(Some(NAMESPACE), Fact::Link(Link { mac: [4; 6], ..link(INSIDE, Kind::Veth) }));
    let container = &interfaces.found().containers[&VETH];
    assert_eq!((container.mac, &container.addresses), ([4; 6], &[address(3)].into()));
    assert_eq!(interfaces.question(), None, "nothing is read that was heard");
}

#[test]
fn what_is_heard_from_elsewhere_changes_nothing() {
    let mut interfaces = node_with_container();
    assert!(interfaces.changed().is_some());
    for (namespace, fact) in [
        (Some(8), has(INSIDE, address(9))),
        (Some(NAMESPACE), has(99, address(9))),
        (Some(NAMESPACE), has(INSIDE, Ipv4Addr::new(10, 1, 16, 9))),
        (Some(NAMESPACE), has(INSIDE, address(2))),
        (Some(8), Fact::LinkGone(VETH)),
        (Some(NAMESPACE), Fact::HostRoute(routed(9, INSIDE), true)),
        (None, Fact::Link(port(VETH, Some(NAMESPACE)))),
        (None, has(99, Ipv4Addr::new(192, 168, 50, 1))),
    ] {
        interfaces.fold(namespace, fact.clone());
        assert_eq!((interfaces.changed(), interfaces.question()), (None, None), "{namespace:?} {fact:?}");
    }
}

#[test]
fn a_pair_made_on_the_node_is_a_container_when_its_other_side_has_moved_out() {
    let mut interfaces = node();
    let own_side = Link { peer: None, ..port(VETH, None) };
    interfaces.fold(None, Fact::Link(own_side));
    interfaces.fold(None, Fact::Link(port(VETH, None)));
    interfaces.fold(None, Fact::Link(Link { peer: None, ..link(INSIDE, Kind::Veth) }));
    assert_eq!((hosts(&mut interfaces), interfaces.question()), (vec![], None));
    interfaces.fold(None, Fact::LinkGone(INSIDE));
    assert_eq!(interfaces.question(), Some(Question::Link(VETH)), "the kernel does not say it of this side");
    interfaces.fold(None, Fact::Link(port(VETH, Some(NAMESPACE))));
    assert_eq!(hosts(&mut interfaces), [(VETH, vec![])]);
    assert_eq!(interfaces.question(), Some(ask(VETH)));
}

#[test]
fn a_veth_is_forgotten_with_all_that_was_known_of_it() {
    for gone in [Fact::LinkGone(VETH), Fact::Link(Link { master: None, ..port(VETH, Some(NAMESPACE)) })] {
        let mut interfaces = node_with_container();
        interfaces.fold(None, gone);
        assert_eq!(hosts(&mut interfaces), []);
    }
    let mut interfaces = node_with_container();
    interfaces.fold(None, Fact::LinkGone(VETH));
    interfaces.fold(Some(NAMESPACE), has(INSIDE, address(3)));
    interfaces.fold(None, Fact::Link(port(VETH, Some(8))));
    assert_eq!(hosts(&mut interfaces), [(VETH, vec![])], "the index is another container's now");
}

#[test]
fn a_namespace_number_that_is_used_again_does_not_mix_up_containers() {
    let mut interfaces = node_with_container();
    interfaces.fold(None, Fact::NamespaceGone(NAMESPACE));
    assert_eq!(interfaces.question(), Some(Question::Link(VETH)));
    // Before the old interface goes, a new container gets the number, and the same index inside.
    interfaces.fold(None, Fact::Link(port(11, Some(NAMESPACE))));
    assert_eq!(interfaces.question(), Some(ask(11)));
    interfaces.learn(11, Some(inside(&[3])));
    interfaces.fold(Some(NAMESPACE), has(INSIDE, address(4)));
    assert_eq!(hosts(&mut interfaces), [(VETH, vec![2]), (11, vec![3, 4])]);
    interfaces.fold(None, Fact::LinkGone(VETH));
    interfaces.fold(Some(NAMESPACE), has(INSIDE, address(5)));
    assert_eq!(hosts(&mut interfaces), [(11, vec![3, 4, 5])]);
}

#[test]
fn a_namespace_that_is_going_away_takes_its_addresses_with_it() {
    let mut interfaces = node_with_container();
    interfaces.fold(None, Fact::NamespaceGone(NAMESPACE));
    assert_eq!(interfaces.question(), Some(Question::Link(VETH)));
    interfaces.fold(None, Fact::Link(Link { peer: None, ..port(VETH, None) }));
    assert_eq!(hosts(&mut interfaces), []);
}

#[test]
fn a_host_route_makes_a_container_with_the_address_that_it_leads_to() {
    let mut interfaces = node();
    interfaces.fold(None, Fact::Link(Link { master: None, ..port(VETH, Some(NAMESPACE)) }));
    interfaces.fold(None, Fact::HostRoute(routed(2, VETH), true));
    assert_eq!(hosts(&mut interfaces), [(VETH, vec![2])]);
    assert_eq!(interfaces.question(), Some(ask(VETH)), "its MAC address is not in the route");
    interfaces.learn(VETH, Some(inside(&[2, 9])));
    assert_eq!(hosts(&mut interfaces), [(VETH, vec![2])], "nothing else is routed there");
    assert_eq!(interfaces.found().containers[&VETH].mac, MAC);
    interfaces.fold(None, Fact::HostRoute(routed(2, VETH), false));
    assert_eq!(hosts(&mut interfaces), []);
}

#[test]
fn routes_go_without_a_notice_when_replaced_and_with_their_interface() {
    let mut interfaces = node();
    for ifindex in [VETH, 11] {
        let peer = Some(Peer { namespace: Some(ifindex as i32), ifindex: INSIDE });
        interfaces.fold(None, Fact::Link(Link { master: None, peer, ..port(ifindex, None) }));
    }
    interfaces.fold(None, Fact::HostRoute(routed(2, VETH), true));
    interfaces.fold(None, Fact::HostRoute(routed(2, 11), true));
    assert_eq!(hosts(&mut interfaces), [(11, vec![2])]);
    interfaces.fold(None, Fact::Link(Link { master: None, up: false, ..port(11, Some(11)) }));
    assert_eq!(hosts(&mut interfaces), []);
}

#[test]
fn a_container_that_nobody_can_look_into_is_one_without_addresses() {
    let mut interfaces = node();
    interfaces.fold(None, Fact::Link(port(VETH, Some(NAMESPACE))));
    assert_eq!(interfaces.question(), Some(ask(VETH)));
    interfaces.learn(VETH, None);
    assert_eq!((hosts(&mut interfaces), interfaces.question()), (vec![(VETH, vec![])], None));
    interfaces.fold(Some(NAMESPACE), has(INSIDE, address(2)));
    assert_eq!(hosts(&mut interfaces), [(VETH, vec![2])]);
}

#[test]
fn a_bridge_with_an_address_of_either_family_is_ours_and_only_addresses_in_our_subnets_count() {
    let ipv6 = |text: &str| text.parse::<IpAddr>().unwrap();
    let mut interfaces = node_with_container();
    interfaces.fold(None, lost(BRIDGE, address(1)));
    assert_eq!(interfaces.changed().unwrap().containers.len(), 0);
    interfaces.fold(None, has(BRIDGE, ipv6("fd00:1:0:15::1")));
    for inside in ["fd00:1:0:15::22", "fe80::22", "ff02::1", "fd00:1:0:16::22"] {
        interfaces.fold(Some(NAMESPACE), has(INSIDE, ipv6(inside)));
    }
    let found = interfaces.changed().unwrap();
    assert_eq!(found.containers[&VETH].addresses, [address(2), ipv6("fd00:1:0:15::22")].into());
    assert_eq!(found.node, [ipv6("fd00:1:0:15::1")].into());
}
