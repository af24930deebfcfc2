//! [`Counters`]: what the pinned maps of one node say, read without the agent's code but for their names.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use aya::{
    Pod,
    maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray, PerCpuHashMap},
};
use overlay_common::{Endpoint, Flow, FlowKey, LocalNode, Reason, Route, Traffic};
use overlay_user::maps::Family;

/// Where the agent pins its maps, below its run directory.
const MAPS: &str = "bpf/v1/maps";

/// The pinned maps of one node. Opened anew for every reading, so it follows an agent that starts over.
#[derive(Debug, Clone)]
pub struct Counters {
    maps: PathBuf,
}

impl Counters {
    /// The maps of the agent with the run directory `run_dir`.
    #[must_use]
    pub fn of(run_dir: &Path) -> Self {
        Self { maps: run_dir.join(MAPS) }
    }

    /// What was exchanged with the remote subnet at network address `subnet`, summed over all CPUs. Nothing so far
    /// is all zero.
    ///
    /// # Errors
    ///
    /// When the map is not there or not of the form in the contract.
    pub fn traffic(&self, subnet: impl Into<IpAddr>) -> Result<Traffic> {
        match subnet.into() {
            IpAddr::V4(subnet) => self.traffic_of(subnet.octets()),
            IpAddr::V6(subnet) => self.traffic_of(subnet.octets()),
        }
    }

    fn traffic_of<A: Family>(&self, subnet: A) -> Result<Traffic> {
        let map: PerCpuHashMap<_, A, Traffic> = self.open(A::TRAFFIC)?;
        let values = present(map.get(&subnet, 0));
        let values = values.with_context(|| format!("read {} of {}", A::TRAFFIC, subnet.ip()))?;
        Ok(values.iter().flat_map(|values| values.iter().copied()).sum())
    }

    /// How many packets were dropped for each reason, summed over all CPUs; reasons without any are left out.
    ///
    /// # Errors
    ///
    /// When the map is not there or not of the form in the contract.
    pub fn drops(&self) -> Result<Vec<(Reason, u64)>> {
        let map: PerCpuArray<_, u64> = self.open("DROPS")?;
        let mut drops = Vec::new();
        for reason in Reason::ALL {
            let values = map.get(&reason.index(), 0).with_context(|| format!("read DROPS of {reason:?}"))?;
            let packets = values.iter().sum();
            if packets > 0 {
                drops.push((reason, packets));
            }
        }
        Ok(drops)
    }

    /// This node as the programs see it.
    ///
    /// # Errors
    ///
    /// When the map is not there or not of the form in the contract.
    pub fn local_node(&self) -> Result<LocalNode> {
        let map: Array<_, LocalNode> = self.open("LOCAL_NODE")?;
        map.get(&0, 0).context("read LOCAL_NODE")
    }

    /// The route to the remote subnet at network address `subnet`, if there is one.
    ///
    /// # Errors
    ///
    /// When the map is not there or not of the form in the contract.
    pub fn route(&self, subnet: impl Into<IpAddr>) -> Result<Option<Route>> {
        match subnet.into() {
            IpAddr::V4(subnet) => self.value_of(<[u8; 4]>::ROUTES, subnet.octets()),
            IpAddr::V6(subnet) => self.value_of(<[u8; 16]>::ROUTES, subnet.octets()),
        }
    }

    /// The IPv4 routes, by the network address of the remote subnet.
    ///
    /// # Errors
    ///
    /// When the map is not there or not of the form in the contract.
    pub fn routes(&self) -> Result<BTreeMap<Ipv4Addr, Route>> {
        let map: HashMap<_, [u8; 4], Route> = self.open("ROUTES")?;
        map.iter().map(|entry| entry.map(|(subnet, route)| (subnet.into(), route)).context("read ROUTES")).collect()
    }

    /// The IPv4 flows that the fast path carries, as the containers of the node see them.
    ///
    /// # Errors
    ///
    /// When the map is not there or not of the form in the contract.
    pub fn flows(&self) -> Result<Vec<(FlowKey, Flow)>> {
        self.flows_of()
    }

    fn flows_of<A: Family>(&self) -> Result<Vec<(FlowKey<A>, Flow)>> {
        let [flows, _] = A::FLOWS;
        let map: HashMap<_, FlowKey<A>, Flow> = self.open(flows)?;
        map.iter().collect::<Result<_, _>>().with_context(|| format!("read {flows}"))
    }

    /// The flows of both families that the fast path carries: protocol, the end on this node and the other. A flow that is
    /// approved keeps to the kernel until the agent knows whose the address is.
    ///
    /// # Errors
    ///
    /// When the maps are not there or not of the form in the contract.
    pub fn carried(&self) -> Result<Vec<(u8, [SocketAddr; 2])>> {
        Ok([self.carried_of::<[u8; 4]>()?, self.carried_of::<[u8; 16]>()?].concat())
    }

    fn carried_of<A: Family>(&self) -> Result<Vec<(u8, [SocketAddr; 2])>> {
        let (flows, endpoints) = (self.flows_of::<A>()?, self.endpoints_of::<A>()?);
        let known = flows.into_iter().map(|(key, _)| key).filter(|key| endpoints.contains_key(&key.local().0));
        let ends = |key: &FlowKey<A>| [key.local(), key.remote()].map(|(ip, port)| SocketAddr::new(ip.into(), port));
        Ok(known.map(|key| (key.protocol(), ends(&key))).collect())
    }

    /// Whose the `address` is, a local container's or the node's own, if the agent knows it.
    ///
    /// # Errors
    ///
    /// When the map is not there or not of the form in the contract.
    pub fn endpoint(&self, address: impl Into<IpAddr>) -> Result<Option<Endpoint>> {
        match address.into() {
            IpAddr::V4(address) => self.value_of(<[u8; 4]>::ENDPOINTS, address.octets()),
            IpAddr::V6(address) => self.value_of(<[u8; 16]>::ENDPOINTS, address.octets()),
        }
    }

    /// The local containers' IPv4 addresses that the agent knows, and the node's own.
    ///
    /// # Errors
    ///
    /// When the map is not there or not of the form in the contract.
    pub fn endpoints(&self) -> Result<BTreeMap<Ipv4Addr, Endpoint>> {
        self.endpoints_of::<[u8; 4]>()
    }

    /// Those of one family.
    ///
    /// # Errors
    ///
    /// When the map is not there or not of the form in the contract.
    pub fn endpoints_of<A: Family>(&self) -> Result<BTreeMap<A::Ip, Endpoint>> {
        let map: HashMap<_, A, Endpoint> = self.open(A::ENDPOINTS)?;
        let entries = map.iter().map(|entry| entry.map(|(at, owner)| (at.ip(), owner)));
        entries.collect::<Result<_, _>>().with_context(|| format!("read {}", A::ENDPOINTS))
    }

    /// The value of one key in the hash `name`.
    fn value_of<A: Family, V: Pod>(&self, name: &str, address: A) -> Result<Option<V>> {
        let map: HashMap<_, A, V> = self.open(name)?;
        present(map.get(&address, 0)).with_context(|| format!("read {name} of {}", address.ip()))
    }

    fn open<M>(&self, name: &str) -> Result<M>
    where
        M: TryFrom<Map, Error = MapError>,
    {
        let path = self.maps.join(name);
        let open = || M::try_from(Map::from_map_data(MapData::from_pin(&path)?)?);
        open().with_context(|| format!("open the map {}", path.display()))
    }
}

/// What was looked up, if it is there.
fn present<V>(found: Result<V, MapError>) -> Result<Option<V>, MapError> {
    match found {
        Err(MapError::KeyNotFound) => Ok(None),
        found => found.map(Some),
    }
}
