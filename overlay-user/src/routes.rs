//! [`RouteTable`]: folds lease events into the changes that the data path needs. Pure: no clock, no chance, no I/O.
//!
//! What the table holds depends on the leases that are there now, never on how they came to be. All subnets of a network
//! have one length and are aligned to it, so two usable leases overlap only if they name the same IPv4 subnet.

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv4Addr;

use ipnetwork::Ipv4Network;
use overlay_common::Route;

use crate::lease::{Backend, Lease, LeaseEvent, SubnetKey};
use crate::network::{self, NetworkConfig, Pool};

/// One change to the routes of the data path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RouteChange {
    /// Packets for `subnet` go where `route` says, from now on.
    Set {
        /// The remote subnet.
        subnet: Ipv4Network,
        /// The node that owns it.
        route: Route,
    },
    /// Nobody owns `subnet` any more.
    Remove {
        /// The subnet.
        subnet: Ipv4Network,
    },
}

/// Why a lease gets no route. Text for an operator.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Skip {
    /// The node wants packets in a way that this network does not use.
    OtherBackend(String),
    /// The node has no IPv4 underlay address.
    NoIpv4,
    /// The subnet lies outside the network.
    OutsideNetwork,
    /// The subnet's length is not the network's.
    WrongLength,
    /// The lease carries our PublicIP, but not our subnet.
    OurPublicIp,
    /// The subnet is ours, but the lease carries another PublicIP.
    OurSubnet,
    /// Another lease has the same IPv4 subnet, and its key comes first.
    Overlaps(SubnetKey),
}

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OtherBackend(name) => write!(f, "its backend is {name}, not the network's"),
            Self::NoIpv4 => f.write_str("its node has no IPv4 underlay address"),
            Self::OutsideNetwork => f.write_str("its subnet lies outside the network"),
            Self::WrongLength => f.write_str("its subnet's length is not the network's"),
            Self::OurPublicIp => f.write_str("it carries our PublicIP, but not our subnet"),
            Self::OurSubnet => f.write_str("it claims our subnet with another PublicIP"),
            Self::Overlaps(other) => write!(f, "{other} has the same IPv4 subnet"),
        }
    }
}

/// The routes to all remote subnets, as the leases have them.
#[derive(Debug)]
pub struct RouteTable {
    pool: Option<Pool<Ipv4Addr>>,
    backend: network::Backend,
    public_ip: Ipv4Addr,
    /// Our PublicIP before the last change: our own lease may still carry it.
    former_ip: Option<Ipv4Addr>,
    subnet: Ipv4Network,
    leases: BTreeMap<SubnetKey, Lease>,
    routes: BTreeMap<Ipv4Network, Route>,
    skipped: BTreeMap<SubnetKey, Skip>,
}

impl RouteTable {
    /// An empty table for the node that has `public_ip` and owns `subnet` of the network in `config`.
    #[must_use]
    pub fn new(config: &NetworkConfig, public_ip: Ipv4Addr, subnet: Ipv4Network) -> Self {
        Self {
            pool: config.ipv4,
            backend: config.backend.clone(),
            public_ip,
            former_ip: None,
            subnet,
            leases: BTreeMap::new(),
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
                self.leases.insert(key, lease);
                self.settle(key.v4)
            }
            LeaseEvent::Removed(key) => {
                self.leases.remove(&key);
                self.skipped.remove(&key);
                self.settle(key.v4)
            }
            LeaseEvent::Reset(leases) => self.reset(leases),
        }
    }

    /// Takes note that this node has another PublicIP from now on, and returns what the data path must be told.
    pub fn move_to(&mut self, public_ip: Ipv4Addr) -> Vec<RouteChange> {
        self.former_ip = Some(std::mem::replace(&mut self.public_ip, public_ip));
        let leases = self.leases.values().cloned().collect();
        self.reset(leases)
    }

    /// All routes.
    #[must_use]
    pub const fn routes(&self) -> &BTreeMap<Ipv4Network, Route> {
        &self.routes
    }

    /// The leases that get no route, and why.
    #[must_use]
    pub const fn skipped(&self) -> &BTreeMap<SubnetKey, Skip> {
        &self.skipped
    }

    fn reset(&mut self, leases: Vec<Lease>) -> Vec<RouteChange> {
        self.leases = leases.into_iter().map(|lease| (lease.subnet, lease)).collect();
        let before = std::mem::take(&mut self.skipped);
        let mut routes = BTreeMap::new();
        let mut subnets: Vec<Ipv4Network> = self.leases.keys().map(|key| key.v4).collect();
        subnets.dedup();
        for subnet in subnets {
            let (route, skipped) = self.judge(subnet);
            routes.extend(route.map(|route| (subnet, route)));
            self.skipped.extend(skipped);
        }
        report(&self.skipped, |key| before.get(key));
        let old = std::mem::replace(&mut self.routes, routes);
        let gone = old.keys().filter(|subnet| !self.routes.contains_key(subnet));
        let gone = gone.map(|&subnet| RouteChange::Remove { subnet });
        let set = self.routes.iter().filter(|&(subnet, route)| old.get(subnet) != Some(route));
        gone.chain(set.map(|(&subnet, &route)| RouteChange::Set { subnet, route })).collect()
    }

    /// Brings one subnet's route in line with the leases.
    fn settle(&mut self, subnet: Ipv4Network) -> Vec<RouteChange> {
        let (route, skipped) = self.judge(subnet);
        report(&skipped, |key| self.skipped.get(key));
        let judged: Vec<SubnetKey> = leases_of(&self.leases, subnet).map(|lease| lease.subnet).collect();
        self.skipped.retain(|key, _| !judged.contains(key));
        self.skipped.extend(skipped);
        let before = match route {
            Some(route) => self.routes.insert(subnet, route),
            None => self.routes.remove(&subnet),
        };
        match (before, route) {
            (before, Some(route)) if before != Some(route) => vec![RouteChange::Set { subnet, route }],
            (Some(_), None) => vec![RouteChange::Remove { subnet }],
            _ => Vec::new(),
        }
    }

    /// The route that the leases of one subnet make, and those of them that make none.
    fn judge(&self, subnet: Ipv4Network) -> (Option<Route>, BTreeMap<SubnetKey, Skip>) {
        let mut chosen: Option<(SubnetKey, Route)> = None;
        let mut skipped = BTreeMap::new();
        for lease in leases_of(&self.leases, subnet).filter(|lease| !self.is_ours(lease)) {
            let skip = match (self.route(lease), chosen) {
                (Ok(route), None) => {
                    chosen = Some((lease.subnet, route));
                    continue;
                }
                (Ok(_), Some((first, _))) => Skip::Overlaps(first),
                (Err(skip), _) => skip,
            };
            skipped.insert(lease.subnet, skip);
        }
        (chosen.map(|(_, route)| route), skipped)
    }

    fn is_ours(&self, lease: &Lease) -> bool {
        let public_ip = lease.node.public_ip;
        lease.subnet.v4 == self.subnet && (public_ip == self.public_ip || Some(public_ip) == self.former_ip)
    }

    fn route(&self, lease: &Lease) -> Result<Route, Skip> {
        let subnet = lease.subnet.v4;
        let pool = self.pool.filter(|pool| pool.contains(subnet.ip())).ok_or(Skip::OutsideNetwork)?;
        if subnet.prefix() != pool.subnet_len() {
            return Err(Skip::WrongLength);
        }
        if lease.node.public_ip == self.public_ip {
            return Err(Skip::OurPublicIp);
        }
        if subnet == self.subnet {
            return Err(Skip::OurSubnet);
        }
        if lease.node.public_ip.is_unspecified() {
            return Err(Skip::NoIpv4);
        }
        match (&self.backend, &lease.node.backend) {
            (network::Backend::Udp { .. }, Backend::Udp) => Ok(Route::new(lease.node.public_ip, [0; 6])),
            (network::Backend::Vxlan { .. }, Backend::Vxlan { v4: Some(vtep), .. }) => {
                Ok(Route::new(lease.node.public_ip, vtep.mac.0))
            }
            (network::Backend::Vxlan { .. }, Backend::Vxlan { v4: None, .. }) => Err(Skip::NoIpv4),
            (_, other) => Err(Skip::OtherBackend(other.name().to_owned())),
        }
    }
}

fn leases_of(leases: &BTreeMap<SubnetKey, Lease>, subnet: Ipv4Network) -> impl Iterator<Item = &Lease> {
    let first = SubnetKey { v4: subnet, v6: None };
    leases.range(first..).map(|(_, lease)| lease).take_while(move |lease| lease.subnet.v4 == subnet)
}

/// Tells the operator of each skipped lease once, and again when the reason changes.
fn report<'a>(skipped: &BTreeMap<SubnetKey, Skip>, before: impl Fn(&SubnetKey) -> Option<&'a Skip>) {
    for (key, skip) in skipped.iter().filter(|&(key, skip)| before(key) != Some(skip)) {
        tracing::warn!(lease = %key, reason = %skip, "lease skipped");
    }
}

#[cfg(test)]
mod tests;
