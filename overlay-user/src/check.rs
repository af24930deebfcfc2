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

use anyhow::Result;
use rtnetlink::Handle;

pub use self::report::{Choice, Finding, Report, State};
use self::{datastore::Cluster, firewall::Traffic, rehearsal::Play};
use crate::{
    agent::{self, Adopted, Settled},
    config::AgentConfig,
    in_words::joined,
    lease::SubnetKey,
    link::LinkConfig,
    network::NetworkConfig,
    node::{self, Plan},
    underlay::Underlay,
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
    let mut forwarding = sysctls::forwarding(&play.plan.ranges);
    forwarding.extend(sysctls::accept_ra(&check.handle, &play.plan).await);
    let mut findings = vec![privileges::check(&config.run_dir), kernel::check()];
    findings.extend(rehearsal::check(play).await);
    findings.extend([
        memory::check(config.capacities),
        clock::check(),
        run_dir::check(&config.run_dir),
        subnet_file::check(&config.subnet_file),
        running,
        others,
    ]);
    findings.extend(forwarding);
    findings.push(sysctls::conntrack(config.flow_ttl != 0));
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
        let underlay = self.underlay(cluster.as_ref().map(|cluster| &cluster.network)).await;
        let settled = match (cluster, underlay) {
            (Some(cluster), Some(underlay)) => Some(self.node(&cluster, underlay).await),
            _ => None,
        };
        Play {
            plan: settled.unwrap_or_else(|| rehearsal::stand_in(self.config)),
            masquerade: self.config.masquerade,
            forward: self.config.forward_rules,
        }
    }

    async fn underlay(&mut self, network: Option<&NetworkConfig>) -> Option<Underlay> {
        let (finding, underlay) = underlay::check(&self.handle, self.config, network).await;
        self.findings.push(finding);
        let underlay = underlay?;
        let (finding, place) =
            decap::check(&self.handle, self.config.decap, &underlay, network.map(|network| &network.backend)).await;
        self.findings.push(finding);
        self.choice.decap = Some(place);
        // Nothing like it is asked of packets of IPv6.
        self.findings.extend(underlay.ipv4.map(|_| sysctls::rp_filter(&underlay.name)));
        self.choice.interface = Some(underlay.name.clone());
        self.choice.address = underlay.ipv4.map(|end| end.address);
        self.choice.public_ip = underlay.ipv4.map(|end| end.public_ip);
        self.choice.ipv6_address = underlay.ipv6.map(|end| end.address);
        self.choice.public_ipv6 = underlay.ipv6.map(|end| end.public_ip);
        Some(underlay)
    }

    /// What there is to say of a node whose network config and underlay are known.
    async fn node(&mut self, cluster: &Cluster, underlay: Underlay) -> Plan {
        let Cluster { store, network } = cluster;
        let backend = &network.backend;
        let adopted = Adopted::find(&self.handle, backend).await.unwrap_or_else(|_| Adopted::none(backend));
        let (finding, mtu) = mtu::check(&underlay, network);
        self.findings.push(finding);
        let mtu_or_least = mtu.unwrap_or_else(|| node::least_mtu(network.ipv6.is_some()));
        let settled = Settled { network: network.clone(), underlay, mtu: mtu_or_least, macs: adopted.macs() };
        self.findings.push(port::check(&settled, self.agent.as_deref(), &adopted).await);
        let (finding, subnets) = subnet::check(&**store, network, &settled.claim(self.config)).await;
        let ranges = subnets.map_or_else(|| network.first_subnets(), |key| key.ranges(network));
        let plan = settled.plan(self.config, ranges);
        let links = plan.links();
        self.choose(&plan, &links, mtu, subnets);
        for link in &links {
            self.findings.push(device::check(&self.handle, link, &self.config.run_dir, &adopted).await);
        }
        let networks = |link: &LinkConfig| link.ranges().map(|range| (link.name(), range.network)).collect::<Vec<_>>();
        let traffic = Traffic {
            underlay: plan.underlay.name.clone(),
            addresses: plan.underlay.ends().map(|end| end.address).collect(),
            port: plan.backend.port(),
            forwarded: links.iter().flat_map(networks).collect(),
            forward_rules: self.config.forward_rules,
        };
        self.findings.extend(firewall::check(&traffic).await);
        self.findings.push(finding);
        plan
    }

    fn choose(&mut self, plan: &Plan, links: &[LinkConfig], mtu: Option<u32>, subnets: Option<SubnetKey>) {
        self.choice.network = plan.ranges.ipv4.map(|range| range.network);
        self.choice.ipv6_network = plan.ranges.ipv6.map(|range| range.network);
        self.choice.subnet = subnets.filter(|_| plan.ranges.ipv4.is_some()).map(|key| key.v4);
        self.choice.ipv6_subnet = subnets.and_then(|key| key.v6);
        self.choice.backend = Some(plan.backend.name());
        self.choice.port = Some(plan.backend.port());
        self.choice.device = Some(joined(links.iter().map(LinkConfig::name)));
        self.choice.mtu = mtu;
    }
}
