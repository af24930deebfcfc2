//! Whether packets for the containers would leave the node.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context as _, Result};
use futures::TryStreamExt as _;
use ipnetwork::IpNetwork;
use rtnetlink::{Handle, RouteMessageBuilder, packet_route::route::RouteMessage};

use crate::{route_message, subnet_file::PreviousSubnetFile};

/// A subnet of `subnet_env` and the gateway that this node has for it, if any: Docker's bridge would be passed by.
///
/// # Errors
/// When the kernel does not tell its routes.
pub async fn routed_away(subnet_env: &str) -> Result<Option<(IpNetwork, IpAddr)>> {
    let PreviousSubnetFile { subnet, ipv6_subnet, .. } = PreviousSubnetFile::parse(subnet_env);
    let (connection, handle, _) = rtnetlink::new_connection().context("open a netlink socket")?;
    tokio::spawn(connection);
    let ipv4 = subnet.map(|subnet| (IpNetwork::from(subnet), RouteMessageBuilder::<Ipv4Addr>::new().build()));
    let ipv6 = ipv6_subnet.map(|subnet| (IpNetwork::from(subnet), RouteMessageBuilder::<Ipv6Addr>::new().build()));
    for (subnet, every) in ipv4.into_iter().chain(ipv6) {
        if let Some(gateway) = gateway_of(&handle, subnet, every).await? {
            return Ok(Some((subnet, gateway)));
        }
    }
    Ok(None)
}

/// The gateway of the route to `subnet` itself, if it has one, among the routes that the request `every` is for.
async fn gateway_of(handle: &Handle, subnet: IpNetwork, every: RouteMessage) -> Result<Option<IpAddr>> {
    let network = IpNetwork::new(subnet.network(), subnet.prefix())?;
    let mut routes = handle.route().get(every).execute();
    while let Some(route) = routes.try_next().await.context("list routes")? {
        let gateway = route_message::gateway(&route);
        if gateway.is_some() && route_message::destination(&route) == Some(network) {
            return Ok(gateway);
        }
    }
    Ok(None)
}
