//! [`Interfaces`]: what is known of interfaces, and which of them are containers'. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnetwork::IpNetwork;

use super::{
    Container, Endpoints,
    fact::{Fact, HostRoute, Kind, Link, Peer},
};

#[cfg(test)]
mod tests;

/// What is known of interfaces; facts are folded in.
pub(super) struct Interfaces {
    /// Ours, one of each address family that the overlay has.
    subnets: Vec<IpNetwork>,
    links: BTreeMap<u32, Link>,
    /// Addresses of our subnets that the node itself has.
    own: BTreeSet<(u32, IpAddr)>,
    routes: BTreeSet<HostRoute>,
    /// The veth here that leads to each other side.
    veths: BTreeMap<Peer, u32>,
    /// What was read on the other side, by veth. Not by the namespace's number: that may already be another's.
    insides: BTreeMap<u32, Inside>,
    /// Veths whose other side was not read yet.
    unread: BTreeSet<u32>,
    /// Interfaces that may have changed without a notice.
    doubtful: BTreeSet<u32>,
    changed: bool,
}

/// The other side of a container's veth.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Inside {
    pub(super) mac: [u8; 6],
    pub(super) addresses: BTreeSet<IpAddr>,
}

/// Something to ask the kernel, since no notice says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Question {
    /// What the node's interface with this index is now.
    Link(u32),
    /// What the other side of `veth` is: the interface with index `ifindex` in `namespace`.
    Inside { veth: u32, namespace: i32, ifindex: u32 },
}

impl Interfaces {
    /// Nothing is known yet.
    pub(super) fn new(subnets: Vec<IpNetwork>) -> Self {
        Self {
            subnets,
            links: BTreeMap::new(),
            own: BTreeSet::new(),
            routes: BTreeSet::new(),
            veths: BTreeMap::new(),
            insides: BTreeMap::new(),
            unread: BTreeSet::new(),
            doubtful: BTreeSet::new(),
            changed: true,
        }
    }

    /// Takes in a fact about the namespace with the number `namespace`, or about the node's own.
    pub(super) fn fold(&mut self, namespace: Option<i32>, fact: Fact) {
        match namespace {
            None => self.fold_here(fact),
            Some(_) => self.fold_inside(namespace, fact),
        }
    }

    /// Takes in what is on the other side of `veth`; none if nobody can say, which then is as if it were empty.
    pub(super) fn learn(&mut self, veth: u32, inside: Option<Inside>) {
        let mut inside = inside.unwrap_or_default();
        inside.addresses.retain(|&address| is_in(&self.subnets, address));
        self.insides.insert(veth, inside);
        self.changed = true;
    }

    /// The next thing to ask; it is not said twice.
    pub(super) fn question(&mut self) -> Option<Question> {
        if let Some(ifindex) = self.doubtful.pop_first() {
            return Some(Question::Link(ifindex));
        }
        // Other veths stay unread until a bridge or a route makes containers of them.
        let veth = *self.unread.iter().find(|veth| self.links.get(veth).is_some_and(|link| self.is_container(link)))?;
        self.unread.remove(&veth);
        let Peer { namespace, ifindex } = self.links.get(&veth)?.peer?;
        Some(Question::Inside { veth, namespace: namespace?, ifindex })
    }

    /// The containers, if they may be others than when this was last called.
    pub(super) fn changed(&mut self) -> Option<Endpoints> {
        std::mem::replace(&mut self.changed, false).then(|| self.found())
    }

    fn fold_here(&mut self, fact: Fact) {
        match fact {
            Fact::Link(link) => self.set_link(link),
            Fact::LinkGone(ifindex) => self.remove_link(ifindex),
            Fact::Address { ifindex, address, present } if is_in(&self.subnets, address) => {
                self.changed |= set(&mut self.own, (ifindex, address), present);
            }
            Fact::HostRoute(route, present) if is_in(&self.subnets, route.to) => {
                // A route that replaces another of the same metric does so without a notice.
                let replaced =
                    self.routes.extract_if(.., |old| present && old.to == route.to && old.metric == route.metric);
                self.changed |= replaced.count() > 0;
                self.changed |= set(&mut self.routes, route, present);
            }
            Fact::NamespaceGone(number) => {
                let gone = self.veths.iter().filter(|(peer, _)| peer.namespace == Some(number));
                self.doubtful.extend(gone.map(|(_, veth)| veth));
            }
            Fact::Address { .. } | Fact::HostRoute(..) => {}
        }
    }

    fn fold_inside(&mut self, namespace: Option<i32>, fact: Fact) {
        let (Fact::Link(Link { ifindex, .. }) | Fact::LinkGone(ifindex) | Fact::Address { ifindex, .. }) = fact else {
            return;
        };
        let Some(&veth) = self.veths.get(&Peer { namespace, ifindex }) else { return };
        if matches!(fact, Fact::LinkGone(_)) {
            // It may have moved on to another namespace.
            self.doubtful.insert(veth);
            return;
        }
        // What was not read yet will be read as it is then.
        let Some(inside) = self.insides.get_mut(&veth) else { return };
        match fact {
            Fact::Link(link) if link.mac != inside.mac => {
                inside.mac = link.mac;
                self.changed = true;
            }
            Fact::Address { address, present, .. } if is_in(&self.subnets, address) => {
                self.changed |= set(&mut inside.addresses, address, present);
            }
            _ => {}
        }
    }

    fn set_link(&mut self, link: Link) {
        let ifindex = link.ifindex;
        if !link.up {
            // The kernel drops them without a notice.
            self.routes.retain(|route| route.ifindex != ifindex);
        }
        let old = self.links.get(&ifindex);
        if old == Some(&link) {
            return;
        }
        if old.and_then(|old| old.peer) != link.peer {
            self.forget_peer(ifindex);
            if let Some(peer) = link.peer {
                self.veths.insert(peer, ifindex);
            }
            if link.kind == Kind::Veth && link.peer.is_some_and(|peer| peer.namespace.is_some()) {
                self.unread.insert(ifindex);
            }
        }
        self.links.insert(ifindex, link);
        self.changed = true;
    }

    fn remove_link(&mut self, ifindex: u32) {
        self.forget_peer(ifindex);
        self.links.remove(&ifindex);
        self.own.retain(|&(index, _)| index != ifindex);
        self.routes.retain(|route| route.ifindex != ifindex);
        // What leads to it from here has its other side in another namespace now, or none.
        self.doubtful.extend(self.veths.get(&Peer { namespace: None, ifindex }));
        self.changed = true;
    }

    fn forget_peer(&mut self, veth: u32) {
        self.unread.remove(&veth);
        self.insides.remove(&veth);
        if let Some(peer) = self.links.get(&veth).and_then(|link| link.peer)
            && self.veths.get(&peer) == Some(&veth)
        {
            self.veths.remove(&peer);
        }
    }

    fn found(&self) -> Endpoints {
        let mut routed: BTreeMap<u32, BTreeSet<IpAddr>> = BTreeMap::new();
        for route in &self.routes {
            routed.entry(route.ifindex).or_default().insert(route.to);
        }
        let containers = self.links.iter().filter(|(_, link)| self.is_container(link)).map(|(&index, link)| {
            let inside = self.insides.get(&index);
            let mut addresses = routed.remove(&index).unwrap_or_default();
            if self.is_port(link) {
                addresses.extend(inside.iter().flat_map(|inside| &inside.addresses));
            }
            let mac = inside.map_or([0; 6], |inside| inside.mac);
            (index, Container { name: link.name.clone(), mac, addresses })
        });
        let containers: BTreeMap<_, _> = containers.collect();
        let on_the_way = containers.keys().filter_map(|index| self.links.get(index));
        let on_the_way =
            on_the_way.flat_map(|link| [Some(link), link.master.and_then(|bridge| self.links.get(&bridge))]);
        let mtu = on_the_way.flatten().map(|link| link.mtu).min();
        Endpoints { containers, node: self.own.iter().map(|&(_, address)| address).collect(), mtu }
    }

    fn is_container(&self, link: &Link) -> bool {
        link.kind == Kind::Veth
            && link.peer.is_some_and(|peer| peer.namespace.is_some())
            && (self.is_port(link) || self.routes.iter().any(|route| route.ifindex == link.ifindex))
    }

    /// Whether it is a port of a bridge with an address of our subnets.
    fn is_port(&self, link: &Link) -> bool {
        let is_ours = |master| {
            // IPv4 comes first in the order of addresses.
            let (first, last) = (IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::from_bits(u128::MAX)));
            let addresses = (master, first)..=(master, last);
            self.own.range(addresses).next().is_some()
                && self.links.get(&master).is_some_and(|master| master.kind == Kind::Bridge)
        };
        link.master.is_some_and(is_ours)
    }
}

/// Whether `address` lies in one of `subnets`; no link-local and no multicast address does.
fn is_in(subnets: &[IpNetwork], address: IpAddr) -> bool {
    subnets.iter().any(|subnet| subnet.contains(address))
}

/// Puts `item` into a set or takes it out. Returns whether that changed it.
fn set<T: Ord>(items: &mut BTreeSet<T>, item: T, present: bool) -> bool {
    if present { items.insert(item) } else { items.remove(&item) }
}
