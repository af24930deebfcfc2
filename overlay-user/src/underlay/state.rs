//! What is known of the underlay interface, and what to report when that changes. Pure.

use std::net::IpAddr;

use super::choose::{end, preferred};
use super::{Address, End, Interface, Outer, Underlay, UnderlayChoice, UnderlayEvent};

/// What does not change with the interface.
#[derive(Debug)]
pub(super) struct Fixed {
    /// The name that the interface had at first.
    pub(super) first_name: String,
    /// What was said of the underlay: the public addresses that the operator has set count whatever the addresses are.
    pub(super) choice: UnderlayChoice,
}

/// What is known about the interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct State {
    pub(super) underlay: Underlay,
    pub(super) standing: Standing,
    pub(super) running: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// It is there, with an address.
    Present,
    /// It is there, and its address is not, but may be back in a moment.
    AddressMissing,
    /// It is there, without address.
    NoAddress,
    /// It does not exist.
    Gone,
}

impl Standing {
    /// Whether the underlay counts as usable.
    const fn is_usable(self) -> bool {
        matches!(self, Self::Present | Self::AddressMissing)
    }
}

/// The state after `before` when the node has `interfaces`. An address in use stays in use as long as it is there and, to
/// the `patient`, for a while longer.
pub(super) fn observe(before: &State, fixed: &Fixed, interfaces: &[Interface], patient: bool) -> State {
    let old = &before.underlay;
    let Some((interface, mac)) = find(before, &fixed.first_name, interfaces) else {
        return State { underlay: old.clone(), standing: Standing::Gone, running: false };
    };
    let running = interface.up && interface.carrier;
    let same = interface.ifindex == old.ifindex && before.standing.is_usable();
    let (choice, patient) = (&fixed.choice, same && patient);
    // Over IPv4 a node has an end from the start or never: it is known by that address.
    let is_known_by_ipv4 = old.ipv4.is_some();
    let ipv4 = follow(old.ipv4, is_known_by_ipv4, &interface.addresses, choice.public_ip, patient);
    let ipv6 = follow(old.ipv6, choice.outer != Outer::Ipv4, &interface.ipv6_addresses, choice.public_ipv6, patient);
    // That there is no IPv6 leaves the interface usable where IPv4 carries what IPv6 would.
    if if is_known_by_ipv4 { ipv4.end.is_none() } else { ipv6.end.is_none() } {
        return State { underlay: old.clone(), standing: Standing::NoAddress, running: false };
    }
    let standing = if ipv4.missing || ipv6.missing { Standing::AddressMissing } else { Standing::Present };
    let (name, ifindex, mtu) = (interface.name.clone(), interface.ifindex, interface.mtu);
    let (ipv4, ipv6, addresses) = (ipv4.end, ipv6.end, interface.all_addresses());
    State { underlay: Underlay { name, ifindex, mac, mtu, ipv4, ipv6, addresses }, standing, running }
}

/// What has become of an end.
struct Followed<A> {
    end: Option<End<A>>,
    /// Its address is missing, and waited for.
    missing: bool,
}

/// The node's end over one family, if it is `wanted` to have one, now that the interface has `addresses` of it.
fn follow<A: Copy + Eq + Into<IpAddr>>(
    old: Option<End<A>>,
    wanted: bool,
    addresses: &[Address<A>],
    public_ip: Option<A>,
    patient: bool,
) -> Followed<A> {
    match old {
        _ if !wanted => Followed { end: None, missing: false },
        Some(end) if addresses.iter().any(|address| address.ip == end.address) => Followed { end: old, missing: false },
        Some(_) if patient => Followed { end: old, missing: true },
        _ => {
            let substitute = substitute(addresses, old.map(|end| end.address));
            Followed { end: substitute.map(|address| end(address, public_ip)), missing: false }
        }
    }
}

/// The interface that is the underlay now, with its Ethernet address.
fn find<'a>(before: &State, first_name: &str, interfaces: &'a [Interface]) -> Option<(&'a Interface, [u8; 6])> {
    let old = &before.underlay;
    let same = |interface: &&Interface| interface.ifindex == old.ifindex && before.standing != Standing::Gone;
    let find = |fits: &dyn Fn(&&Interface) -> bool| interfaces.iter().find(fits);
    let found = find(&|interface| same(interface) && has(interface, old))
        .or_else(|| find(&|interface| !interface.loopback && interface.mac.is_some() && has(interface, old)))
        .or_else(|| find(&same))
        .or_else(|| find(&|interface| interface.name == old.name))
        .or_else(|| find(&|interface| interface.name == first_name))?;
    Some((found, found.mac?))
}

/// Whether `interface` has the address that the node is known by.
fn has(interface: &Interface, underlay: &Underlay) -> bool {
    underlay.ends().next().is_some_and(|end| interface.all_addresses().contains(&end.address))
}

/// The address that takes the place of `old`. A link-local one, as the kernel or a DHCP client puts up in want of a better
/// one, does not take the place of one that other nodes could reach.
fn substitute<A: Copy + Into<IpAddr>>(addresses: &[Address<A>], old: Option<A>) -> Option<A> {
    preferred(addresses).filter(|&address| !is_link_local(address) || old.is_some_and(is_link_local))
}

fn is_link_local(address: impl Into<IpAddr>) -> bool {
    match address.into() {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

/// What to report when `before` has become `now`.
pub(super) fn changes(before: &State, now: &State) -> Vec<UnderlayEvent> {
    let (old, new) = (&before.underlay, &now.underlay);
    let (was_usable, is_usable) = (before.standing.is_usable(), now.standing.is_usable());
    let mut events = Vec::new();
    if !is_usable {
        let gone = if now.standing == Standing::Gone { UnderlayEvent::Gone } else { UnderlayEvent::AddressGone };
        events.extend(was_usable.then_some(gone));
        return events;
    }
    if !was_usable || old.ifindex != new.ifindex {
        events.push(UnderlayEvent::Back(new.clone()));
    } else {
        events.extend((old.name != new.name).then(|| UnderlayEvent::Renamed(new.name.clone())));
        events.extend((old.mtu != new.mtu).then_some(UnderlayEvent::MtuChanged(new.mtu)));
        events.extend((old.mac != new.mac).then_some(UnderlayEvent::MacChanged(new.mac)));
        let moved = old.ipv4 != new.ipv4 || old.ipv6 != new.ipv6;
        events.extend(moved.then(|| UnderlayEvent::AddressChanged(new.clone())));
    }
    match (was_usable && before.running, now.running) {
        (false, true) if was_usable => events.push(UnderlayEvent::Up),
        (true, false) => events.push(UnderlayEvent::Down),
        (false, false) if !was_usable => events.push(UnderlayEvent::Down),
        _ => {}
    }
    events
}

#[cfg(test)]
mod tests {
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
}
