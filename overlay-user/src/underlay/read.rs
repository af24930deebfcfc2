//! Asks the kernel for interfaces, addresses and routes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use futures::{Stream, StreamExt, TryStreamExt};
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope};
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags, LinkLayerType, LinkMessage};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage};
use rtnetlink::{Handle, RouteMessageBuilder};

use crate::link;

use super::{Address, Interface, RouteInfo, Routes, Underlay, UnderlayChoice, UnderlayError, choose};

/// Reads the interfaces of this network namespace and chooses the underlay among them.
///
/// # Errors
/// Those of [`read`] and [`choose`].
pub async fn select(handle: &Handle, choice: &UnderlayChoice) -> Result<Underlay, UnderlayError> {
    let (interfaces, routes) = read(handle, choice.iface_can_reach).await?;
    choose(&interfaces, &routes, choice)
}

/// Reads all interfaces with their addresses, the default routes and, if asked for, the route to `reach`.
///
/// # Errors
/// [`UnderlayError::Netlink`] when the kernel refuses.
pub async fn read(handle: &Handle, reach: Option<IpAddr>) -> Result<(Vec<Interface>, Routes), UnderlayError> {
    let interfaces = interfaces(handle).await?;
    let default = default_routes(handle, RouteMessageBuilder::<Ipv4Addr>::new().build()).await?;
    let default_ipv6 = default_routes(handle, RouteMessageBuilder::<Ipv6Addr>::new().build()).await?;
    let reach = match reach {
        Some(target) => route_to(handle, target).await,
        None => None,
    };
    Ok((interfaces, Routes { default, default_ipv6, reach }))
}

/// The default routes of one family, whose request for all routes is `every`.
async fn default_routes(handle: &Handle, every: RouteMessage) -> Result<Vec<RouteInfo>, UnderlayError> {
    let messages = collect("routes", handle.route().get(every).execute()).await?;
    Ok(messages.iter().filter(|message| is_default(message)).filter_map(route_info).collect())
}

/// Reads all interfaces with their addresses.
pub(super) async fn interfaces(handle: &Handle) -> Result<Vec<Interface>, UnderlayError> {
    let links = collect("interfaces", handle.link().get().execute()).await?;
    let addresses = collect("addresses", handle.address().get().execute()).await?;
    Ok(links.iter().map(|link| interface(link, &addresses)).collect())
}

async fn collect<T>(
    what: &'static str,
    stream: impl Stream<Item = Result<T, rtnetlink::Error>>,
) -> Result<Vec<T>, UnderlayError> {
    stream.try_collect().await.map_err(|source| UnderlayError::Netlink { what, source })
}

/// The route that a packet to `target` would take; the kernel's refusal means that there is none.
async fn route_to(handle: &Handle, target: IpAddr) -> Option<RouteInfo> {
    let message = match target {
        IpAddr::V4(target) => RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(target, 32).build(),
        IpAddr::V6(target) => RouteMessageBuilder::<Ipv6Addr>::new().destination_prefix(target, 128).build(),
    };
    let answer = std::pin::pin!(handle.route().get(message).execute()).next().await;
    answer?.ok().as_ref().and_then(route_info)
}

fn interface(link: &LinkMessage, addresses: &[AddressMessage]) -> Interface {
    let mut name = String::new();
    let mut mtu = 0;
    let mut mac = None;
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::IfName(value) => name.clone_from(value),
            LinkAttribute::Mtu(value) => mtu = *value,
            LinkAttribute::Address(value) => mac = value.as_slice().try_into().ok(),
            _ => {}
        }
    }
    let flags = link.header.flags;
    let own = || addresses.iter().filter(|address| address.header.index == link.header.index);
    let loopback = flags.contains(LinkFlags::Loopback);
    Interface {
        name,
        ifindex: link.header.index,
        mtu,
        mac: mac.filter(|_| link.header.link_layer_type == LinkLayerType::Ether),
        loopback,
        overlay: link::is_overlay_device(link),
        up: flags.contains(LinkFlags::Up),
        carrier: flags.contains(LinkFlags::LowerUp),
        addresses: own().filter_map(ipv4_address).collect(),
        ipv6_addresses: own().filter_map(ipv6_address).collect(),
    }
}

fn ipv4_address(message: &AddressMessage) -> Option<Address<Ipv4Addr>> {
    let (ip, flags) = address(message)?;
    let IpAddr::V4(ip) = ip else { return None };
    Some(Address {
        ip,
        link_local: message.header.scope == AddressScope::Link || ip.is_link_local(),
        permanent: flags.contains(AddressFlags::Permanent),
        unfit: flags.contains(AddressFlags::Deprecated),
    })
}

fn ipv6_address(message: &AddressMessage) -> Option<Address<Ipv6Addr>> {
    let (ip, flags) = address(message)?;
    let IpAddr::V6(ip) = ip else { return None };
    let link_local = ip.is_unicast_link_local();
    // The kernel calls an IPv4 address that is not the first of its network by the number of "temporary".
    let unfit = AddressFlags::Deprecated | AddressFlags::Secondary | AddressFlags::Tentative | AddressFlags::Dadfailed;
    let address =
        Address { ip, link_local, permanent: flags.contains(AddressFlags::Permanent), unfit: flags.intersects(unfit) };
    (!link_local).then_some(address)
}

/// The interface's own address, and what the kernel says of it.
fn address(message: &AddressMessage) -> Option<(IpAddr, AddressFlags)> {
    if message.header.scope == AddressScope::Host {
        return None;
    }
    let (mut local, mut other) = (None, None);
    let mut flags = AddressFlags::from_bits_retain(u32::from(message.header.flags.bits()));
    for attribute in &message.attributes {
        match attribute {
            // On a point-to-point link IFA_ADDRESS is the other end's; otherwise IPv6 has no IFA_LOCAL.
            AddressAttribute::Local(address) => local = Some(*address),
            AddressAttribute::Address(address) => other = Some(*address),
            AddressAttribute::Flags(value) => flags = *value,
            _ => {}
        }
    }
    local.or(other).map(|ip| (ip, flags))
}

/// Whether `message` is a default route of the main table.
fn is_default(message: &RouteMessage) -> bool {
    message.header.destination_prefix_length == 0 && message.header.table == RouteHeader::RT_TABLE_MAIN
}

pub(super) fn route_info(message: &RouteMessage) -> Option<RouteInfo> {
    let mut ifindex = None;
    let mut source = None;
    let mut metric = 0;
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Oif(index) => ifindex = Some(*index),
            RouteAttribute::MultiPath(hops) => ifindex = ifindex.or(hops.first().map(|hop| hop.interface_index)),
            RouteAttribute::PrefSource(RouteAddress::Inet(address)) => source = Some((*address).into()),
            RouteAttribute::PrefSource(RouteAddress::Inet6(address)) => source = Some((*address).into()),
            RouteAttribute::Priority(priority) => metric = *priority,
            _ => {}
        }
    }
    ifindex.map(|ifindex| RouteInfo { ifindex, source, metric })
}
