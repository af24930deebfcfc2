//! What the kernel would do with a packet between two programs, as far as it tells.

use std::net::Ipv4Addr;

use anyhow::{Context as _, Result};
use futures::{StreamExt as _, TryStreamExt as _};
use rtnetlink::{
    Handle, RouteMessageBuilder,
    packet_route::{
        link::{LinkAttribute, LinkMessage},
        route::{RouteAddress, RouteAttribute, RouteType},
    },
};

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
    pub(super) gateway: Option<Ipv4Addr>,
    /// The address is one of the node itself.
    pub(super) local: bool,
}

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
    pub(super) async fn route(&self, destination: Ipv4Addr) -> Option<KernelRoute> {
        let message = RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(destination, 32).build();
        let route = std::pin::pin!(self.handle.route().get(message).execute()).next().await?.ok()?;
        let mut interface = None;
        let mut gateway = None;
        for attribute in &route.attributes {
            match attribute {
                RouteAttribute::Oif(index) => interface = Some(*index),
                RouteAttribute::Gateway(RouteAddress::Inet(address)) => gateway = Some(*address),
                _ => {}
            }
        }
        Some(KernelRoute { interface: interface?, gateway, local: route.header.kind == RouteType::Local })
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
