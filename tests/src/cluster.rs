//! [`Cluster`]: nodes on one underlay, a datastore, an agent and a container per node.
//!
//! ```text
//!  node1 --eth0--+                       192.168.50.1
//!  node2 --eth0--+-- underlay (bridge)   192.168.50.2
//!  etcd  --eth0--+                       192.168.50.254
//! ```
//!
//! Every name above is a network namespace of its own. Build a cluster inside [`crate::sandbox`].

mod store;

use std::{
    env, fmt,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

pub use self::store::CONFIG_KEY;
use self::store::Store;
use crate::{
    etcd::Etcd,
    families::Families,
    netns::Netns,
    node::{AgentCommand, Node},
    sandbox,
    underlay::Underlay,
};

/// The overlay network of a cluster, unless its network config says otherwise.
pub const NETWORK: &str = "10.1.0.0/16";

/// The same of IPv6, where the cluster has it.
pub const NETWORK_V6: &str = "fd00:10:1::/48";

/// The most nodes that the underlay's /24 has room for beside etcd's members.
pub const MAX_NODES: u8 = 250;

/// How long the nodes may take to learn about each other before that counts as a failure.
const CONVERGED: Duration = Duration::from_secs(20);

/// How packets cross the underlay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Backend {
    /// The inner packet is the payload of a UDP packet.
    Udp,
    /// VXLAN.
    Vxlan,
}

impl fmt::Display for Backend {
    /// As the network config names it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Udp => "udp",
            Self::Vxlan => "vxlan",
        })
    }
}

/// Where the leases are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Datastore {
    /// A real etcd-server on the underlay.
    Etcd,
    /// A directory that all agents share.
    File,
}

/// What a cluster is made of.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How many nodes, at most [`MAX_NODES`].
    pub nodes: u8,
    /// How packets cross the underlay.
    pub backend: Backend,
    /// Where the leases are kept.
    pub datastore: Datastore,
    /// How many members etcd has, at most 4.
    pub etcd_members: u8,
    /// More arguments for an etcd of one member.
    pub etcd_arguments: Vec<String>,
    /// Which addresses the overlay has.
    pub overlay: Families,
    /// Which addresses the underlay has.
    pub underlay: Families,
    /// MTU of the underlay, in bytes.
    pub underlay_mtu: u32,
    /// More arguments for every agent.
    pub agent_arguments: Vec<String>,
    /// Whether nodes that share a link route to each other without encapsulation.
    pub direct_routing: bool,
}

impl Default for Settings {
    /// Two nodes with the udp backend and etcd, IPv4 inside and outside.
    fn default() -> Self {
        Self {
            nodes: 2,
            backend: Backend::Udp,
            datastore: Datastore::Etcd,
            etcd_members: 1,
            etcd_arguments: Vec::new(),
            overlay: Families::V4,
            underlay: Families::V4,
            underlay_mtu: 1500,
            agent_arguments: Vec::new(),
            direct_routing: false,
        }
    }
}

impl Settings {
    /// The network config that a cluster of these settings gets.
    #[must_use]
    pub fn network_config(&self) -> String {
        let Self { backend, direct_routing, overlay, .. } = self;
        let (v4, v6) =
            (format!(r#""Network":"{NETWORK}""#), format!(r#""EnableIPv6":true,"IPv6Network":"{NETWORK_V6}""#));
        let families = match overlay {
            Families::V4 => v4,
            Families::V6 => format!(r#""EnableIPv4":false,{v6}"#),
            Families::Dual => format!("{v4},{v6}"),
        };
        format!(r#"{{{families},"Backend":{{"Type":"{backend}","DirectRouting":{direct_routing}}}}}"#)
    }
}

/// Nodes on one underlay. Everything ends when it is dropped.
#[derive(Debug)]
pub struct Cluster {
    // Fields drop in this order: agents before what they use.
    nodes: Vec<Node>,
    store: Store,
    underlay: Underlay,
    directory: TempDir,
}

impl Cluster {
    /// Makes the underlay, the nodes and the datastore, and starts nothing else: no network config is written, no
    /// agent is started.
    ///
    /// # Errors
    ///
    /// When a part cannot be made, as without root or without etcd.
    pub fn new(settings: &Settings) -> Result<Self> {
        ensure!((1..=MAX_NODES).contains(&settings.nodes), "{} nodes: 1 to {MAX_NODES} fit", settings.nodes);
        let program = agent_program()?;
        let directory = tempfile::Builder::new().prefix("cluster-").tempdir_in(sandbox::scratch())?;
        let underlay = Underlay::new(settings.underlay, settings.underlay_mtu)?;
        let store = Store::new(settings, &underlay, directory.path())?;
        let arguments = [store.arguments(), settings.agent_arguments.clone()].concat();
        let agent = AgentCommand { program, arguments };
        let mut nodes = Vec::new();
        for number in 1..=settings.nodes {
            let name = format!("node{number}");
            let netns = underlay.attach(&name, number)?;
            let run_dir = directory.path().join(&name);
            nodes.push(Node::new(&name, netns, underlay.addresses(number), run_dir, agent.clone())?);
        }
        Ok(Self { nodes, store, underlay, directory })
    }

    /// Makes a cluster and brings all of it up: network config, agents, containers, and every node knows every other and
    /// its own container.
    ///
    /// # Errors
    ///
    /// When any of it fails: with the end of the log of whoever failed.
    pub fn start(settings: &Settings) -> Result<Self> {
        let mut cluster = Self::new(settings)?;
        cluster.bring_up(&settings.network_config())?;
        Ok(cluster)
    }

    /// Brings up what [`new`](Self::new) has made, with the network config `config`.
    ///
    /// # Errors
    ///
    /// When any of it fails: with the end of the log of whoever failed.
    pub fn bring_up(&mut self, config: &str) -> Result<()> {
        self.bring_up_agents(config)?;
        for node in &mut self.nodes {
            node.add_container()?;
        }
        self.nodes.iter().try_for_each(Node::wait_container)
    }

    /// The same without containers, for those who bring their own.
    ///
    /// # Errors
    ///
    /// As [`bring_up`](Self::bring_up).
    pub fn bring_up_agents(&mut self, config: &str) -> Result<()> {
        self.write_config(config)?;
        self.nodes.iter_mut().try_for_each(Node::start_agent)?;
        for node in &mut self.nodes {
            node.wait_ready()?;
        }
        self.wait_converged()
    }

    /// Writes the network config.
    ///
    /// # Errors
    ///
    /// When the datastore refuses.
    pub fn write_config(&self, config: &str) -> Result<()> {
        self.store.write_config(config)
    }

    /// Waits until every node has a route to every subnet of every other.
    ///
    /// # Errors
    ///
    /// When that takes too long: tells which node misses which subnet.
    ///
    /// # Panics
    ///
    /// When a node has no subnet yet.
    pub fn wait_converged(&mut self) -> Result<()> {
        let subnets: Vec<_> = self.nodes.iter().map(|node| node.subnet().networks().collect::<Vec<_>>()).collect();
        for (number, node) in self.nodes.iter_mut().enumerate() {
            let counters = node.counters();
            let others = subnets.iter().enumerate().filter(|(other, _)| *other != number);
            for subnet in others.flat_map(|(_, subnets)| subnets) {
                let what = format!("a route of {} to {subnet}", node.name());
                let known = || Ok(counters.route(subnet.network())?.map(drop));
                node.agent().wait_ready(&what, CONVERGED, known)?;
            }
        }
        Ok(())
    }

    /// The nodes, in order of their underlay addresses.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The nodes, to start and stop their agents.
    pub fn nodes_mut(&mut self) -> &mut [Node] {
        &mut self.nodes
    }

    /// The etcd-server, the first one if there are several.
    ///
    /// # Panics
    ///
    /// When the cluster's datastore is a directory.
    #[must_use]
    pub fn etcd(&self) -> &Etcd {
        &self.store.members()[0]
    }

    /// The etcd-server, to stop it and let it go on.
    ///
    /// # Panics
    ///
    /// When the cluster's datastore is a directory.
    pub fn etcd_mut(&mut self) -> &mut Etcd {
        &mut self.store.members_mut()[0]
    }

    /// The nodes and all members of etcd, to stop and start any of them.
    ///
    /// # Panics
    ///
    /// When the cluster's datastore is a directory.
    pub fn parts_mut(&mut self) -> (&mut [Node], &mut [Etcd]) {
        (&mut self.nodes, self.store.members_mut())
    }

    /// The namespace with the underlay's bridge, whose ports are named after the nodes.
    #[must_use]
    pub fn underlay(&self) -> &Netns {
        self.underlay.netns()
    }

    /// Makes a namespace on the underlay that is none of our nodes, as [`Underlay::attach`] does, and returns its address
    /// too.
    ///
    /// # Errors
    ///
    /// When `ip` fails, for example because a node has the address.
    pub fn attach(&self, port: &str, host: u8) -> Result<(Netns, Ipv4Addr)> {
        Ok((self.underlay.attach(port, host)?, Underlay::v4(host)))
    }

    /// What tells `overlay` where the datastore is.
    #[must_use]
    pub fn datastore_arguments(&self) -> Vec<String> {
        self.store.arguments()
    }

    /// The directory of all files of the cluster.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }
}

/// The `overlay` program: named by `OVERLAY_BIN`, or beside this program, where cargo puts it.
///
/// # Errors
///
/// When it is not there.
pub fn agent_program() -> Result<PathBuf> {
    if let Some(program) = env::var_os("OVERLAY_BIN") {
        return Ok(program.into());
    }
    let this = env::current_exe().context("find this program")?;
    // Test targets are one directory further down, in `deps`.
    let candidates: Vec<_> = this.ancestors().skip(1).take(2).map(|directory| directory.join("overlay")).collect();
    let found = candidates.iter().find(|program| program.is_file());
    found.cloned().with_context(|| {
        format!("find the program `overlay` at {}: build it first, or name it by OVERLAY_BIN", candidates[0].display())
    })
}
