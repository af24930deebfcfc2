//! Firewall rules that would drop tunnel packets, or what the overlay forwards.
//!
//! A heuristic, so never red: rules are read one by one as the kernel would, but what cannot be decided here (marks, sets,
//! limits, plugins) counts as "perhaps". Our programs take tunnel packets before netfilter sees them; INPUT meets what they
//! leave to the kernel: outer fragments, and everything with `--decap kernel`.

mod iptables;
mod nft;
mod ruleset;

use ipnetwork::Ipv4Network;

use self::ruleset::{Fate, Packet, Ruleset};
use super::Finding;
use crate::masquerade::{self, IptablesRules, RulesError};

/// What is asked about.
#[derive(Debug, Clone)]
pub(super) struct Traffic {
    /// The underlay interface.
    pub(super) underlay: String,
    /// Its address.
    pub(super) address: Ipv4Network,
    /// The tunnel's UDP port.
    pub(super) port: u16,
    /// The overlay device.
    pub(super) device: String,
    /// The overlay network.
    pub(super) network: Ipv4Network,
    /// Whether the agent has iptables' FORWARD accept overlay traffic.
    pub(super) forward_rules: bool,
}

/// All rules that could be read.
struct Rules {
    nftables: Ruleset,
    iptables: Vec<Ruleset>,
}

impl Rules {
    async fn read() -> Result<Self, RulesError> {
        let IptablesRules { legacy, nft } = masquerade::iptables_rules().await?;
        // Read through iptables, they say more.
        let nftables = nft::parse(&masquerade::nftables_rules().await?, nft.is_some());
        let iptables = [legacy, nft].into_iter().flatten().map(|listing| iptables::parse(&listing)).collect();
        Ok(Self { nftables, iptables })
    }
}

pub(super) async fn check(traffic: &Traffic) -> Vec<Finding> {
    match Rules::read().await {
        Ok(rules) => vec![input(&rules, traffic), forward(&rules, traffic)],
        Err(error) => {
            let found = format!("rules not read: {:#}", anyhow::Error::from(error));
            vec![Finding::yellow("firewall", found, "install nftables and run the check as root")]
        }
    }
}

fn input(rules: &Rules, traffic: &Traffic) -> Finding {
    const CHECK: &str = "firewall-input";
    let Traffic { underlay, port, .. } = traffic;
    let packet = Packet { interface: underlay, source: None, destination: traffic.address, udp_port: Some(*port) };
    let fates = rules.iptables.iter().chain([&rules.nftables]).map(|ruleset| ruleset.fate("input", &packet));
    let advice =
        format!("accept UDP port {port} on {underlay} from the other nodes: fragmented tunnel packets need it");
    judge(CHECK, &format!("UDP port {port} on {underlay}"), fates, advice)
}

fn forward(rules: &Rules, traffic: &Traffic) -> Finding {
    const CHECK: &str = "firewall-forward";
    let Traffic { device, network, forward_rules, .. } = traffic;
    let packet = Packet { interface: device, source: Some(*network), destination: *network, udp_port: None };
    let what = format!("what {device} forwards");
    let of_iptables: Vec<Fate> = rules.iptables.iter().map(|ruleset| ruleset.fate("forward", &packet)).collect();
    let of_nftables = rules.nftables.fate("forward", &packet);
    if *forward_rules && of_nftables == Fate::Accepted && of_iptables.iter().any(|fate| *fate != Fate::Accepted) {
        return Finding::green(
            CHECK,
            "iptables drops in FORWARD; the agent puts a rule there that accepts the overlay",
        );
    }
    let advice = match forward_rules {
        true => format!("accept {network} in that chain: the agent's own rule is in iptables' FORWARD alone"),
        false => format!("accept {network} there, or leave --iptables-forward-rules on"),
    };
    // With its own rule in place iptables is no obstacle.
    let fates = of_iptables.into_iter().filter(|_| !*forward_rules).chain([of_nftables]);
    judge(CHECK, &what, fates, advice)
}

/// The worst of several fates, as a finding.
fn judge(check: &'static str, what: &str, fates: impl Iterator<Item = Fate>, advice: String) -> Finding {
    match fates.max() {
        Some(Fate::Dropped(by)) => Finding::yellow(check, format!("{what} is dropped by {by}"), advice),
        Some(Fate::Perhaps(by)) => Finding::yellow(check, format!("{what} is perhaps dropped by {by}"), advice),
        Some(Fate::Accepted) | None => Finding::green(check, format!("no rule that drops {what}")),
    }
}
