//! [`Bed`]: two nodes with a container each, joined as one subject has it.
//!
//! ```text
//! container --br0-- node 1 --eth0 ~~~ eth0-- node 2 --br0-- container
//!                   192.168.50.1      192.168.50.2      or fd50::1 and fd50::2
//! ```
//!
//! The nodes' interfaces are the two ends of one veth pair: a bridge between them would be a cost that no subject has.

use std::{collections::BTreeSet, net::IpAddr, path::Path as FilePath};

use anyhow::{Context, Result, ensure};
use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};
use overlay_common::Encapsulation;
use overlay_tests::{
    cluster::{Backend, NETWORK, Settings, agent_program},
    kernel_vxlan::KernelVxlan,
    netns::Netns,
    node::{AgentCommand, Container, ContainerNetwork, Node, UNDERLAY_DEVICE},
    process::wait_for,
    sandbox, traffic,
    tun_peer::{self, TunPeer},
    underlay::Underlay,
};
use overlay_user::masquerade::{Masquerade, RulesConfig, TrafficRules};
use overlay_user::network::Range;
use tempfile::TempDir;

use crate::{
    cpu::{self, Cpu},
    ground::Ground,
    subject::{Ip, Path, Subject},
};

/// MTU of the underlay in bytes.
const UNDERLAY_MTU: u32 = 1500;

/// The port of the udp encapsulation.
const UDP_PORT: u16 = 8285;

/// How long agents may take to learn of each other, and a thread to start.
const LIMIT: std::time::Duration = std::time::Duration::from_secs(20);

/// Where the traffic of a workload begins and ends.
#[derive(Debug, Clone)]
pub(crate) struct Ends {
    /// Where it comes from; on the first node.
    pub(crate) from: Netns,
    /// Where it goes; on the second node.
    pub(crate) to: Netns,
    /// The address of `to`.
    pub(crate) address: IpAddr,
}

impl Ends {
    fn between(from: &Container, to: &Container, ip: Ip) -> Self {
        let address = if ip.inner.has_v4() { to.v4().into() } else { to.v6().into() };
        Self { from: from.netns.clone(), to: to.netns.clone(), address }
    }
}

/// Two nodes, ready for traffic. Everything ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Bed {
    /// What it is a bed of.
    pub(crate) subject: &'static Subject,
    /// The nodes' namespaces.
    nodes: [Netns; 2],
    /// Where the traffic begins and ends.
    pub(crate) ends: Ends,
    /// The nodes with agents, if the subject has them.
    pub(crate) agents: Vec<Node>,
    proxies: Vec<Proxy>,
    _directory: TempDir,
}

/// A proxy of one node.
#[derive(Debug)]
struct Proxy {
    _peer: TunPeer,
    /// The thread that carries its packets.
    threads: BTreeSet<i32>,
}

impl Bed {
    /// Builds the bed of `subject` and sees a ping through it.
    ///
    /// # Errors
    ///
    /// When a part cannot be made, or the ping gets lost.
    pub(crate) fn build(subject: &'static Subject) -> Result<Self> {
        build(subject).with_context(|| format!("build the bed of {}", subject.name))
    }

    /// Makes the bed be on `ground`, on the two CPUs that there are.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub(crate) fn prepare(&self, ground: Ground, two: [Cpu; 2]) -> Result<()> {
        ground.prepare(&self.nodes, two)?;
        for (proxy, cpu) in self.proxies.iter().zip(ground.layout.cpus(two)) {
            proxy.threads.iter().try_for_each(|thread| cpu::pin(*thread, cpu))?;
        }
        Ok(())
    }
}

fn build(subject: &'static Subject) -> Result<Bed> {
    let directory = tempfile::Builder::new().prefix("bed-").tempdir_in(sandbox::scratch())?;
    let ip = subject.ip;
    let nodes = underlay(ip)?;
    let (mut agents, mut proxies) = (Vec::new(), Vec::new());
    let ends = match subject.path {
        Path::Bare => Ends { from: nodes[0].clone(), to: nodes[1].clone(), address: address(1, ip) },
        Path::Plain => {
            let ends = containers(&nodes, ip, UNDERLAY_MTU)?;
            for (node, peer) in [(0, 1), (1, 0)] {
                nodes[node].ip(&format!("route add {} via {}", subnet(peer, ip)?, address(peer, ip)))?;
            }
            ends
        }
        Path::KernelVxlan => {
            let ends = containers(&nodes, ip, UNDERLAY_MTU - overhead(Encapsulation::Vxlan, ip))?;
            kernel_vxlan(&nodes, ip)?;
            ends
        }
        Path::TunProxy => {
            let ends = containers(&nodes, ip, UNDERLAY_MTU - overhead(Encapsulation::Udp, ip))?;
            proxies = vec![tun_proxy(&nodes, 0)?, tun_proxy(&nodes, 1)?];
            ends
        }
        Path::Overlay(backend, arguments) => {
            agents = overlay(&nodes, directory.path(), backend, ip, arguments)?;
            Ends::between(agents[0].container(), agents[1].container(), ip)
        }
    };
    if subject.masquerade && agents.is_empty() {
        masquerade(&nodes)?;
    }
    let pings = traffic::ping(&ends.from, ends.address, 1)?;
    ensure!(pings.received == 1, "a ping got lost");
    Ok(Bed { subject, nodes, ends, agents, proxies, _directory: directory })
}

/// The underlay address of node 0 or 1.
fn address(node: usize, ip: Ip) -> IpAddr {
    let host = 1 + node as u8;
    if ip.outer.has_v4() { Underlay::v4(host).into() } else { Underlay::v6(host).into() }
}

/// The subnet of node 0 or 1 where no agent chooses one.
fn subnet(node: usize, ip: Ip) -> Result<IpNetwork> {
    Ok(if ip.inner.has_v4() {
        v4_subnet(node)?.into()
    } else {
        Ipv6Network::new([0xfd00, 0x10, 1, 1 + node as u16, 0, 0, 0, 0].into(), 64)?.into()
    })
}

fn v4_subnet(node: usize) -> Result<Ipv4Network> {
    Ok(Ipv4Network::new([10, 1, 1 + node as u8, 0].into(), 24)?)
}

/// What an encapsulation adds to a packet, in bytes.
fn overhead(encapsulation: Encapsulation, ip: Ip) -> u32 {
    let [v4, v6] = [encapsulation.overhead::<[u8; 4]>(), encapsulation.overhead::<[u8; 16]>()];
    if ip.outer.has_v4() { v4.into() } else { v6.into() }
}

fn underlay(ip: Ip) -> Result<[Netns; 2]> {
    let nodes = [Netns::new()?, Netns::new()?];
    nodes[0].veth(UNDERLAY_DEVICE, &nodes[1], UNDERLAY_DEVICE, UNDERLAY_MTU)?;
    for (number, node) in nodes.iter().enumerate() {
        let address = address(number, ip);
        node.add_address(UNDERLAY_DEVICE, IpNetwork::new(address, if address.is_ipv4() { 24 } else { 64 })?)?;
        node.forward_family_of(subnet(number, ip)?.ip())?;
        if !address.is_ipv4() {
            node.wait_link_local(UNDERLAY_DEVICE)?;
        }
    }
    Ok(nodes)
}

/// A container on a bridge on each node, with the MTU that the way between them leaves.
fn containers(nodes: &[Netns; 2], ip: Ip, mtu: u32) -> Result<Ends> {
    let container = |node: usize| {
        let subnet = subnet(node, ip)?;
        let first = subnet.iter().nth(1).context("find a gateway")?;
        let gateways = vec![IpNetwork::new(first, subnet.prefix())?];
        Container::on_bridge(&nodes[node], ContainerNetwork { gateways, mtu })
    };
    Ok(Ends::between(&container(0)?, &container(1)?, ip))
}

/// What flanneld does with its vxlan backend.
fn kernel_vxlan(nodes: &[Netns; 2], ip: Ip) -> Result<()> {
    let tunnel = |node: usize| KernelVxlan::new(&nodes[node], address(node, ip), subnet(node, ip)?, UNDERLAY_MTU);
    let (one, two) = (tunnel(0)?, tunnel(1)?);
    one.learn(&two.end()?)?;
    two.learn(&one.end()?)
}

/// A proxy on node 0 or 1 that knows the other.
fn tun_proxy(nodes: &[Netns; 2], node: usize) -> Result<Proxy> {
    let before = proxy_threads()?;
    let underlay = |node: usize| Underlay::v4(1 + node as u8);
    let peer = TunPeer::start(
        &nodes[node],
        &tun_peer::Settings {
            device: "flannel0".to_owned(),
            mtu: (UNDERLAY_MTU - overhead(Encapsulation::Udp, Ip::V4)).try_into()?,
            underlay: underlay(node),
            port: UDP_PORT,
            network: NETWORK.parse()?,
            subnet: v4_subnet(node)?,
        },
    )?;
    peer.set_route(v4_subnet(1 - node)?, underlay(1 - node));
    // A thread has its name only when it runs.
    let started = || {
        let threads: BTreeSet<_> = proxy_threads()?.difference(&before).copied().collect();
        Ok((!threads.is_empty()).then_some(threads))
    };
    let threads = wait_for("the proxy's thread", LIMIT, started)?;
    Ok(Proxy { _peer: peer, threads })
}

/// The threads of all proxies.
fn proxy_threads() -> Result<BTreeSet<i32>> {
    cpu::threads("/proc/self/task", "tun-peer")
}

/// An agent on each node, over a directory as datastore: what keeps the leases carries no packets.
fn overlay(nodes: &[Netns; 2], directory: &FilePath, backend: Backend, ip: Ip, more: &[&str]) -> Result<Vec<Node>> {
    let store = directory.join("datastore");
    std::fs::create_dir_all(&store)?;
    let settings = Settings { backend, overlay: ip.overlay(), ..Settings::default() };
    std::fs::write(store.join("config"), settings.network_config())?;
    let mut arguments = vec!["--datastore".to_owned(), format!("file:{}", store.display())];
    arguments.extend(more.iter().map(|argument| (*argument).to_owned()));
    let agent = AgentCommand { program: agent_program()?, arguments };
    let mut made = Vec::new();
    for (number, netns) in nodes.iter().enumerate() {
        let name = format!("node{}", number + 1);
        let mut node =
            Node::new(&name, netns.clone(), vec![address(number, ip)], directory.join(&name), agent.clone())?;
        node.start_agent()?;
        made.push(node);
    }
    for node in &mut made {
        node.wait_ready()?;
        node.add_container()?;
    }
    for (here, there) in [(0, 1), (1, 0)] {
        let subnets: Vec<_> = made[there].subnet().networks().collect();
        let counters = made[here].counters();
        for subnet in subnets {
            let known = || Ok(counters.route(subnet.network())?.map(drop));
            made[here].agent().wait_ready(&format!("a route to {subnet}"), LIMIT, known)?;
        }
    }
    Ok(made)
}

/// The rules of `--ip-masq`, the same that our agent sets, on nodes without it.
fn masquerade(nodes: &[Netns; 2]) -> Result<()> {
    for (number, node) in nodes.iter().enumerate() {
        let mut rules = TrafficRules::new(RulesConfig {
            name: "flannel.1".to_owned(),
            ipv4: Some(Range { network: NETWORK.parse()?, subnet: v4_subnet(number)? }),
            ipv6: None,
            masquerade: Some(Masquerade { random_fully: true }),
            forward: true,
        });
        // On a thread inside, because the programs that set rules inherit its namespace.
        node.run(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(rules.ensure()).context("set the rules")
        })?;
    }
    Ok(())
}
