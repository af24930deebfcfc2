//! [`Sample`]: the counters at one moment.

use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use ipnetwork::Ipv4Network;
use overlay_common::{Endpoint, Reason, Route, Traffic};

use crate::{
    maps::{Drops, EndpointsMap, LocalNodeMap, Routes},
    rundir::RunDir,
};

/// The counters at one moment.
pub(crate) struct Sample {
    at: Instant,
    pub(super) routes: BTreeMap<Ipv4Network, Route>,
    traffic: BTreeMap<Ipv4Network, Traffic>,
    pub(super) drops: Vec<(Reason, u64)>,
    endpoints: BTreeMap<Ipv4Addr, Endpoint>,
}

impl Sample {
    pub(crate) fn read(run_dir: &RunDir) -> anyhow::Result<Self> {
        let maps = run_dir.existing_maps()?;
        let routes = Routes::<[u8; 4]>::open(&maps, LocalNodeMap::open(&maps)?.get()?.range::<[u8; 4]>().subnet().1)?;
        let endpoints = EndpointsMap::<[u8; 4]>::open(&maps)?.all()?;
        let drops = Drops::open(&maps)?.all()?;
        Ok(Self { at: Instant::now(), traffic: routes.traffic()?, routes: routes.all()?, drops, endpoints })
    }

    /// How much later than `before` this is.
    pub(crate) fn since(&self, before: &Self) -> Duration {
        self.at - before.at
    }

    /// What was exchanged with a subnet so far.
    pub(super) fn traffic(&self, subnet: Ipv4Network) -> Traffic {
        self.traffic.get(&subnet).copied().unwrap_or_default()
    }

    /// Addresses of containers, and the indices of their veths on the node's side.
    pub(crate) fn containers(&self) -> impl Iterator<Item = (Ipv4Addr, u32)> {
        let all = self.endpoints.iter().map(|(&address, endpoint)| (address, endpoint.ifindex()));
        all.filter(|(_, veth)| *veth != 0)
    }
}
