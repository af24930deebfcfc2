//! `DirectRouting`: nodes on our own link are reached by plain kernel routes, without encapsulation.
//!
//! Whether a node is on our link is the kernel's word: its route to the node's address has no gateway and leaves by the
//! underlay interface. It is asked when a route is set; a node that moves behind a router comes with another address.

use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use futures::TryStreamExt as _;
use ipnetwork::IpNetwork;
use overlay_common::Route;
use rtnetlink::{
    Handle, RouteMessageBuilder,
    packet_route::route::{RouteAttribute, RouteHeader, RouteMessage, RouteProtocol},
};

use crate::route_message;

/// Marks our routes in the kernel's table, so that a later agent knows them (`ip route show proto 79`).
const PROTOCOL: RouteProtocol = RouteProtocol::Other(79);

/// A kernel route could not be set, removed or read.
#[derive(Debug, thiserror::Error)]
#[error("{action}: {}", .source.to_string().trim_start_matches("Received a netlink error message "))]
pub struct DirectError {
    action: String,
    source: rtnetlink::Error,
}

/// The plain routes of this node to the subnets of one overlay.
#[derive(Debug, Clone)]
pub struct DirectRoutes {
    handle: Handle,
    networks: Vec<IpNetwork>,
    underlay_ifindex: u32,
    enabled: bool,
}

impl DirectRoutes {
    /// Plain routes into `networks` through interface `underlay_ifindex`; none at all unless `enabled`.
    #[must_use]
    pub const fn new(handle: Handle, networks: Vec<IpNetwork>, underlay_ifindex: u32, enabled: bool) -> Self {
        Self { handle, networks, underlay_ifindex, enabled }
    }

    /// Routes `subnet` plainly if its node is on our link and reached by the subnet's own family, and marks `route` so.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn set(&self, subnet: IpNetwork, route: Route) -> Result<Route, DirectError> {
        if !self.enabled {
            return Ok(route);
        }
        let node = route.next_hop().ip();
        if node.is_ipv4() != subnet.is_ipv4() || !self.is_on_link(node).await {
            self.remove(subnet).await?;
            return Ok(route);
        }
        let mut message = destination(subnet);
        message.attributes.push(RouteAttribute::Gateway(node.into()));
        message.attributes.push(RouteAttribute::Oif(self.underlay_ifindex));
        let added = self.handle.route().add(message).replace().execute().await;
        added.map_err(failed(format!("route {subnet} via {node}")))?;
        Ok(route.direct())
    }

    /// Routes `subnet` plainly no more.
    ///
    /// # Errors
    /// When the kernel refuses. No such route is no error.
    pub async fn remove(&self, subnet: IpNetwork) -> Result<(), DirectError> {
        if !self.enabled {
            return Ok(());
        }
        match self.handle.route().del(destination(subnet)).execute().await {
            Err(error) if is_missing(&error) => Ok(()),
            other => other.map_err(failed(format!("remove the route to {subnet}"))),
        }
    }

    /// Takes away the plain routes into the networks that are not to `wanted` subnets, also those of an earlier agent.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn remove_all_but(&self, wanted: &BTreeSet<IpNetwork>) -> Result<(), DirectError> {
        for network in &self.networks {
            let request = self.handle.route().get(every_route(*network)).execute();
            let routes: Vec<RouteMessage> = request.try_collect().await.map_err(failed("list routes".to_owned()))?;
            for route in routes.into_iter().filter(|route| is_ours(route, *network)) {
                if !route_message::destination(&route).is_some_and(|subnet| wanted.contains(&subnet)) {
                    let removed = self.handle.route().del(route).execute().await;
                    removed.map_err(failed("remove a left-over route".to_owned()))?;
                }
            }
        }
        Ok(())
    }

    /// Whether `node` is on our link.
    async fn is_on_link(&self, node: IpAddr) -> bool {
        let reply = self.handle.route().get(destination(node.into())).execute().try_next().await;
        let Ok(Some(RouteMessage { attributes, .. })) = reply else { return false };
        attributes.contains(&RouteAttribute::Oif(self.underlay_ifindex))
            && !attributes.iter().any(|attribute| matches!(attribute, RouteAttribute::Gateway(_)))
    }
}

/// A route of ours to `network`, as far as every request about one goes.
fn destination(network: IpNetwork) -> RouteMessage {
    match network {
        IpNetwork::V4(network) => RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(network.network(), network.prefix())
            .protocol(PROTOCOL)
            .build(),
        IpNetwork::V6(network) => RouteMessageBuilder::<Ipv6Addr>::new()
            .destination_prefix(network.network(), network.prefix())
            .protocol(PROTOCOL)
            .build(),
    }
}

/// Asks for the routes of the family of `network`.
fn every_route(network: IpNetwork) -> RouteMessage {
    match network {
        IpNetwork::V4(_) => RouteMessageBuilder::<Ipv4Addr>::new().build(),
        IpNetwork::V6(_) => RouteMessageBuilder::<Ipv6Addr>::new().build(),
    }
}

/// Whether `route` is one of ours into `network`.
fn is_ours(route: &RouteMessage, network: IpNetwork) -> bool {
    route.header.protocol == PROTOCOL
        && route.header.table == RouteHeader::RT_TABLE_MAIN
        && route_message::destination(route).is_some_and(|subnet| network.contains(subnet.ip()))
}

fn is_missing(error: &rtnetlink::Error) -> bool {
    let rtnetlink::Error::NetlinkError(message) = error else { return false };
    message.to_io().raw_os_error() == Some(nix::libc::ESRCH) || message.to_io().kind() == io::ErrorKind::NotFound
}

fn failed(action: String) -> impl FnOnce(rtnetlink::Error) -> DirectError {
    move |source| DirectError { action, source }
}
