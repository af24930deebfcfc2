//! How the agent starts: everything that may refuse comes before anything is changed.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, Result, bail};
use rtnetlink::Handle;
use tokio::{
    sync::mpsc,
    time::{Instant, interval_at},
};

use super::{
    Adopted, Agent, Settled, claim_port,
    device::Devices,
    follow_endpoints, follow_underlay,
    rules::Rules,
    state::{Choice, StateHandle},
    summary,
};
use crate::{
    config::AgentConfig,
    datastore::{self, Datastore},
    health::Health,
    holder,
    lease::LeaseEvent,
    link,
    masquerade::RulesConfig,
    metrics::Metrics,
    network::NetworkConfig,
    node::{self, Node},
    routes::RouteTable,
    subnet_file,
    underlay::{self, Outer, Underlay, UnderlayChoice},
    watch::{self, WatchEvent},
};

/// How often to look whether all programs are in their places.
const LOOK: Duration = Duration::from_secs(10);

impl<'a> Agent<'a> {
    pub(super) async fn start(
        config: &'a AgentConfig,
        handle: &Handle,
        health: Health,
        state: StateHandle,
        metrics: &Metrics,
        rules: &mut Rules,
    ) -> Result<Self> {
        subnet_file::could_write(&config.subnet_file)?;
        let store = metrics.time(datastore::open(&config.datastore)?);
        let (network, written) = network_config(&*store).await?;
        let underlay = choose_underlay(handle, config, &network).await?;
        node::check_decap(config.decap, network.backend.encapsulation())?;
        let mtu = node::overlay_mtu(&underlay, &network.backend, network.ipv6.is_some())?;
        let adopted = Adopted::find(handle, &network.backend).await?;
        let listener = claim_port(&network.backend, &underlay, &adopted).await?;
        let settled = Settled { network, underlay, mtu, macs: adopted.macs() };
        // Before a lease is taken that nobody would serve. The subnet plays no part in what is in the way of a device.
        for link in settled.clone().plan(config, settled.network.first_subnets()).links() {
            link::preview(handle, &link).await?;
        }
        for device in adopted.names() {
            config.run_dir.refuse_unknown_device(device)?;
        }

        let holder = holder::acquire(Arc::clone(&store), &settled.network, &settled.claim(config)).await?;
        state.lease(holder.expires());
        let (network, underlay) = (settled.network.clone(), settled.underlay.clone());
        let key = holder.lease().subnet;
        summary::tell(config, &settled, key, holder.origin());
        let presented = holder.node();
        let table = RouteTable::new(&network, presented.borrow().clone(), key);
        let (underlay_events, underlay_changes) = mpsc::channel(64);
        let watch = underlay::Watch::new(underlay.clone(), underlay_choice(config, &network))?;
        tokio::spawn(follow_underlay(watch, underlay_events));
        let (hold_events, held) = mpsc::channel(64);
        tokio::spawn(holder.keep(hold_events));
        let (watch_events, watched) = mpsc::channel(1024);
        tokio::spawn(watch::run(Arc::clone(&store), watch_events));

        let plan = settled.plan(config, key.ranges(&network));
        let node = Node::set_up(handle, &config.run_dir, plan).await?;
        let (found, endpoints) = mpsc::channel(64);
        tokio::spawn(follow_endpoints(key.subnets().collect(), found));
        let devices = Devices::new(node.watch_devices()?);
        let mut agent = Self {
            config,
            node,
            table,
            watched,
            held,
            degraded: false,
            network,
            judged: Some(written),
            underlay: underlay_changes,
            presented,
            devices,
            endpoints,
            look: interval_at(Instant::now() + LOOK, LOOK),
            health,
            state,
        };
        agent.first_routes().await?;
        agent.node.attach().await?;
        if let Some(listener) = listener {
            agent.node.serve_fragments(listener, &config.run_dir.maps())?;
        }
        rules.set(agent.rules()).await?;
        agent.write_subnet_file()?;
        tracing::info!(file = %config.subnet_file.display(), "ready");
        agent.state.change(|state| state.choice = Some(Choice::of(&agent.node)));
        agent.health.started();
        Ok(agent)
    }

    /// The netfilter rules that the options ask for.
    fn rules(&self) -> RulesConfig {
        let plan = self.node.plan();
        RulesConfig {
            name: link::device_name(plan.backend.vni()),
            ipv4: plan.ranges.ipv4,
            ipv6: plan.ranges.ipv6,
            masquerade: self.config.masquerade,
            forward: self.config.forward_rules,
        }
    }

    /// Waits for the first full list of leases, however long the datastore is silent, and makes the routes equal to it.
    async fn first_routes(&mut self) -> Result<()> {
        loop {
            match self.watched.recv().await.context("follow the leases")? {
                WatchEvent::Lease(event @ LeaseEvent::Reset(_)) => {
                    self.table.apply(event);
                    let changed = self.node.reconcile(self.table.routes()).await?;
                    tracing::info!(routes = self.table.routes().len(), changed, "routes in place");
                    return Ok(());
                }
                other => self.on_watch(other).await,
            }
        }
    }
}

/// The network config, and how it is written.
pub(crate) async fn network_config(store: &dyn Datastore) -> Result<(NetworkConfig, Vec<u8>)> {
    let Some(config) = store.config().await? else {
        bail!(
            "no network config in the datastore; write one, such as {{\"Network\":\"10.1.0.0/16\"}}, with `overlay config set`"
        );
    };
    Ok((NetworkConfig::parse(&config.value)?, config.value))
}

/// What was said about the underlay, and what the network config says of its families: those inside are those outside, as
/// far as the interface has them.
fn underlay_choice(config: &AgentConfig, network: &NetworkConfig) -> UnderlayChoice {
    let outer = match (network.ipv4, network.ipv6) {
        (_, None) => Outer::Ipv4,
        (Some(_), Some(_)) => Outer::Either,
        (None, Some(_)) => Outer::Ipv6,
    };
    UnderlayChoice { outer, ..config.underlay.clone() }
}

/// The underlay interface, which must not be inside the overlay network.
pub(crate) async fn choose_underlay(
    handle: &Handle,
    config: &AgentConfig,
    network: &NetworkConfig,
) -> Result<Underlay> {
    let underlay = underlay::select(handle, &underlay_choice(config, network)).await?;
    underlay.check_outside(network.networks())?;
    Ok(underlay)
}
