//! [`Node`]: a network namespace with an underlay interface, an agent, and a bridge with one container.

mod container;

use std::{
    env, fs,
    net::{IpAddr, Ipv4Addr},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
    time::Duration,
};

use anyhow::{Context, Result};
use nix::sys::signal::Signal;

pub use self::container::{BRIDGE, CONTAINER_DEVICE, Container, ContainerNetwork, VETH};
use crate::{
    counters::Counters,
    families::v4_among,
    netns::Netns,
    process::{Process, wait_for},
    subnet_env::SubnetEnv,
};

/// The underlay interface of every node.
pub const UNDERLAY_DEVICE: &str = "eth0";

/// How long an agent may take to be ready, or to stop, before that counts as a failure.
const LIMIT: Duration = Duration::from_secs(20);

/// A node of the cluster.
#[derive(Debug)]
pub struct Node {
    name: String,
    netns: Netns,
    addresses: Vec<IpAddr>,
    run_dir: PathBuf,
    agent: AgentCommand,
    process: Option<Process>,
    /// The `subnet.env` that was there before the agent was started.
    before: Option<FileVersion>,
    subnet: Option<SubnetEnv>,
    container: Option<Container>,
}

/// How an agent is started, but for the directories and the interface.
#[derive(Debug, Clone)]
pub struct AgentCommand {
    /// The `overlay` program.
    pub program: PathBuf,
    /// What follows `overlay agent`.
    pub arguments: Vec<String>,
}

impl Node {
    /// A node in the namespace `netns`, whose underlay interface is there, up, and has `addresses`.
    ///
    /// # Errors
    ///
    /// When the run directory cannot be made or the node not be set to forward.
    pub fn new(
        name: &str,
        netns: Netns,
        addresses: Vec<IpAddr>,
        run_dir: PathBuf,
        agent: AgentCommand,
    ) -> Result<Self> {
        fs::create_dir_all(&run_dir).with_context(|| format!("create {}", run_dir.display()))?;
        addresses.iter().try_for_each(|address| netns.forward_family_of(*address))?;
        let name = name.to_owned();
        Ok(Self { name, netns, addresses, run_dir, agent, process: None, before: None, subnet: None, container: None })
    }

    /// Starts the agent of another overlay on this node, over leases in the directory `datastore`, and waits until it is
    /// ready. `arguments` are others of its.
    ///
    /// # Errors
    ///
    /// When it does not become ready.
    pub fn start_beside(&self, run_dir: PathBuf, datastore: &Path, arguments: &[&str]) -> Result<Self> {
        let mut arguments: Vec<_> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        arguments.push(format!("--datastore=file:{}", datastore.display()));
        let agent = AgentCommand { program: self.agent.program.clone(), arguments };
        let name = format!("{}'s other overlay", self.name);
        let mut other = Self::new(&name, self.netns.clone(), self.addresses.clone(), run_dir, agent)?;
        other.start_agent()?;
        other.wait_ready()?;
        Ok(other)
    }

    /// The node's name, for people.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The namespace the node is.
    #[must_use]
    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    /// The node's IPv4 address on the underlay.
    ///
    /// # Panics
    ///
    /// When it has none.
    #[must_use]
    pub fn address(&self) -> Ipv4Addr {
        v4_among(&self.addresses).expect("the node has an IPv4 address")
    }

    /// The node's addresses on the underlay, IPv4 first.
    #[must_use]
    pub fn addresses(&self) -> &[IpAddr] {
        &self.addresses
    }

    /// The agent's run directory, which here also holds its `subnet.env` and its log.
    #[must_use]
    pub fn run_dir(&self) -> &Path {
        &self.run_dir
    }

    /// Where the agent writes `subnet.env`.
    #[must_use]
    pub fn subnet_file(&self) -> PathBuf {
        self.run_dir.join("subnet.env")
    }

    /// The node's pinned maps.
    #[must_use]
    pub fn counters(&self) -> Counters {
        Counters::of(&self.run_dir)
    }

    /// The program `overlay` in the node's namespace, without arguments, and without options that our own
    /// environment has for it.
    #[must_use]
    pub fn overlay(&self) -> Command {
        let mut command = self.netns.command(&self.agent.program);
        for (name, _) in env::vars_os() {
            if ["FLANNELD_", "OVERLAY_"].iter().any(|prefix| name.as_encoded_bytes().starts_with(prefix.as_bytes())) {
                command.env_remove(name);
            }
        }
        command
    }

    /// The command that runs the node's agent.
    #[must_use]
    pub fn agent_command(&self) -> Command {
        let mut command = self.overlay();
        command.args(["agent", "--iface", UNDERLAY_DEVICE]).args(&self.agent.arguments);
        command.arg("--run-dir").arg(&self.run_dir).arg("--subnet-file").arg(self.subnet_file());
        command
    }

    /// What follows `overlay agent`, to give this node others than the rest.
    pub fn agent_arguments_mut(&mut self) -> &mut Vec<String> {
        &mut self.agent.arguments
    }

    /// Makes `program` the one that the next agent is.
    pub fn set_program(&mut self, program: &Path) {
        self.agent.program = program.to_owned();
    }

    /// Starts the agent without waiting for anything. It ends with the calling thread.
    ///
    /// # Errors
    ///
    /// When the program cannot be started.
    pub fn start_agent(&mut self) -> Result<()> {
        self.before = FileVersion::of(&self.subnet_file());
        let name = format!("the agent of {}", self.name);
        self.process = Some(Process::spawn(name, self.agent_command(), &self.run_dir.join("agent.log"))?);
        Ok(())
    }

    /// Waits until the agent has written its `subnet.env`, the sign that the data path is ready.
    ///
    /// # Errors
    ///
    /// When the agent ends or takes too long: with the end of its log. When the file is malformed.
    ///
    /// # Panics
    ///
    /// When no agent was started.
    pub fn wait_ready(&mut self) -> Result<&SubnetEnv> {
        let (file, before) = (self.subnet_file(), self.before);
        let written = || Ok(FileVersion::of(&file).filter(|now| Some(*now) != before));
        self.agent().wait_ready("its subnet.env", LIMIT, written)?;
        let text = fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
        let subnet = text.parse().with_context(|| format!("the subnet.env of {}", self.name))?;
        Ok(self.subnet.insert(subnet))
    }

    /// The running agent.
    ///
    /// # Panics
    ///
    /// When no agent was started.
    pub fn agent(&mut self) -> &mut Process {
        self.process.as_mut().unwrap_or_else(|| panic!("no agent was started on {}", self.name))
    }

    /// Asks the agent to stop, and returns how it did.
    ///
    /// # Errors
    ///
    /// When it does not: with the end of its log.
    ///
    /// # Panics
    ///
    /// When no agent was started.
    pub fn stop_agent(&mut self) -> Result<ExitStatus> {
        let agent = self.agent();
        agent.signal(Signal::SIGTERM)?;
        agent.wait(LIMIT)
    }

    /// The subnet the node has taken, as its agent wrote it when it was last waited for.
    ///
    /// # Panics
    ///
    /// When no agent was ready yet.
    #[must_use]
    pub fn subnet(&self) -> &SubnetEnv {
        self.subnet.as_ref().unwrap_or_else(|| panic!("{} has no subnet yet", self.name))
    }

    /// Makes the bridge as Docker would by `subnet.env`, and a container on it with the subnet's second address.
    ///
    /// # Errors
    ///
    /// When `ip` fails.
    ///
    /// # Panics
    ///
    /// When no agent was ready yet.
    pub fn add_container(&mut self) -> Result<&Container> {
        let container = Container::on_bridge(&self.netns, self.subnet())?;
        Ok(self.container.insert(container))
    }

    /// Waits until the agent knows the node's container and has attached all its programs to it.
    ///
    /// # Errors
    ///
    /// When that takes too long, or the maps cannot be read.
    ///
    /// # Panics
    ///
    /// When no container was added yet.
    pub fn wait_container(&self) -> Result<()> {
        self.container().addresses.iter().try_for_each(|address| self.wait_endpoint(*address))
    }

    /// Waits until the agent knows whose `address` is and has attached all its programs to that container.
    ///
    /// # Errors
    ///
    /// When that takes too long, or the maps cannot be read.
    pub fn wait_endpoint(&self, address: impl Into<IpAddr>) -> Result<()> {
        let address = address.into();
        let known = || Ok(self.knows(address)?.then_some(()));
        wait_for(&format!("{} to know the container {address}", self.name), LIMIT, known)
    }

    /// Whether the agent knows whose `address` is and has attached all its programs to that container.
    ///
    /// # Errors
    ///
    /// When the maps cannot be read.
    pub fn knows(&self, address: impl Into<IpAddr>) -> Result<bool> {
        let Some(endpoint) = self.counters().endpoint(address)? else { return Ok(false) };
        let slow = self.agent.arguments.windows(2).any(|pair| pair == ["--fast-path", "off"]);
        let programs: &[_] = if slow { &["from_container"] } else { &["from_container", "to_container"] };
        let link = |program| self.run_dir.join(format!("bpf/v1/links/{program}-{}", endpoint.ifindex()));
        Ok(programs.iter().all(|program| link(program).exists()))
    }

    /// The node's container.
    ///
    /// # Panics
    ///
    /// When none was added yet.
    #[must_use]
    pub fn container(&self) -> &Container {
        self.container.as_ref().unwrap_or_else(|| panic!("{} has no container yet", self.name))
    }
}

/// Tells a file from the one that replaced it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FileVersion {
    inode: u64,
    modified: (i64, i64),
}

impl FileVersion {
    fn of(path: &Path) -> Option<Self> {
        let metadata = fs::metadata(path).ok()?;
        Some(Self { inode: metadata.ino(), modified: (metadata.mtime(), metadata.mtime_nsec()) })
    }
}
