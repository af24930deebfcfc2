//! Reads interfaces, and addresses in other namespaces.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
};

use futures::TryStreamExt as _;
use ipnetwork::Ipv4Network;
use rtnetlink::{
    Handle, RouteMessageBuilder,
    packet_core::DefaultNla,
    packet_route::{
        address::{AddressAttribute, AddressMessage},
        link::{InfoKind, LinkAttribute, LinkInfo, LinkMessage},
        route::{RouteAddress, RouteAttribute, RouteMessage},
    },
    sys::AsyncSocket as _,
};

use super::{Container, Endpoints, EndpointsError};

/// Asks the kernel.
pub(super) struct Reader {
    handle: Handle,
    subnet: Ipv4Network,
}

/// A veth's other side: the kernel's number of its namespace, and its index there.
#[derive(Clone, Copy)]
struct Peer {
    namespace: i32,
    ifindex: u32,
}

impl Reader {
    pub(super) fn new(subnet: Ipv4Network) -> Result<Self, EndpointsError> {
        let (mut connection, handle, _) = rtnetlink::new_connection().map_err(EndpointsError::Socket)?;
        // Without it the kernel takes no notice of which namespace and interface are asked for.
        connection.socket_mut().socket_mut().set_netlink_get_strict_chk(true).map_err(EndpointsError::Socket)?;
        tokio::spawn(connection);
        Ok(Self { handle, subnet })
    }

    /// All containers. One that is `known`, with its address, is not asked again.
    pub(super) async fn read(&self, known: Option<&Endpoints>) -> Result<Endpoints, EndpointsError> {
        let links: Vec<LinkMessage> =
            self.handle.link().get().execute().try_collect().await.map_err(failed("interfaces"))?;
        let addresses: Vec<AddressMessage> =
            self.handle.address().get().execute().try_collect().await.map_err(failed("addresses"))?;
        let own: BTreeMap<Ipv4Addr, u32> =
            addresses.iter().filter_map(|message| Some((self.ours(message)?, message.header.index))).collect();
        let bridges: BTreeSet<u32> = own.values().copied().collect();
        let routed = self.host_routes().await?;
        let mut containers = BTreeMap::new();
        for link in links.iter().filter(|link| is_veth(link)) {
            let index = link.header.index;
            let is_port = master(link).is_some_and(|master| bridges.contains(&master));
            if !is_port && !routed.contains(&index) {
                continue;
            }
            let name = name(link);
            let before = known.and_then(|known| known.containers.get(&index)).filter(|before| before.name == name);
            let container = match before.filter(|before| !before.addresses.is_empty()) {
                Some(settled) => settled.clone(),
                None => self.container(name, peer(link)).await,
            };
            containers.insert(index, container);
        }
        Ok(Endpoints { containers, node: own.into_keys().collect() })
    }

    /// What is on the other side of a veth. A namespace that is going away answers no more; then it is as if it were empty.
    async fn container(&self, name: String, peer: Option<Peer>) -> Container {
        let mut container = Container { name, mac: [0; 6], addresses: BTreeSet::new() };
        let Some(peer) = peer else { return container };
        let mut request = self.handle.address().get();
        request.message_mut().header.index = peer.ifindex;
        request.message_mut().attributes.push(AddressAttribute::TargetNetNsId(peer.namespace));
        let addresses: Vec<AddressMessage> = request.execute().try_collect().await.unwrap_or_default();
        let there = addresses.iter().filter(|message| message.header.index == peer.ifindex);
        container.addresses = there.filter_map(|message| self.ours(message)).collect();
        let mut request = self.handle.link().get().match_index(peer.ifindex);
        request.message_mut().attributes.push(target_namespace(peer.namespace));
        if let Ok(Some(link)) = request.execute().try_next().await {
            container.mac = mac(&link).unwrap_or_default();
        }
        container
    }

    /// The interfaces that host routes inside our subnet lead to.
    async fn host_routes(&self) -> Result<BTreeSet<u32>, EndpointsError> {
        let request = self.handle.route().get(RouteMessageBuilder::<Ipv4Addr>::new().build()).execute();
        let routes: Vec<RouteMessage> = request.try_collect().await.map_err(failed("routes"))?;
        Ok(routes.iter().filter_map(|route| self.host_route(route)).collect())
    }

    fn host_route(&self, route: &RouteMessage) -> Option<u32> {
        let mut to = None;
        let mut by = None;
        for attribute in &route.attributes {
            match attribute {
                RouteAttribute::Destination(RouteAddress::Inet(address)) => to = Some(*address),
                RouteAttribute::Oif(index) => by = Some(*index),
                _ => {}
            }
        }
        by.filter(|_| route.header.destination_prefix_length == 32 && to.is_some_and(|to| self.subnet.contains(to)))
    }

    fn ours(&self, message: &AddressMessage) -> Option<Ipv4Addr> {
        message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Local(IpAddr::V4(address)) if self.subnet.contains(*address) => Some(*address),
            _ => None,
        })
    }
}

/// `IFLA_TARGET_NETNSID` (linux/if_link.h).
fn target_namespace(namespace: i32) -> LinkAttribute {
    const IFLA_TARGET_NETNSID: u16 = 46;
    LinkAttribute::Other(DefaultNla::new(IFLA_TARGET_NETNSID, namespace.to_ne_bytes().to_vec()))
}

fn failed(what: &'static str) -> impl FnOnce(rtnetlink::Error) -> EndpointsError {
    move |source| EndpointsError::Read { what, source }
}

fn name(link: &LinkMessage) -> String {
    let name = link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.clone()),
        _ => None,
    });
    name.unwrap_or_default()
}

fn mac(link: &LinkMessage) -> Option<[u8; 6]> {
    link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Address(mac) => mac.as_slice().try_into().ok(),
        _ => None,
    })
}

fn master(link: &LinkMessage) -> Option<u32> {
    link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Controller(index) => Some(*index),
        _ => None,
    })
}

fn is_veth(link: &LinkMessage) -> bool {
    link.attributes.iter().any(|attribute| match attribute {
        LinkAttribute::LinkInfo(infos) => infos.contains(&LinkInfo::Kind(InfoKind::Veth)),
        _ => false,
    })
}

fn peer(link: &LinkMessage) -> Option<Peer> {
    let mut namespace = None;
    let mut ifindex = None;
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::LinkNetNsId(id) => namespace = Some(*id),
            LinkAttribute::Link(index) => ifindex = Some(*index),
            _ => {}
        }
    }
    Some(Peer { namespace: namespace?, ifindex: ifindex? })
}
