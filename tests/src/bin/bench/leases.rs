//! `cargo xtask bench leases`: the agent with many leases, and many agents at once, over a real etcd.

mod change;
mod process;
mod rate;
mod site;
mod start;
mod storm;

use std::time::Duration;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use self::site::Site;
use crate::{report::Machine, stats::Summary};

/// How many leases there are while single ones change.
const CROWD: u32 = 10_000;

/// How much is measured.
#[derive(Debug)]
pub(crate) struct Extent {
    /// How many leases an agent starts with.
    pub(crate) sizes: &'static [u32],
    /// How often it starts with each.
    pub(crate) starts: usize,
    /// How many single changes.
    pub(crate) changes: u32,
    /// How long many changes a second go on.
    pub(crate) rate: Duration,
}

/// The agent by the number of leases.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct LeasesReport {
    /// The machine at the start.
    pub(crate) machine: Machine,
    /// Starts of an agent.
    pub(crate) starts: Vec<Start>,
    /// One new lease at a time, while 10,000 are there.
    pub(crate) change: Change,
    /// Many changes a second, while 10,000 are there.
    pub(crate) rate: Rate,
    /// Many agents that start at once.
    pub(crate) storm: Storm,
    /// What we want of the figures above.
    pub(crate) aims: Vec<Aim>,
}

/// Starts of an agent on a node without a past. Times are milliseconds from the start of the process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Start {
    /// Leases of other nodes in etcd.
    pub(crate) leases: u32,
    /// Until the last route is in the map.
    pub(crate) routes_ms: Summary,
    /// Until a packet for the last subnet has come out of the underlay interface.
    pub(crate) forwarding_ms: Summary,
    /// Until `subnet.env` is written.
    pub(crate) ready_ms: Summary,
    /// CPU time that the agent has taken by then, in seconds.
    pub(crate) cpu_seconds: Summary,
    /// Resident memory of the agent then (VmRSS), in megabytes of 1,000,000 bytes.
    pub(crate) resident_mb: Summary,
    /// The most it ever was until then (VmHWM), in megabytes.
    pub(crate) peak_mb: Summary,
}

/// One new lease at a time. Times are milliseconds from the request to etcd.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Change {
    /// Leases that were there before.
    pub(crate) leases: u32,
    /// How many were added.
    pub(crate) changes: u32,
    /// Until the route is in the map: half of them took at most so long.
    pub(crate) route_p50_ms: f64,
    /// The same for 99 %.
    pub(crate) route_p99_ms: f64,
    /// Until a packet for the subnet has come out of the underlay interface.
    pub(crate) packet_p50_ms: f64,
    /// The same for 99 %.
    pub(crate) packet_p99_ms: f64,
}

/// Many changes a second. Lags are milliseconds from the request to etcd to the route in the map.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Rate {
    /// Leases that are there and change.
    pub(crate) leases: u32,
    /// How long it went on, in seconds.
    pub(crate) seconds: f64,
    /// Changes that etcd took each second; 1,000 were asked for.
    pub(crate) changes_per_second: f64,
    /// Lag of 99 % of the changes looked at.
    pub(crate) lag_p99_ms: f64,
    /// Lag of the last change.
    pub(crate) last_lag_ms: f64,
    /// CPU time of the agent in that time, in seconds.
    pub(crate) cpu_seconds: f64,
}

/// Many agents that start at once, in one process and without a kernel.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Storm {
    /// How many.
    pub(crate) agents: u32,
    /// Until the last one has a subnet, in seconds.
    pub(crate) subnets_seconds: f64,
    /// Until each has a route to every other, in seconds.
    pub(crate) routes_seconds: f64,
}

/// A figure and the most that it should be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Aim {
    /// What it is about.
    pub(crate) what: String,
    /// The most that it should be.
    pub(crate) limit: f64,
    /// What it is.
    pub(crate) value: f64,
    /// Whether it is less.
    pub(crate) met: bool,
}

/// Measures everything in `extent`.
///
/// # Errors
///
/// When etcd or an agent fails.
pub(crate) fn measure(extent: &Extent) -> Result<LeasesReport> {
    let machine = Machine::now()?;
    let mut site = Site::new()?;
    let mut starts = Vec::new();
    for &leases in extent.sizes {
        site.fill(leases)?;
        starts.push(start::measure(&mut site, extent.starts)?);
        eprintln!("leases: {} starts with {leases} leases done", extent.starts);
    }
    drop(site);
    let mut site = Site::new()?;
    site.fill(CROWD)?;
    site.start_agent()?;
    let change = change::measure(&mut site, extent.changes)?;
    eprintln!("leases: {} single changes done", extent.changes);
    let rate = rate::measure(&mut site, extent.rate)?;
    eprintln!("leases: changes for {} s done", extent.rate.as_secs());
    drop(site);
    let storm = storm::measure()?;
    eprintln!("leases: {} agents at once done", storm.agents);
    let aims = aims(&starts, &change, &storm);
    Ok(LeasesReport { machine, starts, change, rate, storm, aims })
}

fn aims(starts: &[Start], change: &Change, storm: &Storm) -> Vec<Aim> {
    let aim = |what: &str, limit, value| Aim { what: what.to_owned(), limit, value, met: value < limit };
    let mut aims = Vec::new();
    if let Some(start) = starts.iter().find(|start| start.leases == CROWD) {
        aims.push(aim("10,000 leases: start to forwarding, ms", 500.0, start.forwarding_ms.median));
        aims.push(aim("10,000 leases: resident memory, MB", 40.0, start.resident_mb.median));
    }
    aims.push(aim("one new lease among 10,000: p99 to the first packet, ms", 20.0, change.packet_p99_ms));
    aims.push(aim("200 agents at once: until every one has a subnet, s", 10.0, storm.subnets_seconds));
    aims
}
