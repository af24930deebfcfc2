//! What a netlink message says, as far as it matters here.

use std::net::IpAddr;

use rtnetlink::packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressFlags, AddressMessage},
    link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage},
    nsid::NsidAttribute,
    route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteType},
};

/// Something about interfaces that is so now, in the namespace that it was heard from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fact {
    /// There is an interface.
    Link(Link),
    /// There is none of this index any more.
    LinkGone(u32),
    /// An interface has an address, or has it no longer.
    Address { ifindex: u32, address: IpAddr, present: bool },
    /// A route to a single address is there, or is no longer.
    HostRoute(HostRoute, bool),
    /// The number of a namespace is free: the namespace is going away.
    NamespaceGone(i32),
}

/// An interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) ifindex: u32,
    pub(super) name: String,
    pub(super) kind: Kind,
    /// The bridge that it is a port of, or another master.
    pub(super) master: Option<u32>,
    /// The other side of a veth.
    pub(super) peer: Option<Peer>,
    pub(super) mac: [u8; 6],
    /// In bytes.
    pub(super) mtu: u32,
    pub(super) up: bool,
}

/// Kinds of interfaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Bridge,
    Veth,
    Other,
}

/// An interface as seen from the node: the kernel's number of its namespace (none: the node's own), and its index there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Peer {
    pub(super) namespace: Option<i32>,
    pub(super) ifindex: u32,
}

/// A route of the main table to a single address through an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct HostRoute {
    pub(super) to: IpAddr,
    /// Routes to one address differ in it.
    pub(super) metric: u32,
    pub(super) ifindex: u32,
}

impl Fact {
    /// The fact that `message` tells, if it tells one.
    pub(super) fn of(message: &RouteNetlinkMessage) -> Option<Self> {
        match message {
            RouteNetlinkMessage::NewLink(link) if is_of_interface(link) => Some(Self::link(link)),
            RouteNetlinkMessage::DelLink(link) if is_of_interface(link) => Some(Self::LinkGone(link.header.index)),
            RouteNetlinkMessage::NewAddress(address) => Self::address(address, true),
            RouteNetlinkMessage::DelAddress(address) => Self::address(address, false),
            RouteNetlinkMessage::NewRoute(route) => Self::host_route(route, true),
            RouteNetlinkMessage::DelRoute(route) => Self::host_route(route, false),
            RouteNetlinkMessage::DelNsId(namespace) => {
                namespace.attributes.iter().find_map(|attribute| match attribute {
                    NsidAttribute::Id(id) => Some(Self::NamespaceGone(*id)),
                    _ => None,
                })
            }
            _ => None,
        }
    }

    pub(super) fn link(message: &LinkMessage) -> Self {
        let mut link = Link {
            ifindex: message.header.index,
            name: String::new(),
            kind: Kind::Other,
            master: None,
            peer: None,
            mac: [0; 6],
            mtu: 0,
            up: message.header.flags.contains(LinkFlags::Up),
        };
        let (mut namespace, mut other_side) = (None, None);
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name.clone_from(name),
                LinkAttribute::Address(mac) => link.mac = mac.as_slice().try_into().unwrap_or_default(),
                LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
                LinkAttribute::Controller(master) => link.master = Some(*master),
                LinkAttribute::LinkInfo(infos) => link.kind = kind(infos),
                LinkAttribute::LinkNetNsId(id) => namespace = Some(*id),
                // 0: the other side is not there yet, or no longer.
                LinkAttribute::Link(ifindex) => other_side = Some(*ifindex).filter(|&ifindex| ifindex != 0),
                _ => {}
            }
        }
        // A negative number: the namespace is going away.
        let reachable = namespace.is_none_or(|id| id >= 0);
        link.peer = other_side.filter(|_| reachable).map(|ifindex| Peer { namespace, ifindex });
        Self::Link(link)
    }

    pub(super) fn address(message: &AddressMessage, present: bool) -> Option<Self> {
        let (mut local, mut other) = (None, None);
        let mut flags = AddressFlags::empty();
        for attribute in &message.attributes {
            match attribute {
                // On a point-to-point link IFA_ADDRESS is the other end's; otherwise IPv6 has no IFA_LOCAL.
                AddressAttribute::Local(address) => local = Some(*address),
                AddressAttribute::Address(address) => other = Some(*address),
                AddressAttribute::Flags(value) => flags = *value,
                _ => {}
            }
        }
        // As long as the kernel asks whether another has it, and when another has it, it is not the interface's. An
        // optimistic one is used meanwhile.
        let tentative = flags.contains(AddressFlags::Tentative) && !flags.contains(AddressFlags::Optimistic);
        let (ifindex, address) = (message.header.index, local.or(other)?);
        Some(Self::Address { ifindex, address, present: present && !tentative })
    }

    pub(super) fn host_route(message: &RouteMessage, present: bool) -> Option<Self> {
        let header = &message.header;
        let (mut to, mut ifindex, mut metric) = (None, None, 0);
        for attribute in &message.attributes {
            match attribute {
                RouteAttribute::Destination(RouteAddress::Inet(address)) => to = Some(IpAddr::from(*address)),
                RouteAttribute::Destination(RouteAddress::Inet6(address)) => to = Some(IpAddr::from(*address)),
                RouteAttribute::Oif(index) => ifindex = Some(*index),
                RouteAttribute::Priority(priority) => metric = *priority,
                _ => {}
            }
        }
        let route = HostRoute { to: to?, metric, ifindex: ifindex? };
        // The local table has a host route for each of the node's own addresses; the main table one for each of IPv6's
        // that has a network of its own.
        let (length, of_nodes_own) = match route.to {
            IpAddr::V4(_) => (32, false),
            IpAddr::V6(_) => (128, header.protocol == RouteProtocol::Kernel),
        };
        let counts = header.destination_prefix_length == length
            && !of_nodes_own
            && header.table == RouteHeader::RT_TABLE_MAIN
            && header.kind == RouteType::Unicast;
        counts.then_some(Self::HostRoute(route, present))
    }
}

/// Bridges tell of their ports in messages of their own family: there, "gone" means that it is no port any more.
fn is_of_interface(message: &LinkMessage) -> bool {
    message.header.interface_family == AddressFamily::Unspec
}

fn kind(infos: &[LinkInfo]) -> Kind {
    let kind = infos.iter().find_map(|info| match info {
        LinkInfo::Kind(InfoKind::Bridge) => Some(Kind::Bridge),
        LinkInfo::Kind(InfoKind::Veth) => Some(Kind::Veth),
        _ => None,
    });
    kind.unwrap_or(Kind::Other)
}
