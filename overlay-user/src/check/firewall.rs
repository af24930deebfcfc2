//! Firewall rules that would drop tunnel packets, or what the overlay forwards, or what nodes find each other by.
//!
//! A heuristic, so never red: rules are read one by one as the kernel would, but what cannot be decided here (marks, sets,
//! limits, plugins) counts as "perhaps". Our programs take tunnel packets before netfilter sees them; INPUT meets what they
//! leave to the kernel: outer fragments, and everything with `--decap kernel`. It meets neighbour discovery as well, which is
//! to IPv6 what ARP, that no such rule is about, is to IPv4.

mod iptables;
mod nft;
mod packet;
mod ruleset;

use std::net::{IpAddr, Ipv6Addr};

use ipnetwork::IpNetwork;

use self::{
    packet::{Packet, Payload},
    ruleset::{Fate, Ruleset},
};
use super::Finding;
use crate::masquerade::{self, Family, IptablesRules, RulesError};

/// What is asked about.
#[derive(Debug, Clone)]
pub(super) struct Traffic {
    /// The underlay interface.
    pub(super) underlay: String,
    /// Its addresses, one of a family, that tunnel packets are for.
    pub(super) addresses: Vec<IpAddr>,
    /// The tunnel's UDP port.
    pub(super) port: u16,
    /// The overlay networks, each with the overlay device that it is routed to.
    pub(super) forwarded: Vec<(String, IpNetwork)>,
    /// Whether the agent has iptables' FORWARD accept overlay traffic.
    pub(super) forward_rules: bool,
}

impl Traffic {
    fn families(&self) -> impl Iterator<Item = Family> {
        let networks = self.forwarded.iter().map(|(_, network)| *network);
        let all: Vec<_> = self.addresses.iter().map(|&address| address.into()).chain(networks).collect();
        Family::ALL.into_iter().filter(move |family| all.iter().any(|&network| Family::of(network) == *family))
    }
}

/// All rules that could be read.
struct Rules {
    nftables: Ruleset,
    /// Each family's of each implementation.
    iptables: Vec<Ruleset>,
}

impl Rules {
    async fn read(families: impl Iterator<Item = Family>) -> Result<Self, RulesError> {
        let (mut iptables, mut read) = (Vec::new(), Vec::new());
        for family in families {
            let IptablesRules { legacy, nft } = masquerade::iptables_rules(family).await?;
            read.extend(nft.is_some().then_some(family));
            iptables.extend([legacy, nft].into_iter().flatten().map(|listing| iptables::parse(&listing, family)));
        }
        // Read through iptables, they say more.
        let nftables = nft::parse(&masquerade::nftables_rules().await?, &read);
        Ok(Self { nftables, iptables })
    }

    fn in_input(&self, packet: &Packet<'_>) -> impl Iterator<Item = Fate> {
        self.iptables.iter().chain([&self.nftables]).map(|ruleset| ruleset.fate("input", packet))
    }
}

pub(super) async fn check(traffic: &Traffic) -> Vec<Finding> {
    match Rules::read(traffic.families()).await {
        Ok(rules) => {
            let mut findings: Vec<_> =
                traffic.addresses.iter().map(|&address| input(&rules, traffic, address)).collect();
            findings.extend(traffic.addresses.iter().filter_map(|&address| discovery(&rules, traffic, address)));
            findings
                .extend(traffic.forwarded.iter().map(|(device, network)| forward(&rules, traffic, device, *network)));
            findings
        }
        Err(error) => {
            let found = format!("rules not read: {:#}", anyhow::Error::from(error));
            vec![Finding::yellow("firewall", found, "install nftables and run the check as root")]
        }
    }
}

fn input(rules: &Rules, traffic: &Traffic, address: IpAddr) -> Finding {
    let Traffic { underlay, port, .. } = traffic;
    let destination = address.into();
    let packet = Packet { interface: underlay, source: None, destination, payload: Payload::Udp(*port) };
    let advice =
        format!("accept UDP port {port} on {underlay} from the other nodes: fragmented tunnel packets need it");
    let what = format!("UDP port {port} of {address} on {underlay}");
    judge("firewall-input", &what, rules.in_input(&packet), advice)
}

/// Without neighbour discovery nobody on the link finds an IPv6 address.
fn discovery(rules: &Rules, traffic: &Traffic, address: IpAddr) -> Option<Finding> {
    let IpAddr::V6(address) = address else { return None };
    let underlay = traffic.underlay.as_str();
    let destination = IpAddr::from(solicited(address)).into();
    let payload = Payload::NeighbourSolicitation;
    let packet = Packet { interface: underlay, source: None, destination, payload };
    let advice = format!(
        "accept ICMPv6 of types 135 and 136 on {underlay}: without them the nodes do not find each other's addresses"
    );
    let what = format!("neighbour discovery for {address} on {underlay}");
    Some(judge("firewall-neighbour", &what, rules.in_input(&packet), advice))
}

/// The multicast group in which an address is asked for (RFC 4291, section 2.7.1).
fn solicited(address: Ipv6Addr) -> Ipv6Addr {
    let [.., last, low] = address.segments();
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | last & 0xff, low)
}

fn forward(rules: &Rules, traffic: &Traffic, device: &str, network: IpNetwork) -> Finding {
    const CHECK: &str = "firewall-forward";
    let forward_rules = traffic.forward_rules;
    let packet = Packet { interface: device, source: Some(network), destination: network, payload: Payload::Any };
    let of_iptables: Vec<Fate> = rules.iptables.iter().map(|ruleset| ruleset.fate("forward", &packet)).collect();
    let of_nftables = rules.nftables.fate("forward", &packet);
    let iptables = Family::of(network).iptables();
    if forward_rules && of_nftables == Fate::Accepted && of_iptables.iter().any(|fate| *fate != Fate::Accepted) {
        let found = format!("{iptables} drops in FORWARD; the agent puts a rule there that accepts {network}");
        return Finding::green(CHECK, found);
    }
    let advice = match forward_rules {
        true => format!("accept {network} in that chain: the agent's own rule is in {iptables}' FORWARD alone"),
        false => format!("accept {network} there, or leave --iptables-forward-rules on"),
    };
    // With its own rule in place iptables is no obstacle.
    let fates = of_iptables.into_iter().filter(|_| !forward_rules).chain([of_nftables]);
    judge(CHECK, &format!("what {device} forwards of {network}"), fates, advice)
}

/// The worst of several fates, as a finding.
fn judge(check: &'static str, what: &str, fates: impl Iterator<Item = Fate>, advice: String) -> Finding {
    match fates.max() {
        Some(Fate::Dropped(by)) => Finding::yellow(check, format!("{what} is dropped by {by}"), advice),
        Some(Fate::Perhaps(by)) => Finding::yellow(check, format!("{what} is perhaps dropped by {by}"), advice),
        Some(Fate::Accepted) | None => Finding::green(check, format!("no rule that drops {what}")),
    }
}
