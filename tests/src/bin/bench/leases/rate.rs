//! Whether the agent keeps up with many changes a second.

use std::{
    sync::mpsc::{Receiver, Sender, channel},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use etcd_client::Client;
use tokio::{task::JoinSet, time::MissedTickBehavior};

use super::{
    Rate, process,
    site::{LIMIT, Site, address, key, ms_since, subnet, value},
};
use crate::stats::quantile;

/// How many changes are asked for each second.
const CHANGES: u32 = 1000;

/// One of so many changes is looked at, and the last.
const LOOKED_AT: u32 = 20;

/// How often is looked.
const POLL: Duration = Duration::from_micros(200);

/// A change that was asked for.
#[derive(Debug)]
struct Asked {
    /// The lease.
    number: u32,
    /// The node that owns it now.
    owner: u32,
    at: Instant,
}

/// Lets leases move to other nodes for `duration`.
///
/// # Errors
///
/// When etcd refuses, or a route does not change.
pub(super) fn measure(site: &mut Site, duration: Duration) -> Result<Rate> {
    let leases = site.leases;
    let pid = site.node.agent().pid();
    let routes = site.routes().context("open the map ROUTES")?;
    let total = CHANGES * u32::try_from(duration.as_secs())?;
    let (asked, looked_at) = channel();
    let (cpu, start) = (process::cpu_time(pid)?, Instant::now());
    let task = site.spawn(ask(site.client(), leases, total, asked));
    let (lags, took) = follow(&looked_at, start, |change| {
        let route = routes.get(&subnet(change.number).octets(), 0);
        route.is_ok_and(|route| route.next_hop().ip() == address(change.owner))
    })?;
    site.block_on(async { task.await? })?;
    let cpu_seconds = (process::cpu_time(pid)? - cpu).as_secs_f64();
    let (seconds, last) = (took.as_secs_f64(), lags.last().copied().context("at least one change")?);
    Ok(Rate {
        leases,
        seconds,
        changes_per_second: f64::from(total) / seconds,
        lag_p99_ms: quantile(&lags, 0.99).unwrap_or(f64::NAN),
        last_lag_ms: last,
        cpu_seconds,
    })
}

/// Asks for `total` changes, a thousandth of a second apart, and tells which of them to look at.
async fn ask(client: Client, leases: u32, total: u32, asked: Sender<Asked>) -> Result<()> {
    let mut tick = tokio::time::interval(Duration::from_secs(1) / CHANGES);
    tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut puts = JoinSet::new();
    for change in 0..total {
        tick.tick().await;
        // An owner that no lease has had yet.
        let (number, owner) = (change % leases, leases + change);
        if change % LOOKED_AT == 0 || change == total - 1 {
            asked.send(Asked { number, owner, at: Instant::now() }).context("nobody looks")?;
        }
        let mut client = client.clone();
        puts.spawn(async move { client.put(key(number), value(owner), None).await.map(drop) });
        while let Some(done) = puts.try_join_next() {
            done??;
        }
    }
    while let Some(done) = puts.join_next().await {
        done??;
    }
    Ok(())
}

/// Waits for each change in the order they were asked for. Returns the lags in milliseconds, and how long the changes
/// were asked for since `start`.
fn follow(changes: &Receiver<Asked>, start: Instant, done: impl Fn(&Asked) -> bool) -> Result<(Vec<f64>, Duration)> {
    let mut lags = Vec::new();
    let mut took = Duration::ZERO;
    while let Ok(change) = changes.recv() {
        took = change.at - start;
        while !done(&change) {
            ensure!(change.at.elapsed() < LIMIT, "the change of {} does not arrive", subnet(change.number));
            thread::sleep(POLL);
        }
        lags.push(ms_since(change.at));
    }
    Ok((lags, took))
}
