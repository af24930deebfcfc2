//! [`Counters`]: what the pinned maps of one node say, read without the agent's code.

use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use aya::maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray, PerCpuHashMap};
use overlay_common::{Endpoint, Flow, FlowKey, LocalNode, Reason, Route, Traffic};

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
    pub fn traffic(&self, subnet: Ipv4Addr) -> Result<Traffic> {
        let map: PerCpuHashMap<_, [u8; 4], Traffic> = self.open("TRAFFIC")?;
        let mut total = Traffic::default();
        match map.get(&subnet.octets(), 0) {
            Ok(values) => values.iter().for_each(|value| total += *value),
            Err(MapError::KeyNotFound) => {}
            Err(error) => return Err(error).with_context(|| format!("read TRAFFIC of {subnet}")),
        }
        Ok(total)
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

    /// The routes, by the network address of the remote subnet.
    ///
    /// # Errors
    ///
    /// When the map is not there or not of the form in the contract.
    pub fn routes(&self) -> Result<BTreeMap<Ipv4Addr, Route>> {
        let map: HashMap<_, [u8; 4], Route> = self.open("ROUTES")?;
        map.iter().map(|entry| entry.map(|(subnet, route)| (subnet.into(), route)).context("read ROUTES")).collect()
    }

    /// The flows that the fast path carries, as the containers of the node see them.
    ///
    /// # Errors
    ///
    /// When the map is not there or not of the form in the contract.
    pub fn flows(&self) -> Result<Vec<(FlowKey, Flow)>> {
        let map: HashMap<_, FlowKey, Flow> = self.open("FLOWS")?;
        map.iter().collect::<Result<_, _>>().context("read FLOWS")
    }

    /// The local containers' addresses that the agent knows, and the node's own.
    ///
    /// # Errors
    ///
    /// When the map is not there or not of the form in the contract.
    pub fn endpoints(&self) -> Result<BTreeMap<Ipv4Addr, Endpoint>> {
        let map: HashMap<_, [u8; 4], Endpoint> = self.open("ENDPOINTS")?;
        map.iter().map(|entry| entry.map(|(at, owner)| (at.into(), owner)).context("read ENDPOINTS")).collect()
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
