//! [`Reading`]: all counters at one moment; two of them make rates.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use anyhow::Result;

use crate::{
    endpoints::{ContainerCounts, container_counts},
    rundir::RunDir,
    status::{Sample, Status, per_second},
};

/// The counters of maps and containers at one moment.
pub(super) struct Reading {
    sample: Sample,
    /// By the index of the veth on the node's side.
    containers: BTreeMap<u32, ContainerCounts>,
}

/// What is shown: the node's status, and its containers.
#[derive(Debug)]
pub(super) struct Rates {
    pub(super) status: Status,
    pub(super) containers: Vec<ContainerRate>,
}

/// What a container exchanges with anybody, a second, as it sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ContainerRate {
    pub(super) address: IpAddr,
    /// The veth on the node's side.
    pub(super) interface: String,
    pub(super) sent_bytes: u64,
    pub(super) received_bytes: u64,
    /// Of both directions.
    pub(super) packets: u64,
}

impl Reading {
    pub(super) async fn take(run_dir: &RunDir) -> Result<Self> {
        let sample = Sample::read(run_dir)?;
        let veths: BTreeSet<u32> = sample.containers().map(|(_, veth)| veth).collect();
        Ok(Self { containers: container_counts(&veths).await?, sample })
    }

    /// The rates from `before` until this.
    pub(super) async fn since(&self, run_dir: &RunDir, before: &Self) -> Result<Rates> {
        let seconds = self.sample.since(&before.sample).as_secs_f64();
        let mut seen = BTreeSet::new();
        // A container with several addresses has one row.
        let containers =
            self.sample.containers().filter(|(_, veth)| seen.insert(*veth)).filter_map(|(address, veth)| {
                let (new, old) = (self.containers.get(&veth)?, before.containers.get(&veth));
                // One that has come since: counted from now on.
                let old = old.unwrap_or(new);
                let rate =
                    |count: fn(&ContainerCounts) -> u64| per_second(count(new).saturating_sub(count(old)), seconds);
                Some(ContainerRate {
                    address,
                    interface: new.interface.clone(),
                    sent_bytes: rate(|counts| counts.sent_bytes),
                    received_bytes: rate(|counts| counts.received_bytes),
                    packets: rate(|counts| counts.sent_packets + counts.received_packets),
                })
            });
        let containers = containers.collect();
        Ok(Rates { status: Status::between(run_dir, &before.sample, &self.sample).await?, containers })
    }
}
