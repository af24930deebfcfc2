//! Many agents that start at the same moment: as tasks of this process, with everything but a kernel.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use overlay_tests::etcd::Etcd;
use overlay_user::{
    datastore::{self, DatastoreConfig, EtcdOptions},
    holder::{self, Claim},
    lease::SubnetKey,
    network::NetworkConfig,
    routes::RouteTable,
    watch::{self, WatchEvent},
};
use tokio::{sync::mpsc, task::JoinSet, time::timeout};

use super::{
    Storm,
    site::{self, CONFIG, LIMIT},
};

/// How many agents.
const AGENTS: u32 = 200;

/// What came of one agent.
#[derive(Debug)]
struct Started {
    subnet: SubnetKey,
    /// Until it had it.
    subnet_after: Duration,
    /// Until it had a route to every other.
    routes_after: Duration,
}

/// Starts the agents and waits until each knows every other.
///
/// # Errors
///
/// When one gets no subnet or the same as another, or does not come to know all.
pub(super) fn measure() -> Result<Storm> {
    let etcd = Etcd::on_loopback()?;
    etcd.put(overlay_tests::cluster::CONFIG_KEY, CONFIG)?;
    let runtime = site::runtime(etcd.netns())?;
    let endpoint = etcd.endpoint();
    let all = async move {
        let mut agents = JoinSet::new();
        let start = Instant::now();
        for number in 0..AGENTS {
            agents.spawn(agent(number, endpoint.clone(), start));
        }
        let mut started = Vec::new();
        while let Some(agent) = agents.join_next().await {
            started.push(agent??);
        }
        Ok::<_, anyhow::Error>(started)
    };
    let started = runtime.block_on(async { tokio::spawn(timeout(LIMIT, all)).await })?;
    let started = started.context("200 agents do not come up")??;
    let subnets: BTreeSet<_> = started.iter().map(|agent| agent.subnet).collect();
    ensure!(subnets.len() == AGENTS as usize, "{} subnets for {AGENTS} agents", subnets.len());
    let last = |after: fn(&Started) -> Duration| started.iter().map(after).max().unwrap_or_default().as_secs_f64();
    Ok(Storm {
        agents: AGENTS,
        subnets_seconds: last(|agent| agent.subnet_after),
        routes_seconds: last(|agent| agent.routes_after),
    })
}

/// One agent: takes a subnet, keeps it, and follows the others until it knows all.
async fn agent(number: u32, endpoint: String, start: Instant) -> Result<Started> {
    let options = EtcdOptions { endpoints: vec![endpoint], ..EtcdOptions::default() };
    let store = datastore::open(&DatastoreConfig::Etcd(options))?;
    let config = store.config().await?.context("no network config")?;
    let network = NetworkConfig::parse(&config.value)?;
    let claim = Claim::new(site::node(number));
    let holder = holder::acquire(Arc::clone(&store), &network, &claim).await?;
    let (subnet, subnet_after) = (holder.lease().subnet, start.elapsed());
    let (hold_events, mut held) = mpsc::channel(64);
    let keeping = tokio::spawn(holder.keep(hold_events));
    let (watch_events, mut watched) = mpsc::channel(1024);
    tokio::spawn(watch::run(store, watch_events));
    let mut table = RouteTable::new(&network, claim.node.clone(), subnet);
    while table.routes().len() < AGENTS as usize - 1 {
        tokio::select! {
            event = watched.recv() => if let WatchEvent::Lease(event) = event.context("the watch has ended")? {
                table.apply(event);
            },
            event = held.recv() => drop(event.context("the keeper has ended")?),
        }
    }
    keeping.abort();
    Ok(Started { subnet, subnet_after, routes_after: start.elapsed() })
}
