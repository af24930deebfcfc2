//! What is known of the underlay interface, and what to report when that changes. Pure.

use std::net::Ipv4Addr;

use super::choose::preferred;
use super::{Interface, Ipv6End, Underlay, UnderlayChoice, UnderlayEvent};

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
    let (ipv6, ipv6_missing) = ipv6(old, fixed, interface, same && patient);
    let (address, standing) = if has(interface, old.address) {
        (old.address, Standing::Present)
    } else if same && patient {
        (old.address, Standing::AddressMissing)
    } else if let Some(other) = substitute(interface, old.address) {
        (other, Standing::Present)
    } else {
        return State { underlay: old.clone(), standing: Standing::NoAddress, running: false };
    };
    let standing = if ipv6_missing { Standing::AddressMissing } else { standing };
    let public_ip = fixed.choice.public_ip.unwrap_or(address);
    let (name, ifindex, mtu) = (interface.name.clone(), interface.ifindex, interface.mtu);
    let addresses = interface.addresses.iter().map(|address| address.ip).collect();
    State { underlay: Underlay { name, ifindex, address, mac, mtu, public_ip, addresses, ipv6 }, standing, running }
}

/// The node's end over IPv6 now, and whether its address is missing and waited for. That there is none leaves the
/// interface usable: IPv4 carries what IPv6 would.
fn ipv6(old: &Underlay, fixed: &Fixed, interface: &Interface, patient: bool) -> (Option<Ipv6End>, bool) {
    if !fixed.choice.ipv6 {
        return (None, false);
    }
    let there = |end: &&Ipv6End| interface.ipv6_addresses.iter().any(|address| address.ip == end.address);
    match &old.ipv6 {
        Some(end) if there(&end) => (Some(end.clone()), false),
        Some(end) if patient => (Some(end.clone()), true),
        _ => {
            let public_ip = |address| fixed.choice.public_ipv6.unwrap_or(address);
            let address = preferred(&interface.ipv6_addresses);
            (address.map(|address| Ipv6End { address, public_ip: public_ip(address) }), false)
        }
    }
}

/// The interface that is the underlay now, with its Ethernet address.
fn find<'a>(before: &State, first_name: &str, interfaces: &'a [Interface]) -> Option<(&'a Interface, [u8; 6])> {
    let old = &before.underlay;
    let same = |interface: &&Interface| interface.ifindex == old.ifindex && before.standing != Standing::Gone;
    let find = |fits: &dyn Fn(&&Interface) -> bool| interfaces.iter().find(fits);
    let found = find(&|interface| same(interface) && has(interface, old.address))
        .or_else(|| find(&|interface| !interface.loopback && interface.mac.is_some() && has(interface, old.address)))
        .or_else(|| find(&same))
        .or_else(|| find(&|interface| interface.name == old.name))
        .or_else(|| find(&|interface| interface.name == first_name))?;
    Some((found, found.mac?))
}

fn has(interface: &Interface, ip: Ipv4Addr) -> bool {
    interface.addresses.iter().any(|address| address.ip == ip)
}

/// The address that takes the place of `old`. A link-local one, as the kernel or a DHCP client puts up in want of a better
/// one, does not take the place of one that other nodes could reach.
fn substitute(interface: &Interface, old: Ipv4Addr) -> Option<Ipv4Addr> {
    preferred(&interface.addresses).filter(|address| !address.is_link_local() || old.is_link_local())
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
        let moved = old.address != new.address || old.ipv6 != new.ipv6;
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
    use std::net::Ipv6Addr;

    use super::super::Address;
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
        let addresses = vec![ADDRESS, SECOND];
        let underlay =
            Underlay { name, ifindex: 2, address: ADDRESS, mac, mtu: 1500, public_ip: ADDRESS, addresses, ipv6: None };
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
        let expected = Underlay { address: SECOND, public_ip: SECOND, addresses: vec![SECOND], ..known().underlay };
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
            assert_eq!((now.underlay.address, now.underlay.public_ip), (SECOND, public_ip));
        }
    }

    #[test]
    fn an_ipv6_address_is_followed_beside_the_other_and_may_be_missing() {
        let ipv6 = |last| Ipv6Addr::new(0xfd00, 0x50, 0, 0, 0, 0, 0, last);
        let there = |lasts: &[u16]| {
            let address = |&last| Address { ip: ipv6(last), link_local: false, permanent: true, unfit: false };
            interface(|interface| interface.ipv6_addresses = lasts.iter().map(address).collect())
        };
        let choice = UnderlayChoice { ipv6: true, ..UnderlayChoice::default() };
        let fixed = Fixed { first_name: "eth0".to_owned(), choice };
        let state = |last: Option<u16>| {
            let end = last.map(|last| Ipv6End { address: ipv6(last), public_ip: ipv6(last) });
            State { underlay: Underlay { ipv6: end, ..known().underlay }, ..known() }
        };
        let changed = |last| vec![UnderlayEvent::AddressChanged(state(last).underlay)];
        let cases = [
            ("in use", Some(1), vec![2, 1], false, vec![]),
            ("waited for", Some(1), vec![2], true, vec![]),
            ("replaced", Some(1), vec![2], false, changed(Some(2))),
            ("gone, with none in its place", Some(1), vec![], false, changed(None)),
            ("new", None, vec![2], true, changed(Some(2))),
        ];
        for (name, before, now, patient, expected) in cases {
            let before = state(before);
            let now = observe(&before, &fixed, &[there(&now)], patient);
            assert_eq!(changes(&before, &now), expected, "{name}");
            assert_eq!(now.standing == Standing::AddressMissing, name == "waited for", "{name}");
        }
    }
}
