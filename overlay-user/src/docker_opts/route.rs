//! Whether packets for the containers would leave the node.

use std::net::Ipv4Addr;

use anyhow::{Context as _, Result};
use futures::TryStreamExt as _;
use ipnetwork::Ipv4Network;
use rtnetlink::{
    RouteMessageBuilder,
    packet_route::route::{RouteAddress, RouteAttribute},
};

use crate::subnet_file::PreviousSubnetFile;

/// The subnet of `subnet_env` and the gateway that this node has for it, if any: Docker's bridge would be passed by.
///
/// # Errors
/// When the kernel does not tell its routes.
pub async fn routed_away(subnet_env: &str) -> Result<Option<(Ipv4Network, Ipv4Addr)>> {
    let Some(subnet) = PreviousSubnetFile::parse(subnet_env).subnet else { return Ok(None) };
    let (connection, handle, _) = rtnetlink::new_connection().context("open a netlink socket")?;
    tokio::spawn(connection);
    let mut routes = handle.route().get(RouteMessageBuilder::<Ipv4Addr>::new().build()).execute();
    while let Some(route) = routes.try_next().await.context("list routes")? {
        let is_ours = route.header.destination_prefix_length == subnet.prefix()
            && route.attributes.contains(&RouteAttribute::Destination(RouteAddress::Inet(subnet.network())));
        let gateway = route.attributes.iter().find_map(|attribute| match attribute {
            RouteAttribute::Gateway(RouteAddress::Inet(gateway)) => Some(*gateway),
            _ => None,
        });
        if let Some(gateway) = gateway.filter(|_| is_ours) {
            return Ok(Some((subnet, gateway)));
        }
    }
    Ok(None)
}
