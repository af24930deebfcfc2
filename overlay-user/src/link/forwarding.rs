//! [`forward_to`]: the nodes that an overlay device itself sends packets to.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv6Addr},
};

use futures::TryStreamExt as _;
use rtnetlink::{
    Handle,
    packet_route::{
        AddressFamily,
        neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage},
    },
};

use super::{LinkError, OverlayLink, error::netlink};
use crate::mac::Mac;

/// Makes `device`, the overlay device over IPv6, send packets for these MAC addresses to these nodes, and others to nobody: its
/// forwarding database (`bridge fdb show dev overlay-v6.N`). Entries of an earlier agent are taken over.
///
/// # Errors
/// [`LinkError::Netlink`].
pub async fn forward_to(
    handle: &Handle,
    device: &OverlayLink,
    wanted: &BTreeMap<Mac, Ipv6Addr>,
) -> Result<(), LinkError> {
    let name = &device.name;
    let request = handle.neighbours().get().set_address_family(AddressFamily::Bridge).execute();
    let all: Vec<_> = request.try_collect().await.map_err(netlink(format!("list the forwarding entries of {name}")))?;
    let found: BTreeMap<_, _> = all.iter().filter_map(|message| entry(message, device.ifindex)).collect();
    for (mac, node) in found.iter().filter(|(mac, _)| !wanted.contains_key(mac)) {
        let deleted = handle.neighbours().del(message(device.ifindex, *mac, *node)).execute().await;
        deleted.map_err(netlink(format!("remove the forwarding entry of {mac} from {name}")))?;
    }
    for (mac, node) in wanted.iter().filter(|(mac, node)| found.get(mac) != Some(node)) {
        let added = handle.neighbours().add_bridge(device.ifindex, &mac.0).destination(IpAddr::V6(*node));
        let added = added.flags(NeighbourFlags::Own).replace().execute().await;
        added.map_err(netlink(format!("forward what is for {mac} on {name} to {node}")))?;
    }
    Ok(())
}

/// The entry that a message tells of, if it is one of the device with index `ifindex`.
fn entry(message: &NeighbourMessage, ifindex: u32) -> Option<(Mac, Ipv6Addr)> {
    if message.header.ifindex != ifindex {
        return None;
    }
    let mac = message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::LinkLayerAddress(bytes) => bytes.as_slice().try_into().ok().map(Mac),
        _ => None,
    })?;
    let node = message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::Destination(NeighbourAddress::Inet6(node)) => Some(*node),
        // The message's family is that of bridges, which says nothing about the address.
        NeighbourAttribute::Destination(NeighbourAddress::Other(bytes)) => {
            <[u8; 16]>::try_from(bytes.as_slice()).ok().map(Ipv6Addr::from)
        }
        _ => None,
    })?;
    Some((mac, node))
}

fn message(ifindex: u32, mac: Mac, node: Ipv6Addr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Bridge;
    message.header.ifindex = ifindex;
    message.header.flags = NeighbourFlags::Own;
    message.attributes = vec![
        NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()),
        NeighbourAttribute::Destination(NeighbourAddress::Inet6(node)),
    ];
    message
}
