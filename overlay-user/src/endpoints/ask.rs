//! Asks the kernel for interfaces here and inside containers.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr},
};

use futures::{Stream, TryStreamExt as _};
use ipnetwork::IpNetwork;
use rtnetlink::{
    Handle, RouteMessageBuilder,
    packet_core::DefaultNla,
    packet_route::{
        AddressFamily,
        address::AddressAttribute,
        link::{LinkAttribute, LinkMessage},
        route::RouteProtocol,
    },
};

use super::{EndpointsError, fact::Fact, interfaces::Inside};

/// `IFLA_TARGET_NETNSID` (linux/if_link.h).
const IFLA_TARGET_NETNSID: u16 = 46;

/// Asks the kernel.
pub(super) struct Asker {
    handle: Handle,
    /// The address families that are asked for.
    families: Vec<AddressFamily>,
}

impl Asker {
    /// Asks for addresses and routes of the families of `subnets`. Must be called in the node's network namespace and in a
    /// tokio runtime.
    pub(super) fn new(subnets: &[IpNetwork]) -> io::Result<Self> {
        // Strict: otherwise the kernel takes no notice of which namespace and interface are asked for.
        let (connection, handle, _) = rtnetlink::new_connection_with_strict_check()?;
        tokio::spawn(connection);
        let family = |subnet: &IpNetwork| if subnet.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        Ok(Self { handle, families: subnets.iter().map(family).collect() })
    }

    /// All interfaces, addresses and host routes of the node.
    pub(super) async fn everything(&self) -> Result<Vec<Fact>, EndpointsError> {
        let mut facts = Vec::new();
        facts.extend(self.links().await?.iter().map(Fact::link));
        for &family in &self.families {
            let mut request = self.handle.address().get();
            request.message_mut().header.family = family;
            let addresses = all("addresses", request.execute()).await?;
            facts.extend(addresses.iter().filter_map(|message| Fact::address(message, true)));
            // Whoever has set them: asked as the builder has it, the kernel leaves out those of CNI's ptp.
            let request = match family {
                AddressFamily::Inet => RouteMessageBuilder::<Ipv4Addr>::new().protocol(RouteProtocol::Unspec).build(),
                _ => RouteMessageBuilder::<Ipv6Addr>::new().protocol(RouteProtocol::Unspec).build(),
            };
            let routes = self.handle.route().get(request).execute();
            facts.extend(all("routes", routes).await?.iter().filter_map(|message| Fact::host_route(message, true)));
        }
        Ok(facts)
    }

    /// All interfaces of the node, as the kernel tells of them.
    pub(super) async fn links(&self) -> Result<Vec<LinkMessage>, EndpointsError> {
        all("interfaces", self.handle.link().get().execute()).await
    }

    /// The node's interface with index `ifindex`.
    pub(super) async fn link(&self, ifindex: u32) -> Result<Fact, EndpointsError> {
        let link = self.handle.link().get().match_index(ifindex).execute();
        let links = answered(all("an interface", link).await)?;
        Ok(links.iter().flatten().next().map_or(Fact::LinkGone(ifindex), Fact::link))
    }

    /// The interface with index `ifindex` in `namespace`. None where there is none any more, and where the kernel does
    /// not tell us.
    pub(super) async fn inside(&self, namespace: i32, ifindex: u32) -> Result<Option<Inside>, EndpointsError> {
        let link = self.link_inside(namespace, ifindex).await?;
        let Some(Fact::Link(link)) = link.as_ref().map(Fact::link) else { return Ok(None) };

        let mut inside = Inside { mac: link.mac, ..Inside::default() };
        for &family in &self.families {
            let mut request = self.handle.address().get();
            let message = request.message_mut();
            message.header.family = family;
            message.header.index = ifindex;
            message.attributes.push(AddressAttribute::TargetNetNsId(namespace));
            let addresses = answered(all("a container's addresses", request.execute()).await)?.unwrap_or_default();
            inside.addresses.extend(addresses.iter().filter_map(|message| match Fact::address(message, true)? {
                Fact::Address { address, present: true, .. } => Some(address),
                _ => None,
            }));
        }
        Ok(Some(inside))
    }

    /// The interface with index `ifindex` in `namespace`, as the kernel tells of it; none as with [`inside`](Self::inside).
    pub(super) async fn link_inside(
        &self,
        namespace: i32,
        ifindex: u32,
    ) -> Result<Option<LinkMessage>, EndpointsError> {
        let mut request = self.handle.link().get().match_index(ifindex);
        let target = DefaultNla::new(IFLA_TARGET_NETNSID, namespace.to_ne_bytes().to_vec());
        request.message_mut().attributes.push(LinkAttribute::Other(target));
        let links = answered(all("a container's interface", request.execute()).await)?;
        Ok(links.unwrap_or_default().into_iter().next())
    }
}

async fn all<T>(
    what: &'static str,
    stream: impl Stream<Item = Result<T, rtnetlink::Error>>,
) -> Result<Vec<T>, EndpointsError> {
    stream.try_collect().await.map_err(|source| EndpointsError::Read { what, source })
}

/// Takes the kernel's "no" for an answer: what was asked for has gone meanwhile.
fn answered<T>(result: Result<T, EndpointsError>) -> Result<Option<T>, EndpointsError> {
    match result {
        Ok(answer) => Ok(Some(answer)),
        Err(EndpointsError::Read { what, source: rtnetlink::Error::NetlinkError(error) }) => {
            tracing::debug!(%error, "no answer to a question for {what}");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}
