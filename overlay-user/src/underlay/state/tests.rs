//! What is reported when the interface changes.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::*;

const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 168, 50, 1);
const SECOND: Ipv4Addr = Ipv4Addr::new(192, 168, 50, 9);

fn address(ip: Ipv4Addr) -> Address<Ipv4Addr> {
    Address { ip, link_local: ip.is_link_local(), permanent: true, unfit: false }
}

fn interface(change: impl FnOnce(&mut Interface)) -> Interface {
    let mut interface = Interface {
        name: "eth0".to_owned(),
        ifindex: 2,
        mtu: 1500,
        mac: Some([2, 0, 0, 0, 0, 1]),
        loopback: false,
        overlay: false,
        up: true,
        carrier: true,
        addresses: vec![address(ADDRESS), address(SECOND)],
        ipv6_addresses: Vec::new(),
    };
    change(&mut interface);
    interface
}

fn without_address(interface: &mut Interface) {
    interface.addresses.retain(|address| address.ip != ADDRESS);
}

fn known() -> State {
    let (name, mac) = ("eth0".to_owned(), [2, 0, 0, 0, 0, 1]);
    let addresses = vec![ADDRESS.into(), SECOND.into()];
    let ipv4 = Some(end(ADDRESS, None));
    let underlay = Underlay { name, ifindex: 2, mac, mtu: 1500, ipv4, ipv6: None, addresses };
    State { underlay, standing: Standing::Present, running: true }
}

fn fixed(public_ip: Option<Ipv4Addr>) -> Fixed {
    let choice = UnderlayChoice { public_ip, ..UnderlayChoice::default() };
    Fixed { first_name: "eth0".to_owned(), choice }
}

fn events(before: &State, interfaces: &[Interface], patient: bool) -> (Vec<UnderlayEvent>, State) {
    let now = observe(before, &fixed(None), interfaces, patient);
    (changes(before, &now), now)
}

#[test]
fn each_change_is_reported_as_what_it_is() {
    let renamed = |interface: &mut Interface| interface.name = "uplink0".to_owned();
    let cases = [
        (vec![interface(|_| ())], vec![]),
        (vec![interface(|interface| interface.mtu = 9000)], vec![UnderlayEvent::MtuChanged(9000)]),
        (vec![interface(|interface| interface.mac = Some([6; 6]))], vec![UnderlayEvent::MacChanged([6; 6])]),
        (vec![interface(|interface| interface.carrier = false)], vec![UnderlayEvent::Down]),
        (vec![interface(renamed)], vec![UnderlayEvent::Renamed("uplink0".to_owned())]),
        (vec![interface(|interface| interface.addresses.reverse())], vec![]),
        (vec![interface(|interface| interface.addresses.clear())], vec![]),
        (vec![], vec![UnderlayEvent::Gone]),
    ];
    for (interfaces, expected) in cases {
        assert_eq!(events(&known(), &interfaces, true).0, expected, "{interfaces:?}");
    }
}

#[test]
fn an_address_that_returns_in_time_was_never_away() {
    let (reported, missing) = events(&known(), &[interface(without_address)], true);
    assert_eq!((reported, missing.standing), (vec![], Standing::AddressMissing));
    let (reported, now) = events(&missing, &[interface(|_| ())], true);
    assert_eq!((reported, now), (vec![], known()));
}

#[test]
fn an_address_that_stays_away_is_given_up_for_another_that_nodes_can_reach() {
    let (_, missing) = events(&known(), &[interface(without_address)], true);
    let expected = Underlay { ipv4: Some(end(SECOND, None)), addresses: vec![SECOND.into()], ..known().underlay };
    let (reported, _) = events(&missing, &[interface(without_address)], false);
    assert_eq!(reported, [UnderlayEvent::AddressChanged(expected.clone())]);

    let link_local = interface(|interface| interface.addresses = vec![address(Ipv4Addr::new(169, 254, 1, 1))]);
    let (reported, none) = events(&missing, std::slice::from_ref(&link_local), false);
    assert_eq!(reported, [UnderlayEvent::AddressGone]);
    assert_eq!(events(&none, &[link_local], true).0, [], "said once");
    assert_eq!(events(&none, &[interface(without_address)], true).0, [UnderlayEvent::Back(expected)]);
}

#[test]
fn a_new_interface_of_the_old_name_is_reported_whole() {
    let interfaces = [interface(|interface| interface.ifindex = 7)];
    let (reported, now) = events(&known(), &interfaces, true);
    assert_eq!(reported, [UnderlayEvent::Back(Underlay { ifindex: 7, ..known().underlay })]);
    assert_eq!(events(&now, &interfaces, true).0, []);
}

#[test]
fn the_underlay_goes_where_its_address_goes() {
    let bridge = interface(|interface| {
        interface.name = "br0".to_owned();
        interface.ifindex = 9;
    });
    let moved = Underlay { name: "br0".to_owned(), ifindex: 9, ..known().underlay };
    let interfaces = [interface(|interface| interface.addresses.clear()), bridge];
    assert_eq!(events(&known(), &interfaces, true).0, [UnderlayEvent::Back(moved)]);
    let both = [interfaces[1].clone(), interface(|_| ())];
    assert_eq!(events(&known(), &both, true).0, [], "as long as it has it, it keeps it");
}

#[test]
fn an_interface_that_returns_without_carrier_is_back_and_down() {
    let (_, gone) = events(&known(), &[], true);
    assert_eq!(events(&gone, &[], true).0, [], "gone is said once");
    let (reported, down) = events(&gone, &[interface(|interface| interface.up = false)], true);
    assert_eq!(reported, [UnderlayEvent::Back(known().underlay), UnderlayEvent::Down]);
    assert_eq!(events(&down, &[interface(|_| ())], true).0, [UnderlayEvent::Up]);
}

#[test]
fn a_public_address_that_the_operator_has_set_survives_a_change_of_address() {
    for public_ip in [ADDRESS, Ipv4Addr::new(203, 0, 113, 9)] {
        let now = observe(&known(), &fixed(Some(public_ip)), &[interface(without_address)], false);
        assert_eq!(now.underlay.ipv4, Some(end(SECOND, Some(public_ip))));
    }
}

#[test]
fn an_ipv6_address_is_followed_beside_the_other_and_may_be_missing() {
    let ipv6 = |last| Ipv6Addr::new(0xfd00, 0x50, 0, 0, 0, 0, 0, last);
    let there = |lasts: &[u16]| {
        let address = |&last| Address { ip: ipv6(last), link_local: false, permanent: true, unfit: false };
        interface(|interface| interface.ipv6_addresses = lasts.iter().map(address).collect())
    };
    let choice = UnderlayChoice { outer: Outer::Either, ..UnderlayChoice::default() };
    let fixed = Fixed { first_name: "eth0".to_owned(), choice };
    let state = |last: Option<u16>, there: &[u16]| {
        let ipv6_end = last.map(|last| end(ipv6(last), None));
        let addresses = known().underlay.addresses.into_iter().chain(there.iter().map(|&last| ipv6(last).into()));
        let addresses = addresses.collect();
        State { underlay: Underlay { ipv6: ipv6_end, addresses, ..known().underlay }, ..known() }
    };
    let changed = |last, there| vec![UnderlayEvent::AddressChanged(state(last, there).underlay)];
    let cases = [
        ("in use", Some(1), vec![2, 1], false, vec![]),
        ("waited for", Some(1), vec![2], true, vec![]),
        ("replaced", Some(1), vec![2], false, changed(Some(2), &[2])),
        ("gone, with none in its place", Some(1), vec![], false, changed(None, &[])),
        ("new", None, vec![2], true, changed(Some(2), &[2])),
    ];
    for (name, before, now, patient, expected) in cases {
        let before = state(before, &[]);
        let now = observe(&before, &fixed, &[there(&now)], patient);
        assert_eq!(changes(&before, &now), expected, "{name}");
        assert_eq!(now.standing == Standing::AddressMissing, name == "waited for", "{name}");
    }
}

#[test]
fn an_ipv4_address_is_followed_beside_the_other_and_may_be_missing_unless_another_is_published() {
    let ipv6 = Address { ip: Ipv6Addr::LOCALHOST, link_local: false, permanent: true, unfit: false };
    let there = |ips: &[Ipv4Addr]| {
        interface(|interface| {
            interface.addresses = ips.iter().map(|&ip| address(ip)).collect();
            interface.ipv6_addresses = vec![ipv6];
        })
    };
    let state = |ipv4: Option<Ipv4Addr>| {
        let (ipv4, ipv6) = (ipv4.map(|ip| end(ip, None)), Some(end(ipv6.ip, None)));
        State { underlay: Underlay { ipv4, ipv6, ..known().underlay }, ..known() }
    };
    let observed = |before, ips: &[Ipv4Addr], patient, public_ip| {
        let choice = UnderlayChoice { outer: Outer::Either, public_ip, ..UnderlayChoice::default() };
        let now = observe(&state(before), &Fixed { first_name: "eth0".to_owned(), choice }, &[there(ips)], patient);
        (now.underlay.ipv4.map(|end| end.address), now.standing)
    };
    let link_local = Ipv4Addr::new(169, 254, 1, 1);
    let cases = [
        ("new", None, vec![ADDRESS], true, (Some(ADDRESS), Standing::Present)),
        ("new, and of no use to others", None, vec![link_local], true, (None, Standing::Present)),
        ("waited for", Some(ADDRESS), vec![], true, (Some(ADDRESS), Standing::AddressMissing)),
        ("replaced", Some(ADDRESS), vec![SECOND], false, (Some(SECOND), Standing::Present)),
        ("gone", Some(ADDRESS), vec![], false, (None, Standing::Present)),
    ];
    for (name, before, ips, patient, expected) in cases {
        assert_eq!(observed(before, &ips, patient, None), expected, "{name}");
    }
    let published = Some(Ipv4Addr::new(203, 0, 113, 9));
    assert_eq!(observed(Some(ADDRESS), &[], false, published).1, Standing::NoAddress, "published for an address");
}

#[test]
fn a_node_without_ipv4_is_known_by_its_ipv6_address() {
    let ipv6 = |last| Ipv6Addr::new(0xfd00, 0x50, 0, 0, 0, 0, 0, last);
    let there = |lasts: &[u16]| {
        let address = |&last| Address { ip: ipv6(last), link_local: false, permanent: true, unfit: false };
        interface(|interface| interface.ipv6_addresses = lasts.iter().map(address).collect())
    };
    let choice = UnderlayChoice { outer: Outer::Ipv6, ..UnderlayChoice::default() };
    let fixed = Fixed { first_name: "eth0".to_owned(), choice };
    let before =
        State { underlay: Underlay { ipv4: None, ipv6: Some(end(ipv6(1), None)), ..known().underlay }, ..known() };
    let standing = |lasts, patient| observe(&before, &fixed, &[there(lasts)], patient).standing;
    assert_eq!(standing(&[1], true), Standing::Present);
    assert_eq!(standing(&[], true), Standing::AddressMissing);
    assert_eq!(standing(&[], false), Standing::NoAddress);
    let moved = observe(&before, &fixed, &[there(&[2])], false).underlay;
    assert_eq!((moved.ipv4, moved.ipv6), (None, Some(end(ipv6(2), None))), "IPv4 stays out of it");
}
