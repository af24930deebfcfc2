//! One type per kernel map, over its pin; the only file that knows aya's maps.

use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    path::{Path, PathBuf},
};

use aya::maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray, PerCpuHashMap, PerCpuValues};
use ipnetwork::Ipv4Network;
use overlay_common::{Endpoint, Flow, FlowKey, LocalNode, Reason, Route, Traffic};

/// The pinned maps, in the order of `bpf-maps.md`.
pub const NAMES: [&str; 8] = ["LOCAL_NODE", "ROUTES", "NODES", "ENDPOINTS", "TRAFFIC", "DROPS", "FLOWS", "CANDIDATES"];

/// What can go wrong with a map.
#[derive(Debug, thiserror::Error)]
#[error("{action} map {path}: {source}")]
pub struct MapsError {
    action: &'static str,
    path: PathBuf,
    source: MapError,
}

/// This node, as the programs see it.
pub struct LocalNodeMap(Pinned<Array<MapData, LocalNode>>);

impl LocalNodeMap {
    /// Opens the map pinned in `directory`.
    ///
    /// # Errors
    /// When it is not there or of another kind.
    pub fn open(directory: &Path) -> Result<Self, MapsError> {
        Ok(Self(Pinned::open(directory, "LOCAL_NODE", |map| Array::try_from(Map::Array(map)))?))
    }

    /// Tells the programs who they are.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn set(&mut self, node: LocalNode) -> Result<(), MapsError> {
        let written = self.0.map.set(0, node, 0);
        self.0.check("write", written)
    }

    /// What the programs have been told.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn get(&self) -> Result<LocalNode, MapsError> {
        self.0.check("read", self.0.map.get(&0, 0))
    }
}

/// Where packets for remote subnets go: `ROUTES`, with `NODES` and `TRAFFIC` kept in step.
///
/// A route is set last and removed first, so a packet that finds one finds its counters as well.
pub struct Routes {
    routes: Pinned<HashMap<MapData, [u8; 4], Route>>,
    nodes: Pinned<HashMap<MapData, [u8; 4], [u8; 4]>>,
    traffic: Pinned<PerCpuHashMap<MapData, [u8; 4], Traffic>>,
    subnet_len: u8,
}

impl Routes {
    /// Opens the maps pinned in `directory`, for a network whose subnets have prefixes of `subnet_len` bits.
    ///
    /// # Errors
    /// When one is not there or of another kind.
    pub fn open(directory: &Path, subnet_len: u8) -> Result<Self, MapsError> {
        Ok(Self {
            routes: Pinned::open(directory, "ROUTES", |map| HashMap::try_from(Map::HashMap(map)))?,
            nodes: Pinned::open(directory, "NODES", |map| HashMap::try_from(Map::HashMap(map)))?,
            traffic: Pinned::open(directory, "TRAFFIC", |map| PerCpuHashMap::try_from(Map::PerCpuHashMap(map)))?,
            subnet_len,
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
        let written = self.nodes.map.insert(hop, key, 0);
        self.nodes.check("write", written)?;
        if previous.is_none() {
            self.start_counting(key)?;
        }
        let written = self.routes.map.insert(key, route, 0);
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

    /// Every node that owns a subnet, by underlay address.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn nodes(&self) -> Result<BTreeMap<Ipv4Addr, Ipv4Network>, MapsError> {
        let entries = self.nodes.map.iter().map(|entry| entry.map(|(node, key)| (node.into(), self.subnet(key))));
        self.nodes.check("read", entries.collect())
    }

    /// What was exchanged with each remote subnet, all CPUs together.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn traffic(&self) -> Result<BTreeMap<Ipv4Network, Traffic>, MapsError> {
        let entries = self.traffic.map.iter().map(|entry| entry.map(|(key, values)| (self.subnet(key), sum(&values))));
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
        let zero = aya::util::nr_cpus()
            .map_err(|(_, error)| MapError::IoError(error))
            .and_then(|cpus| PerCpuValues::try_from(vec![Traffic::default(); cpus]).map_err(MapError::IoError));
        let written = zero.and_then(|zero| self.traffic.map.insert(key, zero, 0));
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

/// Which interface each address of our subnet belongs to.
pub struct EndpointsMap(Pinned<HashMap<MapData, [u8; 4], Endpoint>>);

impl EndpointsMap {
    /// Opens the map pinned in `directory`.
    ///
    /// # Errors
    /// When it is not there or of another kind.
    pub fn open(directory: &Path) -> Result<Self, MapsError> {
        Ok(Self(Pinned::open(directory, "ENDPOINTS", |map| HashMap::try_from(Map::HashMap(map)))?))
    }

    /// Makes the map equal to `wanted`, touching only what differs: gone addresses first.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn reconcile(&mut self, wanted: &BTreeMap<Ipv4Addr, Endpoint>) -> Result<(), MapsError> {
        let present = self.all()?;
        for address in present.keys().filter(|address| !wanted.contains_key(address)) {
            let removed = self.0.map.remove(&address.octets());
            self.0.check("delete from", ignore_missing(removed))?;
        }
        for (address, endpoint) in wanted.iter().filter(|(address, endpoint)| present.get(address) != Some(endpoint)) {
            let written = self.0.map.insert(address.octets(), endpoint, 0);
            self.0.check("write", written)?;
        }
        Ok(())
    }

    /// Every address and whose it is.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn all(&self) -> Result<BTreeMap<Ipv4Addr, Endpoint>, MapsError> {
        let entries = self.0.map.iter().map(|entry| entry.map(|(address, endpoint)| (address.into(), endpoint)));
        self.0.check("read", entries.collect())
    }
}

/// The flows that the fast path knows: `FLOWS`, or `CANDIDATES`.
pub struct Flows(Pinned<HashMap<MapData, FlowKey, Flow>>);

impl Flows {
    /// Opens the map `name` pinned in `directory`.
    ///
    /// # Errors
    /// When it is not there or of another kind.
    pub fn open(directory: &Path, name: &str) -> Result<Self, MapsError> {
        Ok(Self(Pinned::open(directory, name, |map| HashMap::try_from(Map::LruHashMap(map)))?))
    }

    /// Every flow, one after another; a table that programs write to meanwhile may show one twice or miss one.
    pub fn iter(&self) -> impl Iterator<Item = Result<(FlowKey, Flow), MapsError>> + '_ {
        self.0.map.iter().map(|entry| self.0.check("read", entry))
    }
}

/// Dropped packets by reason.
pub struct Drops(Pinned<PerCpuArray<MapData, u64>>);

impl Drops {
    /// Opens the map pinned in `directory`.
    ///
    /// # Errors
    /// When it is not there or of another kind.
    pub fn open(directory: &Path) -> Result<Self, MapsError> {
        Ok(Self(Pinned::open(directory, "DROPS", |map| PerCpuArray::try_from(Map::PerCpuArray(map)))?))
    }

    /// Every reason with its count, all CPUs together.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn all(&self) -> Result<Vec<(Reason, u64)>, MapsError> {
        let count = |reason: Reason| {
            let values = self.0.map.get(&reason.index(), 0)?;
            Ok((reason, values.iter().sum()))
        };
        self.0.check("read", Reason::ALL.into_iter().map(count).collect())
    }
}

/// A map and where it is pinned, for messages.
struct Pinned<M> {
    map: M,
    path: PathBuf,
}

impl<M> Pinned<M> {
    fn open(
        directory: &Path,
        name: &str,
        convert: impl FnOnce(MapData) -> Result<M, MapError>,
    ) -> Result<Self, MapsError> {
        let path = directory.join(name);
        match MapData::from_pin(&path).and_then(convert) {
            Ok(map) => Ok(Self { map, path }),
            Err(source) => Err(MapsError { action: "open", path, source }),
        }
    }

    fn check<T>(&self, action: &'static str, result: Result<T, MapError>) -> Result<T, MapsError> {
        result.map_err(|source| MapsError { action, path: self.path.clone(), source })
    }
}

fn sum(values: &PerCpuValues<Traffic>) -> Traffic {
    values.iter().fold(Traffic::default(), |mut sum, value| {
        sum += *value;
        sum
    })
}

fn ignore_missing(result: Result<(), MapError>) -> Result<(), MapError> {
    match result {
        Err(MapError::KeyNotFound) => Ok(()),
        Err(MapError::SyscallError(error)) if error.io_error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
