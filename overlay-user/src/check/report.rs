//! [`Report`]: what was found, for people and for programs.

use std::net::{Ipv4Addr, Ipv6Addr};

use comfy_table::{Attribute, Cell, Color, ContentArrangement, Table, presets};
use ipnetwork::{Ipv4Network, Ipv6Network};
use serde::Serialize;

use crate::node::DecapPlace;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// In order.
    Green,
    /// The agent starts; something may be wrong.
    Yellow,
    /// The agent refuses to start.
    Red,
}

/// What one check has found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Name of the check. Some checks find several things.
    pub check: &'static str,
    /// How bad it is.
    pub state: State,
    /// What was found, in one line.
    pub found: String,
    /// What to do about it, in one line; absent when it is in order.
    pub advice: Option<String>,
}

/// What the agent would choose, as far as that could be found out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Choice {
    /// The underlay interface.
    pub interface: Option<String>,
    /// The address that outer packets are sent from.
    pub address: Option<Ipv4Addr>,
    /// The address in the lease.
    pub public_ip: Option<Ipv4Addr>,
    /// The same over IPv6.
    pub ipv6_address: Option<Ipv6Addr>,
    /// The IPv6 address in the lease.
    pub public_ipv6: Option<Ipv6Addr>,
    /// The overlay network.
    pub network: Option<Ipv4Network>,
    /// The subnet; absent where chance decides.
    pub subnet: Option<Ipv4Network>,
    /// The IPv6 network.
    pub ipv6_network: Option<Ipv6Network>,
    /// The IPv6 subnet; absent where chance decides.
    pub ipv6_subnet: Option<Ipv6Network>,
    /// `udp` or `vxlan`.
    pub backend: Option<&'static str>,
    /// The UDP port.
    pub port: Option<u16>,
    /// The overlay device; where there are two, "overlay.N and overlay-v6.N".
    pub device: Option<String>,
    /// MTU of the overlay, in bytes.
    pub mtu: Option<u32>,
    /// Where outer packets are decapsulated.
    pub decap: Option<DecapPlace>,
    /// Whether approved flows skip netfilter.
    pub fast_path: bool,
}

/// All that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// No finding is red.
    pub can_run: bool,
    /// Process id of the agent that runs with this run directory.
    pub agent_pid: Option<u32>,
    /// What the agent would choose.
    pub choice: Choice,
    /// The findings, in the order of the checks.
    pub checks: Vec<Finding>,
}

impl Finding {
    pub(super) fn green(check: &'static str, found: impl Into<String>) -> Self {
        Self { check, state: State::Green, found: found.into(), advice: None }
    }

    pub(super) fn yellow(check: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { check, state: State::Yellow, found: found.into(), advice: Some(advice.into()) }
    }

    pub(super) fn red(check: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { check, state: State::Red, found: found.into(), advice: Some(advice.into()) }
    }

    /// What the agent refuses to start for, in the agent's words.
    pub(super) fn refused(check: &'static str, error: impl Into<anyhow::Error>, advice: impl Into<String>) -> Self {
        Self::red(check, format!("{:#}", error.into()), advice)
    }
}

impl Report {
    pub(super) fn new(agent_pid: Option<u32>, choice: Choice, checks: Vec<Finding>) -> Self {
        let can_run = checks.iter().all(|finding| finding.state < State::Red);
        Self { can_run, agent_pid, choice, checks }
    }

    /// The report as text, coloured and as wide as the terminal when standard output is one.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut table = Table::new();
        table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
        table.set_header(["STATE", "CHECK", "FOUND, AND WHAT TO DO"]);
        for Finding { check, state, found, advice } in &self.checks {
            let advice = advice.iter().map(|advice| format!("\n-> {advice}")).collect::<String>();
            table.add_row([state.cell(), Cell::new(check), Cell::new(format!("{found}{advice}"))]);
        }
        format!("{}\n\n{}", table.trim_fmt(), self.summary())
    }

    fn summary(&self) -> String {
        let count = |state| self.checks.iter().filter(|finding| finding.state == state).count();
        let (red, yellow) = (count(State::Red), count(State::Yellow));
        match red {
            0 => format!("this node can run the agent: {} green, {yellow} yellow", count(State::Green)),
            _ => format!("the agent would refuse to start: {red} red, {yellow} yellow"),
        }
    }
}

impl State {
    fn cell(self) -> Cell {
        match self {
            Self::Green => Cell::new("green").fg(Color::Green),
            Self::Yellow => Cell::new("yellow").fg(Color::Yellow),
            Self::Red => Cell::new("red").fg(Color::Red).add_attribute(Attribute::Bold),
        }
    }
}
