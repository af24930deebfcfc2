//! Notices when somebody damages the overlay device, and repairs it.

use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::link::{LinkFlags, LinkMessage};
use rtnetlink::{Handle, MulticastGroup};

use crate::notices::{Notice, Notices, ask};
use crate::route_message::oif;

use super::{Device, LinkConfig, LinkError, OverlayLink, address, configure, links, mac, message};

/// What has become of the overlay device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkEvent {
    /// It was set down, or has lost its address, route, MTU or MAC address; they are back.
    Repaired,
    /// It does not exist any more, and nothing that was attached to it does: set it up anew.
    Gone,
}

/// Watches an overlay device. The kernel's notices say when to look.
pub struct LinkWatch {
    notices: Notices,
    config: LinkConfig,
    ifindex: u32,
    stale: bool,
}

impl LinkWatch {
    /// Starts to watch `link`, set up by `config`. Must be called in its network namespace and in a tokio runtime.
    ///
    /// # Errors
    /// [`LinkError::Socket`].
    pub fn new(config: &LinkConfig, link: &OverlayLink) -> Result<Self, LinkError> {
        let mut groups = vec![MulticastGroup::Link];
        groups
            .extend(config.ipv4.map(|_| [MulticastGroup::Ipv4Ifaddr, MulticastGroup::Ipv4Route]).into_iter().flatten());
        groups.extend(config.ipv4_to_receive.map(|_| MulticastGroup::Ipv4Ifaddr));
        groups
            .extend(config.ipv6.map(|_| [MulticastGroup::Ipv6Ifaddr, MulticastGroup::Ipv6Route]).into_iter().flatten());
        Ok(Self {
            notices: Notices::new(&groups).map_err(LinkError::Socket)?,
            // Other nodes know the MAC address that it has now.
            config: LinkConfig { mac: Some(link.mac), ..config.clone() },
            ifindex: link.ifindex,
            stale: true,
        })
    }

    /// Takes note that the device has been given another MTU, in bytes, which is from now on the right one.
    pub const fn expect_mtu(&mut self, mtu: u32) {
        self.config.mtu = mtu;
    }

    /// Waits until the device has been damaged, and repairs it. Dropping the future loses nothing.
    ///
    /// # Errors
    /// [`LinkError`] when it cannot be repaired; the next notice leads to the next try.
    pub async fn next(&mut self) -> Result<LinkEvent, LinkError> {
        loop {
            while !self.stale {
                let notice = self.notices.next().await.map_err(LinkError::Socket)?;
                self.stale = concerns(&notice, self.ifindex);
            }
            let event = ask(async |handle| inspect(handle, &self.config, self.ifindex).await).await;
            self.stale = false;
            if let Some(event) = event.map_err(LinkError::Socket)?? {
                return Ok(event);
            }
        }
    }
}

/// Looks at the device and repairs what is wrong with it.
async fn inspect(handle: &Handle, config: &LinkConfig, ifindex: u32) -> Result<Option<LinkEvent>, LinkError> {
    let links = links(handle).await?;
    let Some(link) = links.iter().find(|link| link.header.index == ifindex) else {
        return Ok(Some(LinkEvent::Gone));
    };
    if is_intact(link, config) && address::is_in_place(handle, config, ifindex).await? {
        return Ok(None);
    }
    let device = Device { ifindex, mac: mac(link), created: false, tap: None };
    address::refuse(handle, config, &links).await?;
    configure(handle, config, &device).await?;
    Ok(Some(LinkEvent::Repaired))
}

fn is_intact(link: &LinkMessage, config: &LinkConfig) -> bool {
    let flags = link.header.flags;
    flags.contains(LinkFlags::Up | LinkFlags::Noarp)
        && message::mtu(link) == Some(config.mtu)
        && (config.mac.is_none() || mac(link) == config.mac)
}

fn concerns(notice: &Notice, ifindex: u32) -> bool {
    match notice {
        Notice::Changed(RouteNetlinkMessage::NewLink(link) | RouteNetlinkMessage::DelLink(link)) => {
            link.header.index == ifindex
        }
        Notice::Changed(RouteNetlinkMessage::DelAddress(address)) => address.header.index == ifindex,
        Notice::Changed(RouteNetlinkMessage::DelRoute(route)) => oif(route) == Some(ifindex),
        Notice::Changed(_) => false,
        Notice::Overrun => true,
    }
}
