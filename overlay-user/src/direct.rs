//! `DirectRouting`: nodes on our own link are reached by plain kernel routes, without encapsulation.
//!
//! Whether a node is on our link is the kernel's word: its route to the node's address has no gateway and leaves by the
//! underlay interface. It is asked when a route is set; a node that moves behind a router comes with another address.

use std::{collections::BTreeSet, io, net::Ipv4Addr};

use futures::TryStreamExt as _;
use ipnetwork::Ipv4Network;
use overlay_common::Route;
use rtnetlink::{
    Handle, RouteMessageBuilder,
    packet_route::route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol},
};

/// Marks our routes in the kernel's table, so that a later agent knows them (`ip route show proto 79`).
const PROTOCOL: RouteProtocol = RouteProtocol::Other(79);

/// A kernel route could not be set, removed or read.
#[derive(Debug, thiserror::Error)]
#[error("{action}: {}", .source.to_string().trim_start_matches("Received a netlink error message "))]
pub struct DirectError {
    action: String,
    source: rtnetlink::Error,
}

/// The plain routes of this node to the subnets of one overlay network.
#[derive(Debug, Clone)]
pub struct DirectRoutes {
    handle: Handle,
    network: Ipv4Network,
    underlay_ifindex: u32,
    enabled: bool,
}

impl DirectRoutes {
    /// Plain routes into `network` through interface `underlay_ifindex`; none at all unless `enabled`.
    #[must_use]
    pub const fn new(handle: Handle, network: Ipv4Network, underlay_ifindex: u32, enabled: bool) -> Self {
        Self { handle, network, underlay_ifindex, enabled }
    }

    /// Routes `subnet` plainly if its node is on our link, and marks `route` so.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn set(&self, subnet: Ipv4Network, route: Route) -> Result<Route, DirectError> {
        if !self.enabled {
            return Ok(route);
        }
        let Some(next_hop) = self.on_link(route).await else {
            self.remove(subnet).await?;
            return Ok(route);
        };
        let message = destination(subnet).gateway(next_hop).output_interface(self.underlay_ifindex).build();
        let added = self.handle.route().add(message).replace().execute().await;
        added.map_err(failed(format!("route {subnet} via {next_hop}")))?;
        Ok(route.direct())
    }

    /// Routes `subnet` plainly no more.
    ///
    /// # Errors
    /// When the kernel refuses. No such route is no error.
    pub async fn remove(&self, subnet: Ipv4Network) -> Result<(), DirectError> {
        if !self.enabled {
            return Ok(());
        }
        match self.handle.route().del(destination(subnet).build()).execute().await {
            Err(error) if is_missing(&error) => Ok(()),
            other => other.map_err(failed(format!("remove the route to {subnet}"))),
        }
    }

    /// Takes away the plain routes into the network that are not to `wanted` subnets, also those of an earlier agent.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn remove_all_but(&self, wanted: &BTreeSet<Ipv4Network>) -> Result<(), DirectError> {
        let request = self.handle.route().get(RouteMessageBuilder::<Ipv4Addr>::new().build()).execute();
        let routes: Vec<RouteMessage> = request.try_collect().await.map_err(failed("list routes".to_owned()))?;
        for route in routes.into_iter().filter(|route| self.is_ours(route)) {
            if !subnet_of(&route).is_some_and(|subnet| wanted.contains(&subnet)) {
                self.handle
                    .route()
                    .del(route)
                    .execute()
                    .await
                    .map_err(failed("remove a left-over route".to_owned()))?;
            }
        }
        Ok(())
    }

    fn is_ours(&self, route: &RouteMessage) -> bool {
        route.header.protocol == PROTOCOL
            && route.header.table == RouteHeader::RT_TABLE_MAIN
            && subnet_of(route).is_some_and(|subnet| self.network.contains(subnet.ip()))
    }

    /// The address of the node that `route` leads to, if that is on our link.
    async fn on_link(&self, route: Route) -> Option<Ipv4Addr> {
        let node = route.next_hop().ipv4()?;
        let message = RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(node, 32).build();
        let reply = self.handle.route().get(message).execute().try_next().await;
        let attributes = reply.ok()??.attributes;
        let on_link = attributes.contains(&RouteAttribute::Oif(self.underlay_ifindex))
            && !attributes.iter().any(|attribute| matches!(attribute, RouteAttribute::Gateway(_)));
        on_link.then_some(node)
    }
}

fn destination(subnet: Ipv4Network) -> RouteMessageBuilder<Ipv4Addr> {
    RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(subnet.network(), subnet.prefix()).protocol(PROTOCOL)
}

fn subnet_of(route: &RouteMessage) -> Option<Ipv4Network> {
    let address = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(RouteAddress::Inet(address)) => Some(*address),
        _ => None,
    })?;
    Ipv4Network::new(address, route.header.destination_prefix_length).ok()
}

fn is_missing(error: &rtnetlink::Error) -> bool {
    let rtnetlink::Error::NetlinkError(message) = error else { return false };
    message.to_io().raw_os_error() == Some(nix::libc::ESRCH) || message.to_io().kind() == io::ErrorKind::NotFound
}

fn failed(action: String) -> impl FnOnce(rtnetlink::Error) -> DirectError {
    move |source| DirectError { action, source }
}
