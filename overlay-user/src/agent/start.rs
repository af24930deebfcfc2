//! How the agent starts: everything that may refuse comes before anything is changed.

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use rtnetlink::Handle;
use tokio::{
    sync::mpsc,
    time::{Instant, interval_at},
};

use super::{
    Agent,
    device::Devices,
    follow_endpoints, follow_underlay,
    rules::Rules,
    state::{Choice, StateHandle},
    summary,
};
use crate::{
    allocate::Previous,
    config::AgentConfig,
    datastore::{self, Datastore},
    health::Health,
    holder::{self, Claim},
    lease::LeaseEvent,
    link::{self, LinkError},
    listener::Listener,
    mac::Mac,
    maps::Capacities,
    masquerade::RulesConfig,
    metrics::Metrics,
    network::{Backend, NetworkConfig, Ranges},
    node::{self, Macs, Node, Plan},
    routes::RouteTable,
    subnet_file::{self, PreviousSubnetFile},
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

/// Makes sure that nobody else has the tunnel's port. For `udp` the socket is kept; for VXLAN the kernel's device
/// will own the port, unless it does so already.
pub(crate) async fn claim_port(backend: &Backend, underlay: &Underlay, adopted: &Adopted) -> Result<Option<Listener>> {
    match backend {
        Backend::Udp { port } => {
            let end = underlay.ends().next().context("the udp backend needs an underlay address")?;
            Ok(Some(Listener::bind(end.address, *port).await?))
        }
        Backend::Vxlan { port, .. } => {
            if underlay.ipv4.is_some() && adopted.v4.1.is_none() {
                drop(Listener::bind(Ipv4Addr::UNSPECIFIED, *port).await?);
            }
            if underlay.ipv6.is_some() && adopted.v6.1.is_none() {
                drop(Listener::bind(Ipv6Addr::UNSPECIFIED, *port).await?);
            }
            Ok(None)
        }
    }
}

/// The overlay devices that an earlier agent has left, by name and MAC address.
#[derive(Debug, Clone)]
pub(crate) struct Adopted {
    v4: (String, Option<[u8; 6]>),
    v6: (String, Option<[u8; 6]>),
}

impl Adopted {
    /// Looks for those of this backend.
    ///
    /// # Errors
    /// When the kernel does not say which interfaces there are.
    pub(crate) async fn find(handle: &Handle, backend: &Backend) -> Result<Self, LinkError> {
        let (v4, v6) = (link::device_name(backend.vni()), link::ipv6_device_name(backend.vni()));
        let macs = (link::mac_of(handle, &v4).await?, link::mac_of(handle, &v6).await?);
        Ok(Self { v4: (v4, macs.0), v6: (v6, macs.1) })
    }

    /// None is there, as far as anybody knows.
    pub(crate) fn none(backend: &Backend) -> Self {
        let (v4, v6) = (link::device_name(backend.vni()), link::ipv6_device_name(backend.vni()));
        Self { v4: (v4, None), v6: (v6, None) }
    }

    /// The names of those that are there.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        [&self.v4, &self.v6].into_iter().filter(|(_, mac)| mac.is_some()).map(|(name, _)| name.as_str())
    }

    /// Their MAC addresses, which other nodes know; new ones for those that are not there.
    pub(crate) fn macs(&self) -> Macs {
        let mac = |mac: Option<[u8; 6]>| mac.unwrap_or_else(|| Mac::random().0);
        Macs { v4: mac(self.v4.1), v6: mac(self.v6.1) }
    }
}

/// What this node has settled on before it asks for a subnet.
#[derive(Debug, Clone)]
pub(crate) struct Settled {
    /// The network config.
    pub(crate) network: NetworkConfig,
    /// The underlay interface.
    pub(crate) underlay: Underlay,
    /// MTU of the overlay devices in bytes.
    pub(crate) mtu: u32,
    /// The MAC addresses of the overlay devices.
    pub(crate) macs: Macs,
}

impl Settled {
    /// Who claims subnets, and which ones this node had before.
    pub(crate) fn claim(&self, config: &AgentConfig) -> Claim {
        let node = node::presented(&self.network.backend, &self.underlay, self.macs);
        let previous = PreviousSubnetFile::read(&config.subnet_file);
        Claim {
            previous: Previous { v4: previous.subnet, v6: previous.ipv6_subnet },
            renew_margin: config.renew_margin,
            ..Claim::new(node)
        }
    }

    /// What the overlay on this node has to be once it owns the subnets in `ranges`.
    pub(crate) fn plan(self, config: &AgentConfig, ranges: Ranges) -> Plan {
        Plan {
            backend: self.network.backend,
            ranges,
            underlay: self.underlay,
            macs: self.macs,
            mtu: self.mtu,
            decap: config.decap,
            flow_ttl: config.flow_ttl,
            log_drops: config.log_drops,
            clsact: config.clsact,
            capacities: Capacities { ipv6: ranges.ipv6.is_some(), ..config.capacities },
        }
    }
}
