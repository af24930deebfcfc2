//! The node agent: joins datastore, interfaces and data path, and stays until it is told to go.

mod device;
mod network;
mod rules;
mod settled;
mod start;
pub mod state;
mod summary;
mod underlay;

use anyhow::{Context as _, Result};
use ipnetwork::IpNetwork;
use rtnetlink::Handle;
use sd_notify::NotifyState;
use tokio::{
    sync::{mpsc, watch},
    time::Interval,
};

use self::{
    device::Devices,
    rules::Rules,
    state::{Choice, StateHandle},
};
pub(crate) use self::{
    settled::{Adopted, Settled, claim_port},
    start::{choose_underlay, network_config},
};
use crate::{
    backoff::Backoff,
    config::AgentConfig,
    endpoints::{self, Endpoints},
    health::Health,
    holder::HoldEvent,
    http::{self, Service},
    in_words::joined,
    lease,
    metrics::Metrics,
    network::NetworkConfig,
    node::{self, Node},
    privileges,
    routes::{RouteChange, RouteTable},
    rundir::RunDir,
    signals::Signals,
    subnet_file::SubnetFile,
    underlay::{UnderlayEvent, Watch as UnderlayWatch},
    watch::WatchEvent,
};

/// Runs the agent until SIGTERM or SIGINT.
///
/// # Errors
/// When it cannot start; the node is then as it was before, unless an earlier agent's data path was there.
pub async fn run(config: AgentConfig) -> Result<()> {
    privileges::require_for_agent(&config.run_dir)?;
    let mut signals = Signals::new()?;
    let handle = netlink()?;
    config.run_dir.refuse_newer_layout()?;
    let had_data_path = config.run_dir.has_data_path();
    let lock = config.run_dir.lock()?;
    let health = Health::new(config.run_dir.clone());
    let state = StateHandle::default();
    if let Err(error) = state.serve(&config.run_dir.socket(), health.clone()) {
        tracing::warn!(error = format!("{error:#}"), "`overlay status` will not hear from this agent");
    }
    let metrics = Metrics::new(&config.run_dir, health.clone(), state.clone());
    http::serve(services(&config, &health, &metrics)).await?;
    if !config.without_effect.is_empty() {
        tracing::info!(flags = config.without_effect.join(" "), "flags of flanneld's that have no effect here");
    }
    let mut rules = Rules::default();
    let started = tokio::select! {
        started = Agent::start(&config, &handle, health, state, &metrics, &mut rules) => started.map(Some),
        () = signals.recv() => Ok(None),
    };
    let mut take_down = async || {
        rules.end().await;
        node::take_down(&handle, &config.run_dir).await
    };
    let outcome = match started {
        Ok(Some(agent)) => {
            notify(NotifyState::Ready);
            let outcome = agent.serve(&mut signals).await;
            notify(NotifyState::Stopping);
            if config.teardown_on_exit {
                take_down().await?;
                tracing::info!("stopped; nothing is left on this node");
            } else {
                tracing::info!("stopped; the data path goes on forwarding until `overlay teardown`");
            }
            outcome
        }
        // What an earlier agent has left goes on forwarding; what this one has begun goes.
        unfinished if had_data_path => unfinished.map(drop),
        unfinished => take_down().await.and(unfinished.map(drop)),
    };
    drop(lock);
    outcome
}

/// What is answered over HTTP, where the options ask for it.
fn services(config: &AgentConfig, health: &Health, metrics: &Metrics) -> Vec<Service> {
    let health = config.healthz.map(|address| Service {
        address,
        what: "health checks",
        options: "--healthz-ip or --healthz-port",
        router: health.router(),
    });
    let metrics = config.metrics.map(|address| Service {
        address,
        what: "metrics",
        options: "--metrics-addr",
        router: metrics.router(),
    });
    health.into_iter().chain(metrics).collect()
}

/// Takes away what agents have left on this node.
///
/// # Errors
/// When an agent runs, or the kernel refuses.
pub async fn teardown(run_dir: &RunDir) -> Result<()> {
    privileges::require_for_teardown()?;
    if !run_dir.exists() {
        tracing::info!("nothing to take away");
        return Ok(());
    }
    let _lock = run_dir.lock()?;
    node::take_down(&netlink()?, run_dir).await
}

/// A running agent.
struct Agent<'a> {
    config: &'a AgentConfig,
    node: Node,
    table: RouteTable,
    watched: mpsc::Receiver<WatchEvent>,
    held: mpsc::Receiver<HoldEvent>,
    /// Something is wrong with our lease, and was said to be.
    degraded: bool,
    /// The network config in force.
    network: NetworkConfig,
    /// The network config last judged, in force or not, so that none is reported twice.
    judged: Option<Vec<u8>>,
    underlay: mpsc::Receiver<UnderlayEvent>,
    /// This node as our lease is to present it.
    presented: watch::Sender<lease::Node>,
    devices: Devices,
    endpoints: mpsc::Receiver<Endpoints>,
    /// When to look whether all programs are in their places: the kernel gives no notice when one is detached.
    look: Interval,
    health: Health,
    state: StateHandle,
}

impl Agent<'_> {
    async fn serve(mut self, signals: &mut Signals) -> Result<()> {
        loop {
            tokio::select! {
                () = signals.recv() => return Ok(()),
                event = self.watched.recv() => self.on_watch(event.context("the watch of the leases ended")?).await,
                event = self.held.recv() => self.on_hold(event.context("the lease's keeper ended")?),
                Some(event) = self.underlay.recv() => {
                    if let Err(error) = self.on_underlay(event).await {
                        tracing::warn!(error = format!("{error:#}"), "underlay interface not followed");
                    }
                }
                event = self.devices.next() => self.on_device(event).await,
                Some(found) = self.endpoints.recv() => self.node.follow_endpoints(found),
                _ = self.look.tick() => {
                    if let Err(error) = self.node.attach_missing().await {
                        tracing::warn!(error = format!("{error:#}"), "programs not attached again");
                    }
                }
                () = self.node.attachment_due() => self.node.attach_next(),
            }
            self.state.change(|state| state.choice = Some(Choice::of(&self.node)));
        }
    }

    async fn on_watch(&mut self, event: WatchEvent) {
        match event {
            WatchEvent::Lease(event) => {
                let changes = self.table.apply(event);
                self.change_routes(changes).await;
            }
            WatchEvent::Config(config) => self.on_config(config.map(|config| config.value)).await,
            // Each one was reported, with the reason.
            WatchEvent::BadKeys(count) => {
                tracing::debug!(count, "keys or values are no leases");
                self.state.change(|state| state.datastore.skipped = count);
            }
            WatchEvent::Silent(error) => {
                tracing::warn!(%error, "datastore is silent; routes stay as they are");
                self.state.datastore(Some(error.to_string()));
            }
            WatchEvent::Answers => {
                tracing::info!("datastore answers again");
                self.state.datastore(None);
            }
        }
    }

    async fn change_routes(&mut self, changes: Vec<RouteChange>) {
        for change in changes {
            if let Err(error) = self.node.change_route(change).await {
                tracing::warn!(error = format!("{error:#}"), ?change, "route not changed");
            }
        }
    }

    fn on_hold(&mut self, event: HoldEvent) {
        let was_degraded = std::mem::replace(&mut self.degraded, false);
        let claimed = match event {
            HoldEvent::Held { lease, expires } => {
                self.state.lease(expires);
                match was_degraded {
                    true => tracing::info!(subnet = %lease.subnet, "our lease is in order again"),
                    false => tracing::debug!(subnet = %lease.subnet, "lease held"),
                }
                self.health.subnet_held_by(None);
                self.node.claim_subnet(true)
            }
            HoldEvent::Degraded { reason } => {
                self.degraded = true;
                tracing::warn!(reason, "degraded; the data path goes on");
                self.state.lease_problem(reason);
                Ok(())
            }
            HoldEvent::Lost { to } => {
                self.degraded = true;
                let subnet = joined(self.node.plan().ranges.subnets());
                tracing::warn!(%subnet, to = %to.address(), "degraded: another node holds our subnet; nothing is forwarded for it");
                self.health.subnet_held_by(Some(to.address()));
                self.state.lease_problem(format!("another node holds it: {}", to.address()));
                self.node.claim_subnet(false)
            }
            HoldEvent::Retaken { lease, expires } => {
                self.state.lease(expires);
                tracing::info!(subnet = %lease.subnet, "our lease was gone and is taken back");
                self.health.subnet_held_by(None);
                self.node.claim_subnet(true)
            }
        };
        if let Err(error) = claimed {
            tracing::warn!(error = format!("{error:#}"), "claim on our subnet not changed");
        }
    }

    fn write_subnet_file(&self) -> Result<()> {
        let plan = self.node.plan();
        let file = SubnetFile { ranges: plan.ranges, mtu: plan.mtu, ip_masq: self.config.masquerade.is_some() };
        Ok(file.write(&self.config.subnet_file)?)
    }
}

/// Passes on what containers there are.
async fn follow_endpoints(subnets: Vec<IpNetwork>, found: mpsc::Sender<Endpoints>) {
    let mut backoff = Backoff::default();
    loop {
        let watched = match endpoints::Watch::new(subnets.clone()) {
            Ok(watch) => watch.run(found.clone()).await,
            Err(error) => Err(error),
        };
        let Err(error) = watched else { return };
        tracing::warn!(%error, "containers not read, trying again");
        backoff.wait().await;
    }
}

/// Passes on what happens to the underlay interface. A task of its own, so that waiting for another try holds nobody up.
async fn follow_underlay(mut watch: UnderlayWatch, events: mpsc::Sender<UnderlayEvent>) {
    let mut backoff = Backoff::default();
    loop {
        match watch.next().await {
            Ok(event) => {
                backoff.reset();
                if events.send(event).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                tracing::warn!(%error, "underlay interface not read, trying again");
                backoff.wait().await;
            }
        }
    }
}

/// Tells the service manager, if one has started us, how far we are.
fn notify(state: NotifyState) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(%error, "service manager not told");
    }
}

pub(crate) fn netlink() -> Result<Handle> {
    let (connection, handle, _) = rtnetlink::new_connection().context("open a netlink socket")?;
    tokio::spawn(connection);
    Ok(handle)
}
