//! The overlay device's addresses, and the one route of each address family to it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use futures::TryStreamExt;
use ipnetwork::IpNetwork;
use rtnetlink::packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage};
use rtnetlink::packet_route::link::LinkMessage;
use rtnetlink::packet_route::route::{RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope};
use rtnetlink::{Handle, RouteMessageBuilder};

use crate::network::Range;
use crate::route_message::{destination, oif};

use super::{LinkConfig, LinkError, name, netlink, overlay_of};

/// Whether the device has its addresses and the routes to the networks, as [`assign`] and [`route`] set them.
pub(super) async fn is_in_place(handle: &Handle, config: &LinkConfig, ifindex: u32) -> Result<bool, LinkError> {
    let assigned: Vec<_> = addresses(handle, config, ifindex).await?.iter().filter_map(local).collect();
    let routes = main_routes(handle).await?;
    let is_routed =
        |network| routes.iter().any(|route| (destination(route), oif(route)) == (Some(network), Some(ifindex)));
    let has_addresses = wanted(config).all(|address| assigned.contains(&address));
    Ok(has_addresses && config.ranges().all(|range| is_routed(range.network)))
}

/// Gives the device its /32 and /128 and takes away what is left over from an earlier subnet: what else it has inside the
/// networks, and single addresses of a family that another device has now.
pub(super) async fn assign(handle: &Handle, config: &LinkConfig, ifindex: u32) -> Result<(), LinkError> {
    let name = config.name();
    let mut missing: Vec<IpNetwork> = wanted(config).collect();
    for old in addresses(handle, config, ifindex).await? {
        let Some(address) = local(&old) else { continue };
        if missing.contains(&address) {
            missing.retain(|wanted| *wanted != address);
        } else if is_left_over(config, address) {
            let action = format!("remove address {} from {name}", address.ip());
            handle.address().del(old).execute().await.map_err(netlink(action))?;
        }
    }
    for address in missing {
        let mut add = handle.address().add(ifindex, address.ip(), address.prefix());
        // Nobody else can have it: our lease says so. And until it is known to be nobody's it is no source of a route.
        add.message_mut().header.flags |= AddressHeaderFlags::Nodad;
        add.execute().await.map_err(netlink(format!("add address {address} to {name}")))?;
    }
    Ok(())
}

fn is_left_over(config: &LinkConfig, address: IpNetwork) -> bool {
    let mut of_family = config.ranges().filter(|range| range.network.is_ipv4() == address.is_ipv4()).peekable();
    match of_family.peek() {
        Some(range) => range.network.contains(address.ip()),
        None => address == IpNetwork::from(address.ip()),
    }
}

/// Refuses a route of an overlay network to a device that is not of this overlay.
pub(super) async fn refuse(handle: &Handle, config: &LinkConfig, links: &[LinkMessage]) -> Result<(), LinkError> {
    let own_name = config.name();
    for route in main_routes(handle).await? {
        let (Some(network), Some(oif)) = (destination(&route), oif(&route)) else { continue };
        let holder = links.iter().find(|link| link.header.index == oif).map_or("another device", name);
        if overlay_of(holder) != overlay_of(&own_name) && config.ranges().any(|range| range.network == network) {
            return Err(LinkError::RouteTaken { network, name: own_name, holder: holder.to_owned() });
        }
    }
    Ok(())
}

/// Routes the overlay networks to the device, and nothing else.
pub(super) async fn route(handle: &Handle, config: &LinkConfig, ifindex: u32) -> Result<(), LinkError> {
    let own_name = config.name();
    for route in main_routes(handle).await? {
        // What the kernel has made goes with the address that it was made for, or with the device.
        if oif(&route) != Some(ifindex) || route.header.protocol == RouteProtocol::Kernel {
            continue;
        }
        let Some(other) = destination(&route) else { continue };
        if config.ranges().all(|range| range.network != other) {
            let action = format!("remove route {other} dev {own_name}");
            handle.route().del(route).execute().await.map_err(netlink(action))?;
        }
    }
    for range in config.ranges() {
        let add = handle.route().add(route_to(range, ifindex)).replace().execute();
        add.await.map_err(netlink(format!("route {} to {own_name}", range.network)))?;
    }
    Ok(())
}

/// The route of the whole network to the device, with the device's own address as source.
fn route_to(range: Range<IpNetwork>, ifindex: u32) -> RouteMessage {
    let mut message = match range.network {
        IpNetwork::V4(network) => RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(network.network(), network.prefix())
            .output_interface(ifindex)
            .scope(RouteScope::Link)
            .build(),
        IpNetwork::V6(network) => RouteMessageBuilder::<Ipv6Addr>::new()
            .destination_prefix(network.network(), network.prefix())
            .output_interface(ifindex)
            .build(),
    };
    message.attributes.push(RouteAttribute::PrefSource(range.subnet.network().into()));
    message
}

/// The addresses that the device is to have.
fn wanted(config: &LinkConfig) -> impl Iterator<Item = IpNetwork> {
    config.ranges().map(address_of).chain(config.ipv4_to_receive.map(|address| IpAddr::from(address).into()))
}

/// The device's address in a network: the network address of our subnet, as flannel has it, and a network of its own.
fn address_of(range: Range<IpNetwork>) -> IpNetwork {
    range.subnet.network().into()
}

async fn addresses(handle: &Handle, config: &LinkConfig, ifindex: u32) -> Result<Vec<AddressMessage>, LinkError> {
    let list = handle.address().get().set_link_index_filter(ifindex).execute();
    list.try_collect().await.map_err(netlink(format!("list addresses of {}", config.name())))
}

/// The routes of the main table.
async fn main_routes(handle: &Handle) -> Result<Vec<RouteMessage>, LinkError> {
    let mut routes: Vec<RouteMessage> = Vec::new();
    let families = [RouteMessageBuilder::<Ipv4Addr>::new().build(), RouteMessageBuilder::<Ipv6Addr>::new().build()];
    for family in families {
        let list = handle.route().get(family).execute();
        routes.extend(list.try_collect::<Vec<_>>().await.map_err(netlink("list routes".to_owned()))?);
    }
    routes.retain(|route| route.header.table == RouteHeader::RT_TABLE_MAIN);
    Ok(routes)
}

fn local(message: &AddressMessage) -> Option<IpNetwork> {
    // On a point-to-point link IFA_ADDRESS is the other end's, and IFA_LOCAL ours; IPv6 mostly has the former alone.
    let find = |wanted: fn(&AddressAttribute) -> Option<IpAddr>| message.attributes.iter().find_map(wanted);
    let address = find(|attribute| if let AddressAttribute::Local(local) = attribute { Some(*local) } else { None })
        .or_else(|| find(|attribute| if let AddressAttribute::Address(ip) = attribute { Some(*ip) } else { None }))?;
    IpNetwork::new(address, message.header.prefix_len).ok()
}
