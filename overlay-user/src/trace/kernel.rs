//! What the kernel would do with a packet between two programs, as far as it tells.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context as _, Result};
use futures::{StreamExt as _, TryStreamExt as _};
use rtnetlink::{
    Handle, RouteMessageBuilder,
    packet_route::{
        link::{LinkAttribute, LinkMessage},
        route::RouteType,
    },
};

use crate::route_message::{gateway, oif};

/// The kernel's routes and interfaces.
pub(super) struct Kernel {
    handle: Handle,
}

/// An interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Interface {
    pub(super) index: u32,
    pub(super) name: String,
    pub(super) mtu: u32,
}

/// Where the kernel routes a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct KernelRoute {
    /// Index of the interface that it leaves by.
    pub(super) interface: u32,
    /// The router on that link, if there is one.
    pub(super) gateway: Option<IpAddr>,
    /// The address is one of the node itself.
    pub(super) local: bool,
}

/// The kinds of routes that lead nowhere; of IPv6 the kernel tells them as it tells others.
const REFUSALS: [RouteType; 3] = [RouteType::Unreachable, RouteType::BlackHole, RouteType::Prohibit];

impl Kernel {
    /// Opens a netlink socket.
    ///
    /// # Errors
    /// When there is none to be had.
    pub(super) fn open() -> Result<Self> {
        let (connection, handle, _) = rtnetlink::new_connection().context("open a netlink socket")?;
        tokio::spawn(connection);
        Ok(Self { handle })
    }

    /// What `ip route get` says of `destination`; `None` when there is no way.
    pub(super) async fn route(&self, destination: IpAddr) -> Option<KernelRoute> {
        let message = match destination {
            IpAddr::V4(address) => RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(address, 32).build(),
            IpAddr::V6(address) => RouteMessageBuilder::<Ipv6Addr>::new().destination_prefix(address, 128).build(),
        };
        let route = std::pin::pin!(self.handle.route().get(message).execute()).next().await?.ok()?;
        if REFUSALS.contains(&route.header.kind) {
            return None;
        }
        let (interface, gateway) = (oif(&route)?, gateway(&route));
        Some(KernelRoute { interface, gateway, local: route.header.kind == RouteType::Local })
    }

    /// The interface with this index.
    ///
    /// # Errors
    /// When there is none.
    pub(super) async fn interface(&self, index: u32) -> Result<Interface> {
        let mut links = self.handle.link().get().match_index(index).execute();
        let link = links.try_next().await.with_context(|| format!("ask for the interface with index {index}"))?;
        let link = link.with_context(|| format!("there is no interface with index {index} any more"))?;
        Ok(interface(&link))
    }
}

fn interface(link: &LinkMessage) -> Interface {
    let mut interface = Interface { index: link.header.index, name: String::new(), mtu: 0 };
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::IfName(name) => interface.name.clone_from(name),
            LinkAttribute::Mtu(mtu) => interface.mtu = *mtu,
            _ => {}
        }
    }
    interface
}
