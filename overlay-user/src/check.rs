//! `overlay check`: whether this node can run the agent, and what the agent would choose.
//!
//! The checks ask the agent's own code: they choose the underlay, connect to the datastore, parse the network config, claim
//! the port and load the programs by the functions that the agent starts with. What the agent refuses to start for is red.
//! Nothing on the node is changed, and nothing in the datastore. An agent may be running.

mod clock;
mod datastore;
mod decap;
mod device;
mod firewall;
mod kernel;
mod memory;
mod mtu;
mod others;
mod port;
mod privileges;
mod rehearsal;
mod report;
mod run_dir;
mod subnet;
mod subnet_file;
mod sysctls;
mod underlay;

use std::net::Ipv4Addr;

use anyhow::Result;
use ipnetwork::Ipv4Network;
use rtnetlink::Handle;

pub use self::report::{Choice, Finding, Report, State};
use self::{datastore::Cluster, firewall::Traffic, rehearsal::Play};
use crate::{
    agent::{self, Settled},
    config::AgentConfig,
    link,
    mac::Mac,
    network::{Backend, Pool},
    node::Plan,
    underlay::{MIN_OVERLAY_MTU, Underlay},
};

/// Checks this node for an agent with this configuration.
///
/// # Errors
/// When no netlink socket can be had: nothing can be found out then.
pub async fn run(config: &AgentConfig) -> Result<Report> {
    let (running, agent) = run_dir::agent(&config.run_dir);
    let others = others::check(agent.as_deref());
    let mut check = Check {
        config,
        handle: agent::netlink()?,
        agent,
        choice: Choice { fast_path: config.flow_ttl != 0, ..Choice::default() },
        findings: Vec::new(),
    };
    let play = check.cluster().await;
    let mut findings = vec![privileges::check(&config.run_dir), kernel::check()];
    findings.extend(rehearsal::check(play).await);
    findings.extend([
        memory::check(config.capacities),
        clock::check(),
        run_dir::check(&config.run_dir),
        subnet_file::check(&config.subnet_file),
        running,
        others,
        sysctls::forwarding(),
        sysctls::conntrack(config.flow_ttl != 0),
    ]);
    findings.append(&mut check.findings);
    let agent_pid = check.agent.and_then(|pid| pid.parse().ok());
    Ok(Report::new(agent_pid, check.choice, findings))
}

/// The checks that build on each other.
struct Check<'a> {
    config: &'a AgentConfig,
    handle: Handle,
    /// The running agent's process id.
    agent: Option<String>,
    choice: Choice,
    findings: Vec<Finding>,
}

impl Check<'_> {
    /// Everything that depends on the datastore and the underlay. Returns what there is to rehearse then.
    async fn cluster(&mut self) -> Play {
        let (findings, cluster) = datastore::check(&self.config.datastore).await;
        self.findings.extend(findings);
        let network = cluster.as_ref().map(|cluster| &cluster.network);
        let pool = network.and_then(|network| network.ipv4);
        let underlay = self.underlay(network.map(|network| &network.backend), pool.map(|pool| pool.network())).await;
        let settled = match (cluster, pool, underlay) {
            (Some(cluster), Some(pool), Some(underlay)) => Some(self.node(&cluster, pool, underlay).await),
            _ => None,
        };
        Play {
            plan: settled.unwrap_or_else(|| rehearsal::stand_in(self.config)),
            masquerade: self.config.masquerade,
            forward: self.config.forward_rules,
        }
    }

    async fn underlay(&mut self, backend: Option<&Backend>, network: Option<Ipv4Network>) -> Option<Underlay> {
        let (finding, underlay) = underlay::check(&self.handle, self.config, network).await;
        self.findings.push(finding);
        let underlay = underlay?;
        let (finding, place) = decap::check(&self.handle, self.config.decap, &underlay, backend).await;
        self.findings.push(finding);
        self.choice.decap = Some(place);
        self.findings.push(sysctls::rp_filter(&underlay.name));
        self.choice.interface = Some(underlay.name.clone());
        self.choice.address = Some(underlay.address);
        self.choice.public_ip = Some(underlay.public_ip);
        Some(underlay)
    }

    /// What there is to say of a node whose network config and underlay are known.
    async fn node(&mut self, cluster: &Cluster, pool: Pool<Ipv4Addr>, underlay: Underlay) -> Plan {
        let Cluster { store, network } = cluster;
        let device = link::device_name(network.backend.vni());
        let there = link::mac_of(&self.handle, &device).await.unwrap_or_default();
        let (finding, mtu) = mtu::check(&underlay, &network.backend);
        self.findings.push(finding);
        let settled = Settled {
            backend: network.backend.clone(),
            network: pool.network(),
            underlay,
            mtu: mtu.unwrap_or(MIN_OVERLAY_MTU),
            mac: there.unwrap_or_else(|| Mac::random().0),
        };
        self.findings.push(port::check(&settled, self.agent.as_deref(), there.is_some()).await);
        let (finding, subnet) = subnet::check(&**store, network, &settled.claim(self.config)).await;
        self.choose(&settled, &device, mtu, subnet);
        let traffic = Traffic {
            underlay: settled.underlay.name.clone(),
            address: settled.underlay.address.into(),
            port: settled.backend.port(),
            device,
            network: pool.network(),
            forward_rules: self.config.forward_rules,
        };
        let first = Ipv4Network::new(pool.min(), pool.subnet_len()).unwrap_or(pool.network());
        let plan = settled.plan(self.config, subnet.unwrap_or(first));
        self.findings.push(device::check(&self.handle, &plan.link(), &self.config.run_dir, there.is_some()).await);
        self.findings.extend(firewall::check(&traffic).await);
        self.findings.push(finding);
        plan
    }

    fn choose(&mut self, settled: &Settled, device: &str, mtu: Option<u32>, subnet: Option<Ipv4Network>) {
        self.choice.network = Some(settled.network);
        self.choice.subnet = subnet;
        self.choice.backend = Some(settled.backend.name());
        self.choice.port = Some(settled.backend.port());
        self.choice.device = Some(device.to_owned());
        self.choice.mtu = mtu;
    }
}
