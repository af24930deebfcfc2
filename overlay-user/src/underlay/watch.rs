//! Reports what becomes of the underlay interface after the agent has started.
//!
//! The interface is known by its index, also under another name; once it is gone, the one that takes its name is the
//! underlay. An address in use that moves to another interface, as when a NIC becomes a port of a new bridge, takes the
//! underlay along.

use std::collections::VecDeque;
use std::time::Duration;

use rtnetlink::MulticastGroup;
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::link::{LinkAttribute, LinkMessage};
use tokio::time::{Instant, sleep_until};

use crate::notices::{Notice, Notices, ask};

use super::state::{Fixed, Standing, State, changes, observe};
use super::{Outer, Underlay, UnderlayChoice, UnderlayError, read};

/// How long an address that has been removed is waited for: DHCP clients take theirs away for a moment when they renew it.
pub const ADDRESS_GRACE: Duration = Duration::from_secs(3);

/// Something about the underlay interface that is no longer as it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UnderlayEvent {
    /// The interface does not exist any more.
    Gone,
    /// The interface has lost the last usable address, or the last of IPv4 where that must be, and did not get one within
    /// [`ADDRESS_GRACE`].
    AddressGone,
    /// After [`Gone`](Self::Gone) or [`AddressGone`](Self::AddressGone), or in their place when another interface has taken
    /// over name or address: the interface as it is now. What was attached to the old one is not attached to this one.
    Back(Underlay),
    /// It went down or lost its carrier.
    Down,
    /// It is up again and has carrier.
    Up,
    /// It has another name.
    Renamed(String),
    /// It has another MTU, in bytes.
    MtuChanged(u32),
    /// It has another Ethernet address.
    MacChanged([u8; 6]),
    /// The address in use has been gone for [`ADDRESS_GRACE`]; the interface, with the address to use now.
    AddressChanged(Underlay),
    /// Routes through it came or went: what was resolved over them is to be resolved anew.
    RoutesChanged,
}

/// Watches one underlay interface.
///
/// The kernel's notices only say when to look: each is followed by a reading of the whole state, and what is reported
/// is its difference to the state before. So a lost notice delays a report until the next one, and does no other harm.
pub struct Watch {
    notices: Notices,
    known: State,
    fixed: Fixed,
    /// A notice about the interface has come since the state was last read.
    stale: bool,
    /// Until when the address in use, which is missing, is waited for.
    grace: Option<Instant>,
    pending: VecDeque<UnderlayEvent>,
}

impl Watch {
    /// Starts to watch `underlay`, chosen by `choice`. Must be called in its network namespace and in a tokio runtime.
    ///
    /// # Errors
    /// [`UnderlayError::Socket`].
    pub fn new(underlay: Underlay, choice: UnderlayChoice) -> Result<Self, UnderlayError> {
        let mut groups = vec![MulticastGroup::Link, MulticastGroup::Ipv4Ifaddr, MulticastGroup::Ipv4Route];
        if choice.outer != Outer::Ipv4 {
            groups.extend([MulticastGroup::Ipv6Ifaddr, MulticastGroup::Ipv6Route]);
        }
        Ok(Self {
            notices: Notices::new(&groups).map_err(UnderlayError::Socket)?,
            fixed: Fixed { first_name: underlay.name.clone(), choice },
            known: State { underlay, standing: Standing::Present, running: true },
            // Between the choice and here something may have changed already.
            stale: true,
            grace: None,
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
                self.wait().await?;
                continue;
            }
            let interfaces = ask(async |handle| read::interfaces(handle).await).await;
            let interfaces = interfaces.map_err(UnderlayError::Socket)??;
            self.stale = false;
            let patient = self.grace.is_none_or(|end| Instant::now() < end);
            let now = observe(&self.known, &self.fixed, &interfaces, patient);
            self.grace = match now.standing {
                Standing::AddressMissing => self.grace.or_else(|| Some(Instant::now() + ADDRESS_GRACE)),
                _ => None,
            };
            self.pending.extend(changes(&self.known, &now));
            self.known = now;
        }
    }

    /// Waits for a notice, or for the end of the grace that a missing address has.
    async fn wait(&mut self) -> Result<(), UnderlayError> {
        let end = self.grace;
        let grace_ends = async {
            match end {
                Some(end) => sleep_until(end).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            notice = self.notices.next() => self.note(&notice.map_err(UnderlayError::Socket)?),
            () = grace_ends => self.stale = true,
        }
        Ok(())
    }

    /// Takes in what a notice says: other interfaces come and go with every container and do not matter, unless the
    /// underlay is looked for.
    fn note(&mut self, notice: &Notice) {
        let Underlay { name, ifindex, .. } = &self.known.underlay;
        match notice {
            Notice::Changed(RouteNetlinkMessage::NewLink(link) | RouteNetlinkMessage::DelLink(link)) => {
                let names = [name, &self.fixed.first_name];
                self.stale |= link.header.index == *ifindex || names.iter().any(|name| has_name(link, name));
            }
            Notice::Changed(RouteNetlinkMessage::NewAddress(address) | RouteNetlinkMessage::DelAddress(address)) => {
                self.stale |= address.header.index == *ifindex || self.known.standing != Standing::Present;
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
