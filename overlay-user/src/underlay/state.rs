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
    // Where IPv4 is used for want of IPv6 alone, it stays as long as it is there, and does not come later.
    let wants_ipv4 = choice.outer != Outer::Ipv6 || old.ipv4.is_some();
    let ipv4 = follow(old.ipv4, wants_ipv4, &interface.addresses, choice.public_ip, patient);
    let ipv6 = follow(old.ipv6, choice.outer != Outer::Ipv4, &interface.ipv6_addresses, choice.public_ipv6, patient);
    // An interface without one of the families stays usable where the other one carries all.
    if ipv4.end.is_none() && (ipv6.end.is_none() || choice.needs_ipv4()) {
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
mod tests;
