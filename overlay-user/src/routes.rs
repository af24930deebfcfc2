//! [`RouteTable`]: folds lease events into the changes that the data path needs. Pure: no clock, no chance, no I/O.
//!
//! What the table holds depends on the leases that are there now, never on how they came to be. All subnets of a network's
//! family have one length and are aligned to it, so two usable leases overlap only if they name the same subnet.
//!
//! Packets of either family travel over either underlay, as the other node's lease says and this node can: see [`Ends`].

mod ends;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use ipnetwork::IpNetwork;
use overlay_common::Route;

pub use self::ends::Ends;
use crate::lease::{Lease, LeaseEvent, Node, SubnetKey};
use crate::network::NetworkConfig;

/// One change to the routes of the data path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RouteChange {
    /// Packets for `subnet` go where `route` says, from now on.
    Set {
        /// The remote subnet.
        subnet: IpNetwork,
        /// The node that owns it.
        route: Route,
    },
    /// Nobody owns `subnet` any more.
    Remove {
        /// The subnet.
        subnet: IpNetwork,
    },
}

/// Why a lease gets no route to one of its subnets. Text for an operator.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Skip {
    /// The node wants packets in a way that this network does not use.
    OtherBackend(String),
    /// The node has tunnel ends over other families than ours.
    NoCommonUnderlay,
    /// The subnet lies outside the network.
    OutsideNetwork,
    /// The subnet's length is not the network's.
    WrongLength,
    /// The lease carries our PublicIP, but not our subnet.
    OurPublicIp,
    /// The subnet is ours, but the lease carries another PublicIP.
    OurSubnet,
    /// Another lease has the same subnet, and its key comes first.
    Overlaps(SubnetKey),
}

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OtherBackend(name) => write!(f, "its backend is {name}, not the network's"),
            Self::NoCommonUnderlay => f.write_str("its node has no underlay address of a family that ours has"),
            Self::OutsideNetwork => f.write_str("its subnet lies outside the network"),
            Self::WrongLength => f.write_str("its subnet's length is not the network's"),
            Self::OurPublicIp => f.write_str("it carries our PublicIP, but not our subnet"),
            Self::OurSubnet => f.write_str("it claims our subnet with another PublicIP"),
            Self::Overlaps(other) => write!(f, "{other} has the same subnet"),
        }
    }
}

/// A subnet of a lease that gets no route: the lease's key, and which one.
pub type Skipped = (SubnetKey, IpNetwork);

/// The routes to all remote subnets, as the leases have them.
#[derive(Debug)]
pub struct RouteTable {
    network: NetworkConfig,
    /// This node as its lease presents it.
    us: Node,
    /// The same before the last change: our own lease may still present it.
    former: Option<Node>,
    ours: SubnetKey,
    leases: BTreeMap<SubnetKey, Lease>,
    /// Which leases name a subnet.
    claims: BTreeMap<IpNetwork, BTreeSet<SubnetKey>>,
    routes: BTreeMap<IpNetwork, Route>,
    skipped: BTreeMap<Skipped, Skip>,
}

impl RouteTable {
    /// An empty table for the node that its lease presents as `us`, and that owns the subnets `ours` of `network`.
    #[must_use]
    pub fn new(network: &NetworkConfig, us: Node, ours: SubnetKey) -> Self {
        Self {
            network: network.clone(),
            us,
            former: None,
            ours,
            leases: BTreeMap::new(),
            claims: BTreeMap::new(),
            routes: BTreeMap::new(),
            skipped: BTreeMap::new(),
        }
    }

    /// Folds in one event and returns what the data path must be told: removals first, each kind in the order of the
    /// subnets. What is known already changes nothing.
    pub fn apply(&mut self, event: LeaseEvent) -> Vec<RouteChange> {
        match event {
            LeaseEvent::Added(lease) => {
                let key = lease.subnet;
                if self.leases.get(&key) == Some(&lease) {
                    return Vec::new();
                }
                self.enter(lease);
                self.settle(key)
            }
            LeaseEvent::Removed(key) => {
                self.leases.remove(&key);
                for subnet in self.judged(key) {
                    self.skipped.remove(&(key, subnet));
                    if let Some(claims) = self.claims.get_mut(&subnet) {
                        claims.remove(&key);
                    }
                }
                self.settle(key)
            }
            LeaseEvent::Reset(leases) => self.reset(leases),
        }
    }

    /// Takes note that the lease presents this node so from now on, and returns what the data path must be told.
    pub fn move_to(&mut self, us: Node) -> Vec<RouteChange> {
        self.former = Some(std::mem::replace(&mut self.us, us));
        let leases = self.leases.values().cloned().collect();
        self.reset(leases)
    }

    /// All routes.
    #[must_use]
    pub const fn routes(&self) -> &BTreeMap<IpNetwork, Route> {
        &self.routes
    }

    /// The subnets of leases that get no route, and why.
    #[must_use]
    pub const fn skipped(&self) -> &BTreeMap<Skipped, Skip> {
        &self.skipped
    }

    /// Those subnets of a lease that are of a family of the overlay's; where none is, what its key names as the IPv4 subnet.
    fn judged(&self, key: SubnetKey) -> Vec<IpNetwork> {
        let subnets: Vec<_> = key.subnets().filter(|subnet| self.network.subnet_len(*subnet).is_some()).collect();
        if subnets.is_empty() { vec![key.v4.into()] } else { subnets }
    }

    fn enter(&mut self, lease: Lease) {
        let key = lease.subnet;
        for subnet in self.judged(key) {
            self.claims.entry(subnet).or_default().insert(key);
        }
        self.leases.insert(key, lease);
    }

    fn reset(&mut self, leases: Vec<Lease>) -> Vec<RouteChange> {
        self.leases.clear();
        self.claims.clear();
        leases.into_iter().for_each(|lease| self.enter(lease));
        let before = std::mem::take(&mut self.skipped);
        let mut routes = BTreeMap::new();
        let mut skipped = BTreeMap::new();
        for (&subnet, claims) in &self.claims {
            routes.extend(self.judge(subnet, claims, &mut skipped).map(|route| (subnet, route)));
        }
        self.skipped = skipped;
        report(&self.skipped, |key| before.get(key));
        let old = std::mem::replace(&mut self.routes, routes);
        let gone = old.keys().filter(|subnet| !self.routes.contains_key(subnet));
        let gone = gone.map(|&subnet| RouteChange::Remove { subnet });
        let set = self.routes.iter().filter(|&(subnet, route)| old.get(subnet) != Some(route));
        gone.chain(set.map(|(&subnet, &route)| RouteChange::Set { subnet, route })).collect()
    }

    /// Brings the routes to the subnets of one lease in line with the leases.
    fn settle(&mut self, key: SubnetKey) -> Vec<RouteChange> {
        let mut changes: Vec<_> =
            self.judged(key).into_iter().filter_map(|subnet| self.settle_subnet(subnet)).collect();
        changes.sort_by_key(|change| matches!(change, RouteChange::Set { .. }));
        changes
    }

    fn settle_subnet(&mut self, subnet: IpNetwork) -> Option<RouteChange> {
        let claims = self.claims.remove(&subnet)?;
        let mut skipped = BTreeMap::new();
        let route = self.judge(subnet, &claims, &mut skipped);
        report(&skipped, |key| self.skipped.get(key));
        self.skipped.retain(|(key, of), _| *of != subnet || !claims.contains(key));
        self.skipped.extend(skipped);
        if !claims.is_empty() {
            self.claims.insert(subnet, claims);
        }
        let before = match route {
            Some(route) => self.routes.insert(subnet, route),
            None => self.routes.remove(&subnet),
        };
        match (before, route) {
            (before, Some(route)) if before != Some(route) => Some(RouteChange::Set { subnet, route }),
            (Some(_), None) => Some(RouteChange::Remove { subnet }),
            _ => None,
        }
    }

    /// The route that the leases of one subnet make; those of them that make none go to `skipped`.
    fn judge(
        &self,
        subnet: IpNetwork,
        claims: &BTreeSet<SubnetKey>,
        skipped: &mut BTreeMap<Skipped, Skip>,
    ) -> Option<Route> {
        let mut chosen: Option<(SubnetKey, Route)> = None;
        let leases = claims.iter().filter_map(|key| self.leases.get(key));
        for lease in leases.filter(|lease| !self.is_ours(lease)) {
            let skip = match (self.route(lease, subnet), chosen) {
                (Ok(route), None) => {
                    chosen = Some((lease.subnet, route));
                    continue;
                }
                (Ok(_), Some((first, _))) => Skip::Overlaps(first),
                (Err(skip), _) => skip,
            };
            skipped.insert((lease.subnet, subnet), skip);
        }
        chosen.map(|(_, route)| route)
    }

    fn is_ours(&self, lease: &Lease) -> bool {
        let is_us = |us: &Node| us.is_same_as(&lease.node);
        lease.subnet == self.ours && (is_us(&self.us) || self.former.as_ref().is_some_and(is_us))
    }

    fn route(&self, lease: &Lease, subnet: IpNetwork) -> Result<Route, Skip> {
        if !self.network.contains(subnet) {
            return Err(Skip::OutsideNetwork);
        }
        if self.network.subnet_len(subnet) != Some(subnet.prefix()) {
            return Err(Skip::WrongLength);
        }
        if lease.node.is_same_as(&self.us) {
            return Err(Skip::OurPublicIp);
        }
        if self.ours.subnets().any(|ours| ours == subnet) {
            return Err(Skip::OurSubnet);
        }
        if lease.node.backend.name() != self.network.backend.name() {
            return Err(Skip::OtherBackend(lease.node.backend.name().to_owned()));
        }
        Ends::of(&lease.node).route(&Ends::of(&self.us), subnet.is_ipv4()).ok_or(Skip::NoCommonUnderlay)
    }
}

/// Tells the operator of each skipped lease once, and again when the reason changes.
fn report<'a>(skipped: &BTreeMap<Skipped, Skip>, before: impl Fn(&Skipped) -> Option<&'a Skip>) {
    for (key, skip) in skipped.iter().filter(|&(key, skip)| before(key) != Some(skip)) {
        let (lease, subnet) = key;
        tracing::warn!(%lease, %subnet, reason = %skip, "lease skipped");
    }
}

#[cfg(test)]
mod tests;
