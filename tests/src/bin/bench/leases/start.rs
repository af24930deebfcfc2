//! How long an agent takes to start, and what it needs for that.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use super::{
    Start,
    process::{self, Memory},
    site::{LIMIT, RoutesMap, Site, ms_since, subnet},
};
use crate::stats::{Better, Summary};

/// How often is looked what the agent has come to.
const POLL: Duration = Duration::from_millis(1);

/// One start; times in milliseconds, memory in megabytes.
#[derive(Debug, Clone, Copy)]
struct One {
    routes: f64,
    forwarding: f64,
    ready: f64,
    cpu: f64,
    memory: Memory,
}

/// Starts an agent so many times with the leases of `site`.
///
/// # Errors
///
/// When it does not come up, or a route is missing.
pub(super) fn measure(site: &mut Site, starts: usize) -> Result<Start> {
    let all = (0..starts).map(|_| one(site)).collect::<Result<Vec<_>>>()?;
    let summary = |value: fn(&One) -> f64| {
        Summary::of(all.iter().map(value).collect(), Better::Lower).context("at least one start")
    };
    Ok(Start {
        leases: site.leases,
        routes_ms: summary(|one| one.routes)?,
        forwarding_ms: summary(|one| one.forwarding)?,
        ready_ms: summary(|one| one.ready)?,
        cpu_seconds: summary(|one| one.cpu)?,
        resident_mb: summary(|one| one.memory.resident)?,
        peak_mb: summary(|one| one.memory.peak)?,
    })
}

fn one(site: &mut Site) -> Result<One> {
    let last = site.leases - 1;
    let start = Instant::now();
    site.node.start_agent()?;
    let (mut routes, mut forwarding, mut ready) = (None, None, None);
    let mut map: Option<RoutesMap> = None;
    while routes.is_none() || forwarding.is_none() || ready.is_none() {
        ensure!(start.elapsed() < LIMIT, "the agent does not come up: {}", site.node.agent().tail());
        map = map.or_else(|| site.routes());
        // The agent fills the map in the order of the subnets.
        if routes.is_none() && map.as_ref().is_some_and(|map| map.get(&subnet(last).octets(), 0).is_ok()) {
            routes = Some(ms_since(start));
        }
        if forwarding.is_none() && site.probe(last)? {
            forwarding = Some(ms_since(start));
        }
        if ready.is_none() && site.node.subnet_file().exists() {
            ready = Some(ms_since(start));
        }
        thread::sleep(POLL);
    }
    let pid = site.node.agent().pid();
    let (cpu, memory) = (process::cpu_time(pid)?.as_secs_f64(), Memory::of(pid)?);
    let present = map.map_or(0, |map| map.keys().count());
    ensure!(present == site.leases as usize, "{present} routes for {} leases", site.leases);
    site.forget_agent()?;
    let [routes, forwarding, ready] = [routes, forwarding, ready].map(|time| time.unwrap_or(f64::NAN));
    Ok(One { routes, forwarding, ready, cpu, memory })
}
