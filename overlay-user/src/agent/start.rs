//! How the agent starts: everything that may refuse comes before anything is changed.

use std::{net::Ipv4Addr, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, anyhow, bail};
use ipnetwork::Ipv4Network;
use rtnetlink::Handle;
use tokio::{
    sync::mpsc,
    time::{Instant, interval_at},
};

use super::{
    Agent,
    device::Device,
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
    lease::{self, LeaseEvent},
    link,
    listener::Listener,
    mac::Mac,
    masquerade::RulesConfig,
    metrics::Metrics,
    network::{Backend, NetworkConfig, Pool, Range},
    node::{self, Node, Plan},
    routes::RouteTable,
    subnet_file::{self, PreviousSubnetFile},
    underlay::{self, Underlay},
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
        let network_range = ipv4_pool(&network)?.network();
        let underlay = choose_underlay(handle, config, network_range).await?;
        node::check_decap(config.decap, network.backend.encapsulation())?;
        let mtu = node::overlay_mtu(&underlay, &network.backend)?;
        let device = link::device_name(network.backend.vni());
        let adopted = link::mac_of(handle, &device).await?;
        let listener = claim_port(&network.backend, underlay.address, adopted.is_some()).await?;
        let mac = adopted.unwrap_or_else(|| Mac::random().0);
        let settled = Settled { backend: network.backend.clone(), network: network_range, underlay, mtu, mac };
        // Before a lease is taken that nobody would serve. The subnet plays no part in what is in the way of a device.
        link::preview(handle, &settled.clone().plan(config, network_range).link()).await?;
        if adopted.is_some() {
            config.run_dir.refuse_unknown_device(&device)?;
        }

        let holder = holder::acquire(Arc::clone(&store), &network, &settled.claim(config)).await?;
        state.lease(holder.expires());
        let underlay = settled.underlay.clone();
        let subnet = holder.lease().subnet.v4;
        summary::tell(config, &settled, subnet, holder.origin());
        let table = RouteTable::new(&network, underlay.public_ip, subnet);
        let (underlay_events, underlay_changes) = mpsc::channel(64);
        let watch = underlay::Watch::new(underlay.clone(), config.underlay.clone())?;
        tokio::spawn(follow_underlay(watch, underlay_events));
        let public_ip = holder.public_ip();
        let (hold_events, held) = mpsc::channel(64);
        tokio::spawn(holder.keep(hold_events));
        let (watch_events, watched) = mpsc::channel(1024);
        tokio::spawn(watch::run(Arc::clone(&store), watch_events));

        let plan = settled.plan(config, subnet);
        let node = Node::set_up(handle, &config.run_dir, plan).await?;
        let (found, endpoints) = mpsc::channel(64);
        tokio::spawn(follow_endpoints(subnet, found));
        let watch = Device::new(node.watch_device()?);
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
            public_ip,
            device: watch,
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
        rules.set(agent.rules(device)).await?;
        agent.write_subnet_file()?;
        tracing::info!(file = %config.subnet_file.display(), "ready");
        agent.state.change(|state| state.choice = Some(Choice::of(&agent.node)));
        agent.health.started();
        Ok(agent)
    }

    /// The netfilter rules that the options ask for.
    fn rules(&self, device: String) -> RulesConfig {
        let plan = self.node.plan();
        RulesConfig {
            name: device,
            ipv4: Some(Range { network: plan.network, subnet: plan.subnet }),
            ipv6: None,
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

/// The addresses of the overlay network, which must be IPv4's alone: an IPv6 subnet would be leased and not served.
pub(crate) fn ipv4_pool(network: &NetworkConfig) -> Result<Pool<Ipv4Addr>> {
    if network.ipv6.is_some() {
        bail!("network config: EnableIPv6 true: this version carries no IPv6; set EnableIPv6 to false");
    }
    network.ipv4.ok_or_else(|| anyhow!("network config: EnableIPv4 false: IPv4 is needed"))
}

/// The underlay interface, which must not be inside the overlay network.
pub(crate) async fn choose_underlay(handle: &Handle, config: &AgentConfig, network: Ipv4Network) -> Result<Underlay> {
    let underlay = underlay::select(handle, &config.underlay).await?;
    underlay.check_outside(network)?;
    Ok(underlay)
}

/// Makes sure that nobody else has the tunnel's port. For `udp` the socket is kept; for VXLAN the kernel's device
/// will own the port, unless it does so already.
pub(crate) async fn claim_port(backend: &Backend, address: Ipv4Addr, has_device: bool) -> Result<Option<Listener>> {
    match backend {
        Backend::Udp { port } => Ok(Some(Listener::bind(address, *port).await?)),
        Backend::Vxlan { port, .. } => {
            if !has_device {
                drop(Listener::bind(Ipv4Addr::UNSPECIFIED, *port).await?);
            }
            Ok(None)
        }
    }
}

/// What this node has settled on before it asks for a subnet.
#[derive(Debug, Clone)]
pub(crate) struct Settled {
    /// How packets travel.
    pub(crate) backend: Backend,
    /// The overlay network.
    pub(crate) network: Ipv4Network,
    /// The underlay interface.
    pub(crate) underlay: Underlay,
    /// MTU of the overlay device in bytes.
    pub(crate) mtu: u32,
    /// MAC address of the overlay device.
    pub(crate) mac: [u8; 6],
}

impl Settled {
    /// Who claims a subnet, and which one this node had before.
    pub(crate) fn claim(&self, config: &AgentConfig) -> Claim {
        let backend = match self.backend {
            Backend::Udp { .. } => lease::Backend::Udp,
            Backend::Vxlan { vni, .. } => {
                lease::Backend::Vxlan { v4: Some(lease::Vtep { vni, mac: Mac(self.mac) }), v6: None }
            }
        };
        let node = lease::Node { public_ip: self.underlay.public_ip, public_ipv6: None, backend };
        let previous = PreviousSubnetFile::read(&config.subnet_file);
        Claim {
            previous: Previous { v4: previous.subnet, v6: previous.ipv6_subnet },
            renew_margin: config.renew_margin,
            ..Claim::new(node)
        }
    }

    /// What the overlay on this node has to be once it owns `subnet`.
    pub(crate) fn plan(self, config: &AgentConfig, subnet: Ipv4Network) -> Plan {
        Plan {
            backend: self.backend,
            network: self.network,
            subnet,
            underlay: self.underlay,
            mac: self.mac,
            mtu: self.mtu,
            decap: config.decap,
            flow_ttl: config.flow_ttl,
            log_drops: config.log_drops,
            clsact: config.clsact,
            capacities: config.capacities,
        }
    }
}
