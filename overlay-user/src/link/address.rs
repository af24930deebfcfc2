//! The overlay device's address, and the one route to it.

use std::net::{IpAddr, Ipv4Addr};

use futures::TryStreamExt;
use ipnetwork::Ipv4Network;
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage};
use rtnetlink::packet_route::link::LinkMessage;
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteScope};
use rtnetlink::{Handle, RouteMessageBuilder};

use super::{LinkConfig, LinkError, name, netlink};

/// Whether the device has its address and the route to the network, as [`assign`] and [`route`] set them.
pub(super) async fn is_in_place(handle: &Handle, config: &LinkConfig, ifindex: u32) -> Result<bool, LinkError> {
    let assigned = addresses(handle, config, ifindex).await?;
    let assigned = assigned.iter().filter_map(local).any(|address| address == (config.address(), 32));
    let routed = main_routes(handle).await?;
    let routed = routed.iter().any(|route| (destination(route), oif(route)) == (Some(config.network), Some(ifindex)));
    Ok(assigned && routed)
}

/// Gives the device its /32 and takes away what else it has inside the network, left over from an earlier subnet.
pub(super) async fn assign(handle: &Handle, config: &LinkConfig, ifindex: u32) -> Result<(), LinkError> {
    let name = config.name();
    let address = config.address();
    let mut assigned = false;
    for old in addresses(handle, config, ifindex).await? {
        match local(&old) {
            Some(old) if old == (address, 32) => assigned = true,
            Some((old_address, _)) if config.network.contains(old_address) => {
                let action = format!("remove address {old_address} from {name}");
                handle.address().del(old).execute().await.map_err(netlink(action))?;
            }
            _ => {}
        }
    }
    if assigned {
        return Ok(());
    }
    let add = handle.address().add(ifindex, IpAddr::V4(address), 32).execute();
    add.await.map_err(netlink(format!("add address {address}/32 to {name}")))
}

/// Refuses a route of the overlay network to another device.
pub(super) async fn refuse(handle: &Handle, config: &LinkConfig, links: &[LinkMessage]) -> Result<(), LinkError> {
    let (own_name, network) = (config.name(), config.network);
    let holder = |route: &RouteMessage| {
        let oif = oif(route).filter(|_| destination(route) == Some(network))?;
        let holder = links.iter().find(|link| link.header.index == oif).map_or("another device", name);
        (holder != own_name).then(|| holder.to_owned())
    };
    match main_routes(handle).await?.iter().find_map(holder) {
        Some(holder) => Err(LinkError::RouteTaken { network, name: own_name, holder }),
        None => Ok(()),
    }
}

/// Routes the overlay network to the device, and nothing else.
pub(super) async fn route(handle: &Handle, config: &LinkConfig, ifindex: u32) -> Result<(), LinkError> {
    let own_name = config.name();
    let network = config.network;
    for route in main_routes(handle).await? {
        match (destination(&route), oif(&route)) {
            (Some(other), Some(oif)) if oif == ifindex && other != network => {
                let action = format!("remove route {other} dev {own_name}");
                handle.route().del(route).execute().await.map_err(netlink(action))?;
            }
            _ => {}
        }
    }
    let message = RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(network.network(), network.prefix())
        .output_interface(ifindex)
        .scope(RouteScope::Link)
        .pref_source(config.address())
        .build();
    let add = handle.route().add(message).replace().execute();
    add.await.map_err(netlink(format!("route {network} to {own_name}")))
}

async fn addresses(handle: &Handle, config: &LinkConfig, ifindex: u32) -> Result<Vec<AddressMessage>, LinkError> {
    let list = handle.address().get().set_link_index_filter(ifindex).execute();
    list.try_collect().await.map_err(netlink(format!("list addresses of {}", config.name())))
}

/// The IPv4 routes of the main table.
async fn main_routes(handle: &Handle) -> Result<Vec<RouteMessage>, LinkError> {
    let list = handle.route().get(RouteMessageBuilder::<Ipv4Addr>::new().build()).execute();
    let mut routes: Vec<RouteMessage> = list.try_collect().await.map_err(netlink("list routes".to_owned()))?;
    routes.retain(|route| route.header.table == RouteHeader::RT_TABLE_MAIN);
    Ok(routes)
}

fn local(message: &AddressMessage) -> Option<(Ipv4Addr, u8)> {
    message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(IpAddr::V4(address)) => Some((*address, message.header.prefix_len)),
        _ => None,
    })
}

fn destination(route: &RouteMessage) -> Option<Ipv4Network> {
    route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(RouteAddress::Inet(address)) => {
            Ipv4Network::new(*address, route.header.destination_prefix_length).ok()
        }
        _ => None,
    })
}

/// The interface that a route leads through.
pub(super) fn oif(route: &RouteMessage) -> Option<u32> {
    route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Oif(ifindex) => Some(*ifindex),
        _ => None,
    })
}
