//! [`Known`]: what the maps say of this node and of others, for a packet of either family.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::Path,
};

use anyhow::Result;
use ipnetwork::IpNetwork;
use overlay_common::{Address, Device, Encapsulation, Endpoint, LocalNode, Route};

use super::packet::Packet;
use crate::maps::{EndpointsMap, Family, LocalNodeMap, Routes};

/// What stands for underlay addresses that no node has (RFC 5737 and RFC 3849).
const NO_NODE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const NO_NODE_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);

/// What the maps say, read once.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) node: LocalNode,
    pub(super) kind: Encapsulation,
    /// Of both families, as the containers.
    routes: BTreeMap<IpNetwork, Route>,
    pub(super) endpoints: BTreeMap<IpAddr, Endpoint>,
}

impl Known {
    /// Reads the maps in `maps`, of an overlay with this encapsulation.
    ///
    /// # Errors
    /// When they cannot be read.
    pub(super) fn read(maps: &Path, kind: Encapsulation) -> Result<Self> {
        let node = LocalNodeMap::open(maps)?.get()?;
        let mut known = Self { node, kind, routes: BTreeMap::new(), endpoints: BTreeMap::new() };
        known.read_family::<[u8; 4]>(maps)?;
        known.read_family::<[u8; 16]>(maps)?;
        Ok(known)
    }

    /// Reads the maps of one family, if the overlay has it.
    fn read_family<A: Family>(&mut self, maps: &Path) -> Result<()> {
        let range = self.node.range::<A>();
        if range.is_on() {
            let routes = Routes::<A>::open(maps, range.subnet().1)?.all()?;
            self.routes.extend(routes.into_iter().map(|(subnet, route)| (subnet.into(), route)));
            let endpoints = EndpointsMap::<A>::open(maps)?.all()?;
            self.endpoints.extend(endpoints.into_iter().map(|(address, endpoint)| (address.into(), endpoint)));
        }
        Ok(())
    }

    /// The packet in a tunnel, from the node that owns the subnet of its source: from nobody's address, if none does.
    pub(super) fn tunnelled(&self, packet: &Packet) -> Result<Vec<u8>> {
        let route = self.routes.iter().find(|(subnet, _)| subnet.contains(packet.source())).map(|(_, route)| *route);
        let sender = match route {
            Some(route) => (route.next_hop().ip(), route.vtep_mac()),
            // Inside and outside are of one family as a rule.
            None if Some(self.usual_device(packet.source())) == self.node.device::<[u8; 4]>() => {
                (NO_NODE.into(), [0; 6])
            }
            None => (NO_NODE_V6.into(), [0; 6]),
        };
        // The other node has taken one off the TTL.
        packet.forwarded().tunnelled(&self.node, sender, self.kind)
    }

    /// The overlay device for packets of the family of `address`, inside or outside.
    pub(super) fn usual_device(&self, address: IpAddr) -> Device {
        match address {
            IpAddr::V4(_) => self.node.usual_device::<[u8; 4]>(),
            IpAddr::V6(_) => self.node.usual_device::<[u8; 16]>(),
        }
    }

    /// Whether the address is in this node's subnet.
    pub(super) fn is_here(&self, address: IpAddr) -> bool {
        fn is_in<A: Address>(node: &LocalNode, address: A) -> bool {
            let range = node.range::<A>();
            range.is_on() && range.in_subnet(address)
        }
        match address {
            IpAddr::V4(address) => is_in(&self.node, address.octets()),
            IpAddr::V6(address) => is_in(&self.node, address.octets()),
        }
    }

    /// Whether the address is that of one of the node's tunnel ends.
    pub(super) fn is_vtep(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => self.node.vtep::<[u8; 4]>().address == address,
            IpAddr::V6(address) => self.node.vtep::<[u8; 16]>().address == address,
        }
    }

    /// Whether the address is the node's own: no container sends from it.
    pub(super) fn is_own(&self, address: IpAddr) -> bool {
        self.endpoints.get(&address).is_some_and(|endpoint| endpoint.ifindex() == 0)
    }
}
