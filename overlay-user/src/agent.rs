//! The node agent: joins datastore, interfaces and data path, and stays until it is told to go.

use std::{net::Ipv4Addr, sync::Arc};

use anyhow::{Context as _, Result, anyhow, bail};
use rtnetlink::Handle;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
};

use crate::{
    allocate::Previous,
    backoff::Backoff,
    config::AgentConfig,
    datastore::{self, Datastore},
    holder::{self, Claim, HoldEvent, Holder},
    lease::{self, LeaseEvent},
    link,
    listener::Listener,
    mac::Mac,
    network::{Backend, NetworkConfig},
    node::{self, Node, Plan},
    routes::RouteTable,
    rundir::RunDir,
    subnet_file::{PreviousSubnetFile, SubnetFile},
    underlay::{self, Underlay, UnderlayEvent},
    watch::{self, WatchEvent},
};

/// Runs the agent until SIGTERM or SIGINT.
///
/// # Errors
/// When it cannot start; the node is then as it was before, unless an earlier agent's data path was there.
pub async fn run(config: AgentConfig) -> Result<()> {
    require_root()?;
    let mut signals = Signals::new()?;
    let handle = netlink()?;
    let had_data_path = config.run_dir.has_data_path();
    let lock = config.run_dir.lock()?;
    let started = tokio::select! {
        started = Agent::start(&config, &handle) => started.map(Some),
        () = signals.recv() => Ok(None),
    };
    let outcome = match started {
        Ok(Some(agent)) => {
            let outcome = agent.serve(&mut signals).await;
            if config.teardown_on_exit {
                node::take_down(&handle, &config.run_dir).await?;
                tracing::info!("stopped; nothing is left on this node");
            } else {
                tracing::info!("stopped; the data path goes on forwarding until `overlay teardown`");
            }
            outcome
        }
        // What an earlier agent has left goes on forwarding; what this one has begun goes.
        unfinished if had_data_path => unfinished.map(drop),
        unfinished => node::take_down(&handle, &config.run_dir).await.and(unfinished.map(drop)),
    };
    drop(lock);
    outcome
}

/// Takes away what agents have left on this node.
///
/// # Errors
/// When an agent runs, or the kernel refuses.
pub async fn teardown(run_dir: &RunDir) -> Result<()> {
    require_root()?;
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
    underlay: mpsc::Receiver<UnderlayEvent>,
}

impl<'a> Agent<'a> {
    async fn start(config: &'a AgentConfig, handle: &Handle) -> Result<Self> {
        let store = datastore::open(&config.datastore)?;
        let network = network_config(&*store).await?;
        let pool = network.ipv4.ok_or_else(|| anyhow!("network config: EnableIPv4 false: IPv4 is needed"))?;
        let underlay = underlay::select(handle, &config.underlay).await?;
        underlay.check_outside(pool.network())?;
        node::check_decap(config.decap, network.backend.encapsulation())?;
        let mtu = overlay_mtu(&underlay, &network.backend)?;
        let device = node::device_name(&network.backend);
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
            log_drops: config.log_drops,
        };
        let node = Node::set_up(handle, &config.run_dir, plan).await?;
        let mut agent = Self { config, node, table, watched, held, underlay: underlay_changes };
        agent.first_routes().await?;
        agent.node.attach()?;
        if let Some(listener) = listener {
            agent.node.serve_fragments(listener, &config.run_dir.maps())?;
        }
        agent.write_subnet_file()?;
        tracing::info!(file = %config.subnet_file.display(), "ready");
        Ok(agent)
    }

    /// Waits for the first full list of leases and makes the routes equal to it.
    async fn first_routes(&mut self) -> Result<()> {
        loop {
            match self.watched.recv().await.context("follow the leases")? {
                WatchEvent::Lease(event @ LeaseEvent::Reset(_)) => {
                    self.table.apply(event);
                    let changed = self.node.reconcile(self.table.routes())?;
                    tracing::info!(routes = self.table.routes().len(), changed, "routes in place");
                    return Ok(());
                }
                WatchEvent::Silent(error) => bail!(error),
                other => self.on_watch(other),
            }
        }
    }

    async fn serve(mut self, signals: &mut Signals) -> Result<()> {
        loop {
            tokio::select! {
                () = signals.recv() => return Ok(()),
                event = self.watched.recv() => self.on_watch(event.context("the watch of the leases ended")?),
                event = self.held.recv() => self.on_hold(event.context("the lease's keeper ended")?),
                Some(event) = self.underlay.recv() => {
                    if let Err(error) = self.on_underlay(event).await {
                        tracing::warn!(error = format!("{error:#}"), "underlay interface not followed");
                    }
                }
            }
        }
    }

    fn on_watch(&mut self, event: WatchEvent) {
        match event {
            WatchEvent::Lease(event) => {
                for change in self.table.apply(event) {
                    if let Err(error) = self.node.change_route(change) {
                        tracing::warn!(error = format!("{error:#}"), ?change, "route not changed");
                    }
                }
            }
            WatchEvent::Config(_) => tracing::warn!("network config changed; it applies after a restart of the agent"),
            WatchEvent::BadKeys(count) => tracing::warn!(count, "keys that are no leases are skipped"),
            WatchEvent::Silent(error) => tracing::warn!(%error, "datastore is silent; routes stay as they are"),
            WatchEvent::Answers => tracing::info!("datastore answers again"),
        }
    }

    fn on_hold(&mut self, event: HoldEvent) {
        let claimed = match event {
            HoldEvent::Held { lease, .. } => {
                tracing::debug!(subnet = %lease.subnet, "lease held");
                self.node.claim_subnet(true)
            }
            HoldEvent::Degraded { reason } => {
                tracing::warn!(reason, "degraded; the data path goes on");
                Ok(())
            }
            HoldEvent::Lost { to } => {
                tracing::warn!(to = %to.public_ip, "our subnet belongs to another node now; nothing is forwarded for it");
                self.node.claim_subnet(false)
            }
            HoldEvent::Retaken { lease, .. } => {
                tracing::info!(subnet = %lease.subnet, "lease taken back");
                self.node.claim_subnet(true)
            }
        };
        if let Err(error) = claimed {
            tracing::warn!(error = format!("{error:#}"), "claim on our subnet not changed");
        }
    }

    async fn on_underlay(&mut self, event: UnderlayEvent) -> Result<()> {
        match event {
            UnderlayEvent::MtuChanged(underlay_mtu) => {
                let mtu = self.node.follow_mtu(underlay_mtu).await?;
                tracing::info!(underlay_mtu, mtu, "MTU followed; running containers keep theirs");
                self.write_subnet_file()?;
            }
            UnderlayEvent::Back(underlay) => {
                tracing::info!(interface = underlay.name, "underlay interface is back");
                self.node.follow_underlay(underlay)?;
            }
            UnderlayEvent::Gone => tracing::warn!("underlay interface is gone; nothing is forwarded until it is back"),
            UnderlayEvent::Down => tracing::warn!("underlay interface is down"),
            UnderlayEvent::Up => tracing::info!("underlay interface is up"),
            UnderlayEvent::AddressChanged(address) => {
                tracing::warn!(%address, "underlay address changed; restart the agent to publish it");
            }
            // The kernel resolves neighbours for each packet: there is nothing of ours to refresh.
            UnderlayEvent::MacChanged(_) | UnderlayEvent::RoutesChanged => {}
        }
        Ok(())
    }

    fn write_subnet_file(&self) -> Result<()> {
        let plan = self.node.plan();
        let file = SubnetFile { network: plan.network, subnet: plan.subnet, ipv6: None, mtu: plan.mtu, ip_masq: false };
        Ok(file.write(&self.config.subnet_file)?)
    }
}

/// Passes on what happens to the underlay interface. A task of its own, since a reading of the interfaces that is
/// given up half way would disturb the next one.
async fn follow_underlay(mut watch: underlay::Watch, events: mpsc::Sender<UnderlayEvent>) {
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

async fn network_config(store: &dyn Datastore) -> Result<NetworkConfig> {
    let Some(config) = store.config().await? else {
        bail!(
            "no network config in the datastore; write one, such as {{\"Network\":\"10.1.0.0/16\"}}, to its key `config`"
        );
    };
    Ok(NetworkConfig::parse(&config.value)?)
}

fn overlay_mtu(underlay: &Underlay, backend: &Backend) -> Result<u32> {
    let configured = match backend {
        Backend::Vxlan { mtu, .. } => *mtu,
        Backend::Udp { .. } => None,
    };
    let underlay = Underlay { mtu: configured.map_or(underlay.mtu, u32::from), ..underlay.clone() };
    Ok(underlay.overlay_mtu(backend.encapsulation().overhead())?)
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

fn netlink() -> Result<Handle> {
    let (connection, handle, _) = rtnetlink::new_connection().context("open a netlink socket")?;
    tokio::spawn(connection);
    Ok(handle)
}

fn require_root() -> Result<()> {
    let has = |capability| caps::has_cap(None, caps::CapSet::Effective, capability).unwrap_or(false);
    if has(caps::Capability::CAP_NET_ADMIN) && has(caps::Capability::CAP_SYS_ADMIN) {
        return Ok(());
    }
    bail!("this needs the right to load eBPF programs and to set up devices; run it as root");
}

/// SIGTERM and SIGINT.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> Result<Self> {
        let catch = |kind| signal(kind).context("catch signals");
        Ok(Self { terminate: catch(SignalKind::terminate())?, interrupt: catch(SignalKind::interrupt())? })
    }

    async fn recv(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
