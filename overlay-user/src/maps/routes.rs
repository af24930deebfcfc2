//! `ROUTES`, with `NODES` and `TRAFFIC`, or those of IPv6.

use std::{collections::BTreeMap, path::Path};

use aya::{
    maps::{HashMap, Map, MapData, MapError, PerCpuHashMap, PerCpuValues},
    util::nr_cpus,
};
use overlay_common::{NodeSubnets, Route, Traffic, UnderlayAddress};

use super::{Family, MapsError, Pinned, ignore_missing, patiently};

/// Where packets for remote subnets of one family go: its routes, with the nodes and counters that go with them kept in step.
/// The nodes are those of both families.
///
/// A route is set last and removed first, so a packet that finds one finds its counters as well.
pub struct Routes<A: Family = [u8; 4]> {
    routes: Pinned<HashMap<MapData, A, Route>>,
    nodes: Pinned<HashMap<MapData, UnderlayAddress, NodeSubnets>>,
    traffic: Pinned<PerCpuHashMap<MapData, A, Traffic>>,
    subnet_len: u8,
    /// CPUs that the kernel keeps counters for.
    cpus: usize,
}

impl<A: Family> Routes<A> {
    /// Opens the maps pinned in `directory`, for a network whose subnets have prefixes of `subnet_len` bits.
    ///
    /// # Errors
    /// When one is not there or of another kind.
    pub fn open(directory: &Path, subnet_len: u8) -> Result<Self, MapsError> {
        let traffic = Pinned::open(directory, A::TRAFFIC, |map| PerCpuHashMap::try_from(Map::PerCpuHashMap(map)))?;
        let cpus = traffic.check("count the CPUs for", nr_cpus().map_err(|(_, error)| MapError::IoError(error)))?;
        Ok(Self {
            routes: Pinned::open(directory, A::ROUTES, |map| HashMap::try_from(Map::HashMap(map)))?,
            nodes: Pinned::open(directory, "NODES", |map| HashMap::try_from(Map::HashMap(map)))?,
            traffic,
            subnet_len,
            cpus,
        })
    }

    /// Sends packets for `subnet` along `route` from now on.
    ///
    /// # Errors
    /// When the kernel refuses; a full map is the likely reason.
    pub fn set(&mut self, subnet: A::Network, route: Route) -> Result<(), MapsError> {
        let key = A::first(subnet);
        let previous = self.route(key)?;
        let mut owned = self.owned(route.next_hop())?;
        owned.set(key);
        let written = patiently(|| self.nodes.map.insert(route.next_hop(), owned, 0));
        self.nodes.check("write", written)?;
        if previous.is_none() {
            self.start_counting(key)?;
        }
        let written = patiently(|| self.routes.map.insert(key, route, 0));
        self.routes.check("write", written)?;
        match previous {
            Some(previous) if previous.next_hop() != route.next_hop() => self.forget_node(previous.next_hop(), key),
            _ => Ok(()),
        }
    }

    /// Drops packets for and from `subnet` from now on.
    ///
    /// # Errors
    /// When the kernel refuses. A subnet without a route is no error.
    pub fn remove(&mut self, subnet: A::Network) -> Result<(), MapsError> {
        let key = A::first(subnet);
        let Some(previous) = self.route(key)? else { return Ok(()) };
        let removed = self.routes.map.remove(&key);
        self.routes.check("delete from", ignore_missing(removed))?;
        self.forget_node(previous.next_hop(), key)?;
        let removed = self.traffic.map.remove(&key);
        self.traffic.check("delete from", ignore_missing(removed))
    }

    /// Makes the maps equal to `wanted`, touching only what differs. Returns how many routes changed.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn reconcile(&mut self, wanted: &BTreeMap<A::Network, Route>) -> Result<usize, MapsError> {
        let present = self.all()?;
        let mut changes = 0;
        for subnet in present.keys().filter(|subnet| !wanted.contains_key(subnet)) {
            self.remove(*subnet)?;
            changes += 1;
        }
        for (subnet, route) in wanted.iter().filter(|(subnet, route)| present.get(subnet) != Some(route)) {
            self.set(*subnet, *route)?;
            changes += 1;
        }
        Ok(changes)
    }

    /// Every route, by subnet.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn all(&self) -> Result<BTreeMap<A::Network, Route>, MapsError> {
        let entries =
            self.routes.map.iter().map(|entry| entry.map(|(key, route)| (key.network(self.subnet_len), route)));
        self.routes.check("read", entries.collect())
    }

    /// What was exchanged with each remote subnet, all CPUs together.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn traffic(&self) -> Result<BTreeMap<A::Network, Traffic>, MapsError> {
        let entries = self
            .traffic
            .map
            .iter()
            .map(|entry| entry.map(|(key, values)| (key.network(self.subnet_len), values.iter().copied().sum())));
        self.traffic.check("read", entries.collect())
    }

    /// Whether the node at underlay address `sender` owns the subnet of `source`, as the programs judge it.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn owns(&self, sender: impl Into<UnderlayAddress>, source: A::Ip) -> Result<bool, MapsError> {
        let route = self.route(A::first(A::of(source).network(self.subnet_len)))?;
        Ok(route.is_some_and(|route| route.next_hop() == sender.into()))
    }

    fn route(&self, key: A) -> Result<Option<Route>, MapsError> {
        match self.routes.map.get(&key, 0) {
            Err(MapError::KeyNotFound) => Ok(None),
            other => self.routes.check("read", other).map(Some),
        }
    }

    fn start_counting(&mut self, key: A) -> Result<(), MapsError> {
        let zero = || PerCpuValues::try_from(vec![Traffic::default(); self.cpus]).map_err(MapError::IoError);
        let written = patiently(|| self.traffic.map.insert(key, zero()?, 0));
        self.traffic.check("write", written)
    }

    /// What the node at this address owns, of either family.
    fn owned(&self, node: UnderlayAddress) -> Result<NodeSubnets, MapsError> {
        match self.nodes.map.get(&node, 0) {
            Err(MapError::KeyNotFound) => Ok(NodeSubnets::default()),
            other => self.nodes.check("read", other),
        }
    }

    /// Takes `subnet` from `node`, unless it owns another one by now; and the node out of `NODES`, if that was all it had.
    fn forget_node(&mut self, node: UnderlayAddress, subnet: A) -> Result<(), MapsError> {
        let mut owned = self.owned(node)?;
        if !owned.remove(subnet) {
            return Ok(());
        }
        if owned.is_empty() {
            let removed = self.nodes.map.remove(&node);
            return self.nodes.check("delete from", ignore_missing(removed));
        }
        let written = patiently(|| self.nodes.map.insert(node, owned, 0));
        self.nodes.check("write", written)
    }
}
