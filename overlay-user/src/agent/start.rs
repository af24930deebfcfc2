//! How the agent starts: everything that may refuse comes before anything is changed.

use std::{net::Ipv4Addr, sync::Arc};

use anyhow::{Context as _, Result, anyhow, bail};
use rtnetlink::Handle;
use tokio::sync::mpsc;

use super::{Agent, follow_endpoints, follow_underlay};
use crate::{
    allocate::Previous,
    backoff::Backoff,
    config::AgentConfig,
    datastore::{self, Datastore},
    health::Health,
    holder::{self, Claim, Holder},
    lease::{self, LeaseEvent},
    link,
    listener::Listener,
    mac::Mac,
    masquerade::{RulesConfig, TrafficRules},
    network::{Backend, NetworkConfig},
    node::{self, Node, Plan},
    routes::RouteTable,
    subnet_file::PreviousSubnetFile,
    underlay::{self, Underlay},
    watch::{self, WatchEvent},
};

impl<'a> Agent<'a> {
    pub(super) async fn start(config: &'a AgentConfig, handle: &Handle, health: Health) -> Result<Self> {
        let store = datastore::open(&config.datastore)?;
        let (network, written) = network_config(&*store).await?;
        let pool = network.ipv4.ok_or_else(|| anyhow!("network config: EnableIPv4 false: IPv4 is needed"))?;
        let underlay = underlay::select(handle, &config.underlay).await?;
        underlay.check_outside(pool.network())?;
        node::check_decap(config.decap, network.backend.encapsulation())?;
        let mtu = node::overlay_mtu(&underlay, &network.backend)?;
        let device = link::device_name(network.backend.vni());
        let adopted = link::mac_of(handle, &device).await?;
        let listener = claim_port(&network.backend, underlay.address, adopted.is_some()).await?;
        let mac = adopted.unwrap_or_else(|| Mac::random().0);

        let holder = acquire(&store, &network, config, &underlay, mac).await?;
        let subnet = holder.lease().subnet.v4;
        tracing::info!(
            %subnet, interface = underlay.name, address = %underlay.address, public_ip = %underlay.public_ip, mtu,
            backend = network.backend.name(), device, "subnet taken"
        );
        let table = RouteTable::new(&network, underlay.public_ip, subnet);
        let (underlay_events, underlay_changes) = mpsc::channel(64);
        tokio::spawn(follow_underlay(underlay::Watch::new(underlay.clone())?, underlay_events));
        let (hold_events, held) = mpsc::channel(64);
        tokio::spawn(holder.keep(hold_events));
        let (watch_events, watched) = mpsc::channel(1024);
        tokio::spawn(watch::run(Arc::clone(&store), watch_events));

        let plan = Plan {
            backend: network.backend.clone(),
            network: pool.network(),
            subnet,
            underlay,
            mac,
            mtu,
            decap: config.decap,
            flow_ttl: config.flow_ttl,
            log_drops: config.log_drops,
        };
        let node = Node::set_up(handle, &config.run_dir, plan).await?;
        let (found, endpoints) = mpsc::channel(64);
        tokio::spawn(follow_endpoints(subnet, found));
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
            endpoints,
            health,
        };
        agent.first_routes().await?;
        agent.node.attach()?;
        if let Some(listener) = listener {
            agent.node.serve_fragments(listener, &config.run_dir.maps())?;
        }
        agent.set_rules(&device).await?;
        agent.write_subnet_file()?;
        tracing::info!(file = %config.subnet_file.display(), "ready");
        agent.health.started();
        Ok(agent)
    }

    /// Sets the netfilter rules and keeps them, whoever removes them.
    async fn set_rules(&self, device: &str) -> Result<()> {
        let plan = self.node.plan();
        let mut rules = TrafficRules::new(RulesConfig {
            name: device.to_owned(),
            network: plan.network,
            subnet: plan.subnet,
            masquerade: self.config.masquerade,
            forward: self.config.forward_rules,
        });
        rules.ensure().await?;
        if self.config.masquerade.is_some() || self.config.forward_rules {
            // Local: the compiler cannot see that futures of the nftables crate may change threads.
            tokio::task::spawn_local(async move {
                let mut backoff = Backoff::default();
                loop {
                    let Err(error) = rules.keep().await;
                    tracing::warn!(%error, "netfilter rules not kept, trying again");
                    backoff.wait().await;
                }
            });
        }
        Ok(())
    }

    /// Waits for the first full list of leases and makes the routes equal to it.
    async fn first_routes(&mut self) -> Result<()> {
        loop {
            match self.watched.recv().await.context("follow the leases")? {
                WatchEvent::Lease(event @ LeaseEvent::Reset(_)) => {
                    self.table.apply(event);
                    let changed = self.node.reconcile(self.table.routes()).await?;
                    tracing::info!(routes = self.table.routes().len(), changed, "routes in place");
                    return Ok(());
                }
                WatchEvent::Silent(error) => bail!(error),
                other => self.on_watch(other).await,
            }
        }
    }
}

/// The network config, and how it is written.
async fn network_config(store: &dyn Datastore) -> Result<(NetworkConfig, Vec<u8>)> {
    let Some(config) = store.config().await? else {
        bail!(
            "no network config in the datastore; write one, such as {{\"Network\":\"10.1.0.0/16\"}}, with `overlay config set`"
        );
    };
    Ok((NetworkConfig::parse(&config.value)?, config.value))
}

/// Makes sure that nobody else has the tunnel's port. For `udp` the socket is kept; for VXLAN the kernel's device
/// will own the port, unless it does so already.
async fn claim_port(backend: &Backend, address: Ipv4Addr, has_device: bool) -> Result<Option<Listener>> {
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

async fn acquire(
    store: &Arc<dyn Datastore>,
    network: &NetworkConfig,
    config: &AgentConfig,
    underlay: &Underlay,
    mac: [u8; 6],
) -> Result<Holder> {
    let backend = match network.backend {
        Backend::Udp { .. } => lease::Backend::Udp,
        Backend::Vxlan { vni, .. } => lease::Backend::Vxlan { v4: Some(lease::Vtep { vni, mac: Mac(mac) }), v6: None },
    };
    let node = lease::Node { public_ip: underlay.public_ip, public_ipv6: None, backend };
    let previous = PreviousSubnetFile::read(&config.subnet_file);
    let claim = Claim {
        previous: Previous { v4: previous.subnet, v6: previous.ipv6_subnet },
        renew_margin: config.renew_margin,
        ..Claim::new(node)
    };
    Ok(holder::acquire(Arc::clone(store), network, &claim).await?)
}
