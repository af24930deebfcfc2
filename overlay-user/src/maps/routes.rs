//! `ROUTES`, with `NODES` and `TRAFFIC`.

use std::{collections::BTreeMap, net::Ipv4Addr, path::Path};

use aya::{
    maps::{HashMap, Map, MapData, MapError, PerCpuHashMap, PerCpuValues},
    util::nr_cpus,
};
use ipnetwork::Ipv4Network;
use overlay_common::{Route, Traffic};

use super::{MapsError, Pinned, ignore_missing, patiently};

/// Where packets for remote subnets go: `ROUTES`, with `NODES` and `TRAFFIC` kept in step.
///
/// A route is set last and removed first, so a packet that finds one finds its counters as well.
pub struct Routes {
    routes: Pinned<HashMap<MapData, [u8; 4], Route>>,
    nodes: Pinned<HashMap<MapData, [u8; 4], [u8; 4]>>,
    traffic: Pinned<PerCpuHashMap<MapData, [u8; 4], Traffic>>,
    subnet_len: u8,
    /// CPUs that the kernel keeps counters for.
    cpus: usize,
}

impl Routes {
    /// Opens the maps pinned in `directory`, for a network whose subnets have prefixes of `subnet_len` bits.
    ///
    /// # Errors
    /// When one is not there or of another kind.
    pub fn open(directory: &Path, subnet_len: u8) -> Result<Self, MapsError> {
        let traffic = Pinned::open(directory, "TRAFFIC", |map| PerCpuHashMap::try_from(Map::PerCpuHashMap(map)))?;
        let cpus = traffic.check("count the CPUs for", nr_cpus().map_err(|(_, error)| MapError::IoError(error)))?;
        Ok(Self {
            routes: Pinned::open(directory, "ROUTES", |map| HashMap::try_from(Map::HashMap(map)))?,
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
    pub fn set(&mut self, subnet: Ipv4Network, route: Route) -> Result<(), MapsError> {
        let key = subnet.network().octets();
        let previous = self.route(key)?;
        let hop = route.next_hop().octets();
        let written = patiently(|| self.nodes.map.insert(hop, key, 0));
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
    pub fn remove(&mut self, subnet: Ipv4Network) -> Result<(), MapsError> {
        let key = subnet.network().octets();
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
    pub fn reconcile(&mut self, wanted: &BTreeMap<Ipv4Network, Route>) -> Result<usize, MapsError> {
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
    pub fn all(&self) -> Result<BTreeMap<Ipv4Network, Route>, MapsError> {
        let entries = self.routes.map.iter().map(|entry| entry.map(|(key, route)| (self.subnet(key), route)));
        self.routes.check("read", entries.collect())
    }

    /// What was exchanged with each remote subnet, all CPUs together.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn traffic(&self) -> Result<BTreeMap<Ipv4Network, Traffic>, MapsError> {
        let entries = self
            .traffic
            .map
            .iter()
            .map(|entry| entry.map(|(key, values)| (self.subnet(key), values.iter().copied().sum())));
        self.traffic.check("read", entries.collect())
    }

    /// Whether the node at underlay address `sender` owns the subnet of `source`, as the programs judge it.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn owns(&self, sender: Ipv4Addr, source: Ipv4Addr) -> Result<bool, MapsError> {
        let Ok(subnet) = Ipv4Network::new(source, self.subnet_len) else { return Ok(false) };
        Ok(self.route(subnet.network().octets())?.is_some_and(|route| route.next_hop() == sender))
    }

    fn route(&self, key: [u8; 4]) -> Result<Option<Route>, MapsError> {
        match self.routes.map.get(&key, 0) {
            Err(MapError::KeyNotFound) => Ok(None),
            other => self.routes.check("read", other).map(Some),
        }
    }

    fn start_counting(&mut self, key: [u8; 4]) -> Result<(), MapsError> {
        let zero = || PerCpuValues::try_from(vec![Traffic::default(); self.cpus]).map_err(MapError::IoError);
        let written = patiently(|| self.traffic.map.insert(key, zero()?, 0));
        self.traffic.check("write", written)
    }

    /// Takes `node` out of `NODES`, unless it owns another subnet by now.
    fn forget_node(&mut self, node: Ipv4Addr, subnet: [u8; 4]) -> Result<(), MapsError> {
        match self.nodes.map.get(&node.octets(), 0) {
            Ok(owned) if owned == subnet => {
                let removed = self.nodes.map.remove(&node.octets());
                self.nodes.check("delete from", ignore_missing(removed))
            }
            Ok(_) | Err(MapError::KeyNotFound) => Ok(()),
            Err(error) => self.nodes.check("read", Err(error)),
        }
    }

    fn subnet(&self, key: [u8; 4]) -> Ipv4Network {
        Ipv4Network::new(key.into(), self.subnet_len).unwrap_or_else(|_| Ipv4Network::from(Ipv4Addr::from(key)))
    }
}
