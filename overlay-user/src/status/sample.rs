//! [`Sample`]: the counters at one moment.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use ipnetwork::Ipv4Network;
use overlay_common::{Reason, Route, Traffic};

use crate::{
    maps::{Drops, EndpointsMap, LocalNodeMap, Routes},
    rundir::RunDir,
};

/// The counters at one moment.
pub(super) struct Sample {
    at: Instant,
    pub(super) routes: BTreeMap<Ipv4Network, Route>,
    traffic: BTreeMap<Ipv4Network, Traffic>,
    pub(super) drops: Vec<(Reason, u64)>,
    pub(super) containers: usize,
}

impl Sample {
    pub(super) fn read(run_dir: &RunDir) -> anyhow::Result<Self> {
        let maps = run_dir.existing_maps()?;
        let routes = Routes::open(&maps, LocalNodeMap::open(&maps)?.get()?.subnet().1)?;
        let endpoints = EndpointsMap::open(&maps)?.all()?;
        let containers = endpoints.values().filter(|endpoint| endpoint.ifindex() != 0).count();
        let drops = Drops::open(&maps)?.all()?;
        Ok(Self { at: Instant::now(), traffic: routes.traffic()?, routes: routes.all()?, drops, containers })
    }

    /// How much later than `before` this is.
    pub(super) fn since(&self, before: &Self) -> Duration {
        self.at - before.at
    }

    /// What was exchanged with a subnet so far.
    pub(super) fn traffic(&self, subnet: Ipv4Network) -> Traffic {
        self.traffic.get(&subnet).copied().unwrap_or_default()
    }
}
