//! What a route message of netlink says.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMessage};

/// The network that a route leads to; none for a default route.
pub(crate) fn destination(route: &RouteMessage) -> Option<IpNetwork> {
    let address = find(route, |attribute| match attribute {
        RouteAttribute::Destination(address) => ip(address),
        _ => None,
    })?;
    IpNetwork::new(address, route.header.destination_prefix_length).ok()
}

/// The router that a route leads to, if there is one.
pub(crate) fn gateway(route: &RouteMessage) -> Option<IpAddr> {
    find(route, |attribute| match attribute {
        RouteAttribute::Gateway(address) => ip(address),
        _ => None,
    })
}

/// Index of the interface that a route leads through.
pub(crate) fn oif(route: &RouteMessage) -> Option<u32> {
    find(route, |attribute| match attribute {
        RouteAttribute::Oif(ifindex) => Some(*ifindex),
        _ => None,
    })
}

fn find<T>(route: &RouteMessage, wanted: impl Fn(&RouteAttribute) -> Option<T>) -> Option<T> {
    route.attributes.iter().find_map(wanted)
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some((*address).into()),
        RouteAddress::Inet6(address) => Some((*address).into()),
        _ => None,
    }
}
