//! Reports what becomes of the underlay interface after the agent has started.

use std::collections::VecDeque;
use std::net::Ipv4Addr;

use rtnetlink::MulticastGroup;
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::link::{LinkAttribute, LinkMessage};

use crate::notices::{Notice, Notices, ask};

use super::choose::preferred;
use super::{Interface, Underlay, UnderlayError, read};

/// Something about the underlay interface that is no longer as it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UnderlayEvent {
    /// The interface does not exist any more, or has lost its last IPv4 address.
    Gone,
    /// After [`UnderlayEvent::Gone`], or in its place when another interface has taken over the name: the interface
    /// as it is now. Nothing that was attached to the old one is attached to this one.
    Back(Underlay),
    /// It went down or lost its carrier.
    Down,
    /// It is up again and has carrier.
    Up,
    /// It has another MTU, in bytes.
    MtuChanged(u32),
    /// It has another Ethernet address.
    MacChanged([u8; 6]),
    /// The address in use was removed; this is the one to use now.
    AddressChanged(Ipv4Addr),
    /// Routes through it came or went: what was resolved over them is to be resolved anew.
    RoutesChanged,
}

/// Watches one underlay interface, by name.
///
/// The kernel's notices only say when to look: each is followed by a reading of the whole state, and what is reported
/// is its difference to the state before. So a lost notice delays a report until the next one, and does no other harm.
pub struct Watch {
    notices: Notices,
    known: State,
    /// A notice about the interface has come since the state was last read.
    stale: bool,
    pending: VecDeque<UnderlayEvent>,
}

/// What is known about the interface.
#[derive(Debug, Clone, PartialEq, Eq)]
struct State {
    underlay: Underlay,
    present: bool,
    running: bool,
}

impl Watch {
    /// Starts to watch `underlay`. Must be called in its network namespace and in a tokio runtime.
    ///
    /// # Errors
    /// [`UnderlayError::Socket`].
    pub fn new(underlay: Underlay) -> Result<Self, UnderlayError> {
        let groups = [MulticastGroup::Link, MulticastGroup::Ipv4Ifaddr, MulticastGroup::Ipv4Route];
        Ok(Self {
            notices: Notices::new(&groups).map_err(UnderlayError::Socket)?,
            known: State { underlay, present: true, running: true },
            // Between the choice and here something may have changed already.
            stale: true,
            pending: VecDeque::new(),
        })
    }

    /// The underlay as last reported.
    #[must_use]
    pub fn underlay(&self) -> &Underlay {
        &self.known.underlay
    }

    /// Waits for the next event. Dropping the future loses nothing.
    ///
    /// # Errors
    /// When the kernel does not answer any more; the watch is then of no further use.
    pub async fn next(&mut self) -> Result<UnderlayEvent, UnderlayError> {
        loop {
            if let Some(event) = self.pending.pop_front() {
                return Ok(event);
            }
            if !self.stale {
                let notice = self.notices.next().await.map_err(UnderlayError::Socket)?;
                self.note(&notice);
                continue;
            }
            let interfaces = ask(async |handle| read::interfaces(handle).await).await;
            let interfaces = interfaces.map_err(UnderlayError::Socket)??;
            self.stale = false;
            let now = observe(&self.known, &interfaces);
            self.pending.extend(changes(&self.known, &now));
            self.known = now;
        }
    }

    /// Takes in what a notice says: other interfaces come and go with every container and do not matter.
    fn note(&mut self, notice: &Notice) {
        let Underlay { name, ifindex, .. } = &self.known.underlay;
        match notice {
            Notice::Changed(RouteNetlinkMessage::NewLink(link) | RouteNetlinkMessage::DelLink(link)) => {
                self.stale |= link.header.index == *ifindex || has_name(link, name);
            }
            Notice::Changed(RouteNetlinkMessage::NewAddress(address) | RouteNetlinkMessage::DelAddress(address)) => {
                // A new interface has another index until its first reading.
                self.stale |= address.header.index == *ifindex || !self.known.present;
            }
            Notice::Changed(RouteNetlinkMessage::NewRoute(route) | RouteNetlinkMessage::DelRoute(route)) => {
                if read::route_info(route).is_some_and(|route| route.ifindex == *ifindex) {
                    self.routes_changed();
                }
            }
            Notice::Changed(_) => {}
            Notice::Overrun => {
                self.stale = true;
                self.routes_changed();
            }
        }
    }

    fn routes_changed(&mut self) {
        if !self.pending.contains(&UnderlayEvent::RoutesChanged) {
            self.pending.push_back(UnderlayEvent::RoutesChanged);
        }
    }
}

fn has_name(link: &LinkMessage, name: &str) -> bool {
    link.attributes.iter().any(|attribute| matches!(attribute, LinkAttribute::IfName(other) if other == name))
}

/// The state after `before` when the node has `interfaces`: an address in use stays in use as long as it is there.
fn observe(before: &State, interfaces: &[Interface]) -> State {
    let old = &before.underlay;
    let found = interfaces.iter().find(|interface| interface.name == old.name).and_then(|interface| {
        let kept = interface.addresses.iter().any(|address| address.ip == old.address).then_some(old.address);
        Some((interface, interface.mac?, kept.or_else(|| preferred(&interface.addresses))?))
    });
    let Some((interface, mac, address)) = found else {
        return State { underlay: old.clone(), present: false, running: false };
    };
    let public_ip = if old.public_ip == old.address { address } else { old.public_ip };
    let underlay =
        Underlay { name: old.name.clone(), ifindex: interface.ifindex, address, mac, mtu: interface.mtu, public_ip };
    State { underlay, present: true, running: interface.up && interface.carrier }
}

/// What to report when `before` has become `now`.
fn changes(before: &State, now: &State) -> Vec<UnderlayEvent> {
    let (old, new) = (&before.underlay, &now.underlay);
    let mut events = Vec::new();
    if !now.present {
        events.extend(before.present.then_some(UnderlayEvent::Gone));
        return events;
    }
    if !before.present || old.ifindex != new.ifindex {
        events.push(UnderlayEvent::Back(new.clone()));
    } else {
        events.extend((old.mtu != new.mtu).then_some(UnderlayEvent::MtuChanged(new.mtu)));
        events.extend((old.mac != new.mac).then_some(UnderlayEvent::MacChanged(new.mac)));
        events.extend((old.address != new.address).then_some(UnderlayEvent::AddressChanged(new.address)));
    }
    match (before.present && before.running, now.running) {
        (false, true) if before.present => events.push(UnderlayEvent::Up),
        (true, false) => events.push(UnderlayEvent::Down),
        (false, false) if !before.present => events.push(UnderlayEvent::Down),
        _ => {}
    }
    events
}

#[cfg(test)]
mod tests {
    use super::super::Address;
    use super::*;

    fn interface(change: impl FnOnce(&mut Interface)) -> Vec<Interface> {
        let address = |ip| Address { ip, link_local: false, permanent: true, deprecated: false };
        let mut interface = Interface {
            name: "eth0".to_owned(),
            ifindex: 2,
            mtu: 1500,
            mac: Some([2, 0, 0, 0, 0, 1]),
            loopback: false,
            up: true,
            carrier: true,
            addresses: vec![address(Ipv4Addr::new(192, 168, 50, 1)), address(Ipv4Addr::new(192, 168, 50, 9))],
        };
        change(&mut interface);
        vec![interface]
    }

    fn known() -> State {
        let address = Ipv4Addr::new(192, 168, 50, 1);
        let underlay = Underlay {
            name: "eth0".to_owned(),
            ifindex: 2,
            address,
            mac: [2, 0, 0, 0, 0, 1],
            mtu: 1500,
            public_ip: address,
        };
        State { underlay, present: true, running: true }
    }

    fn events(before: &State, interfaces: &[Interface]) -> (Vec<UnderlayEvent>, State) {
        let now = observe(before, interfaces);
        (changes(before, &now), now)
    }

    #[test]
    fn each_change_is_reported_as_what_it_is() {
        let cases = [
            (interface(|_| ()), vec![]),
            (interface(|interface| interface.mtu = 9000), vec![UnderlayEvent::MtuChanged(9000)]),
            (interface(|interface| interface.mac = Some([6; 6])), vec![UnderlayEvent::MacChanged([6; 6])]),
            (interface(|interface| interface.carrier = false), vec![UnderlayEvent::Down]),
            (
                interface(|interface| interface.addresses.retain(|address| address.ip.octets()[3] != 1)),
                vec![UnderlayEvent::AddressChanged(Ipv4Addr::new(192, 168, 50, 9))],
            ),
            (interface(|interface| interface.addresses.reverse()), vec![]),
            (interface(|interface| interface.addresses.clear()), vec![UnderlayEvent::Gone]),
            (vec![], vec![UnderlayEvent::Gone]),
        ];
        for (interfaces, expected) in cases {
            assert_eq!(events(&known(), &interfaces).0, expected, "{interfaces:?}");
        }
    }

    #[test]
    fn a_new_interface_of_the_old_name_is_reported_whole() {
        let interfaces = interface(|interface| interface.ifindex = 7);
        let (reported, now) = events(&known(), &interfaces);
        assert_eq!(reported, [UnderlayEvent::Back(Underlay { ifindex: 7, ..known().underlay })]);
        assert_eq!(events(&now, &interfaces).0, []);
    }

    #[test]
    fn an_interface_that_returns_without_carrier_is_back_and_down() {
        let (_, gone) = events(&known(), &[]);
        assert_eq!(events(&gone, &[]).0, [], "gone is said once");
        let (reported, down) = events(&gone, &interface(|interface| interface.up = false));
        assert_eq!(reported, [UnderlayEvent::Back(known().underlay), UnderlayEvent::Down]);
        assert_eq!(events(&down, &interface(|_| ())).0, [UnderlayEvent::Up]);
    }

    #[test]
    fn a_public_address_of_its_own_survives_a_change_of_address() {
        let mut before = known();
        before.underlay.public_ip = Ipv4Addr::new(203, 0, 113, 9);
        let now =
            observe(&before, &interface(|interface| interface.addresses.retain(|address| address.ip.octets()[3] != 1)));
        assert_eq!(now.underlay.address, Ipv4Addr::new(192, 168, 50, 9));
        assert_eq!(now.underlay.public_ip, Ipv4Addr::new(203, 0, 113, 9));
    }
}
