//! [`Sample`]: the counters at one moment.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    path::Path,
    time::{Duration, Instant},
};

use ipnetwork::IpNetwork;
use overlay_common::{Endpoint, LocalNode, Reason, Route, Traffic};

use crate::{
    maps::{Drops, EndpointsMap, Family, LocalNodeMap, Routes},
    rundir::RunDir,
};

/// The counters at one moment, of both families.
pub(crate) struct Sample {
    at: Instant,
    pub(super) routes: BTreeMap<IpNetwork, Route>,
    traffic: BTreeMap<IpNetwork, Traffic>,
    pub(super) drops: Vec<(Reason, u64)>,
    endpoints: BTreeMap<IpAddr, Endpoint>,
}

impl Sample {
    pub(crate) fn read(run_dir: &RunDir) -> anyhow::Result<Self> {
        let maps = run_dir.existing_maps()?;
        let node = LocalNodeMap::open(&maps)?.get()?;
        let mut sample = Self {
            at: Instant::now(),
            routes: BTreeMap::new(),
            traffic: BTreeMap::new(),
            drops: Drops::open(&maps)?.all()?,
            endpoints: BTreeMap::new(),
        };
        sample.add::<[u8; 4]>(&maps, &node)?;
        sample.add::<[u8; 16]>(&maps, &node)?;
        Ok(sample)
    }

    /// Adds what the maps of one family hold, if the overlay has it.
    fn add<A: Family>(&mut self, maps: &Path, node: &LocalNode) -> anyhow::Result<()> {
        if !node.range::<A>().is_on() {
            return Ok(());
        }
        let routes = Routes::<A>::open(maps, node.range::<A>().subnet().1)?;
        self.traffic.extend(routes.traffic()?.into_iter().map(|(subnet, traffic)| (subnet.into(), traffic)));
        self.routes.extend(routes.all()?.into_iter().map(|(subnet, route)| (subnet.into(), route)));
        let endpoints = EndpointsMap::<A>::open(maps)?.all()?;
        self.endpoints.extend(endpoints.into_iter().map(|(address, endpoint)| (address.into(), endpoint)));
        Ok(())
    }

    /// How much later than `before` this is.
    pub(crate) fn since(&self, before: &Self) -> Duration {
        self.at - before.at
    }

    /// What was exchanged with a subnet so far.
    pub(super) fn traffic(&self, subnet: IpNetwork) -> Traffic {
        self.traffic.get(&subnet).copied().unwrap_or_default()
    }

    /// Addresses of containers, IPv4's first, and the indices of their veths on the node's side.
    pub(crate) fn containers(&self) -> impl Iterator<Item = (IpAddr, u32)> {
        let all = self.endpoints.iter().map(|(&address, endpoint)| (address, endpoint.ifindex()));
        all.filter(|(_, veth)| *veth != 0)
    }
}
