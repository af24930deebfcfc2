//! The status on one screen.

use std::time::SystemTime;

use comfy_table::{Attribute, Cell, Color, ContentArrangement, Table, presets};

use super::{Counts, Status, both};
use crate::agent::state::{AgentState, seconds};

impl Status {
    /// The status as text; coloured when standard output is a terminal, unless `NO_COLOR` is set.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut sections = vec![self.overview().trim_fmt(), self.peers_table(), self.drops_table()];
        sections.retain(|section| !section.is_empty());
        sections.join("\n\n")
    }

    fn overview(&self) -> Table {
        let mut table = plain();
        match self.problems.as_slice() {
            [] => drop(table.add_row([Cell::new("status"), Cell::new("ok").fg(Color::Green)])),
            problems => problems.iter().for_each(|problem| {
                let cell = Cell::new(problem).fg(Color::Red).add_attribute(Attribute::Bold);
                table.add_row([Cell::new("PROBLEM"), cell]);
            }),
        }
        let node = &self.node;
        let or_gone = |name: &Option<String>| name.clone().unwrap_or_else(|| "gone".to_owned());
        let subnet = node.subnets_text().unwrap_or_else(|| "none".to_owned());
        let network = both(node.network, node.ipv6_network).unwrap_or_else(|| "no network".to_owned());
        let devices = both(node.overlay.clone(), node.ipv6_overlay.clone());
        let backend = if node.vni == 0 { "udp".to_owned() } else { format!("vxlan, VNI {}", node.vni) };
        table.add_row(["node", &format!("subnet {subnet} of {}, {} containers", network, node.containers)]);
        table.add_row(["underlay", &format!("{} with {}", or_gone(&node.underlay), node.addresses_text())]);
        table.add_row(["overlay", &format!("{}, {backend}, port {}", or_gone(&devices), node.port)]);
        match &self.agent {
            Some(agent) => of_agent(agent, &mut table),
            None => drop(table.add_row(["agent", "none answers; what follows is from the maps"])),
        }
        table
    }

    fn peers_table(&self) -> String {
        let mut table = plain();
        table.set_header(["PEER", "SUBNET", "STATE", "SENT", "BYTES", "B/S", "RECEIVED", "BYTES", "B/S", "FAST"]);
        for peer in &self.peers {
            let Counts { encap_packets, encap_bytes, decap_packets, decap_bytes, .. } = peer.total;
            let fast = percent(peer.total.fast_share());
            let state = if peer.direct { format!("{}, direct", peer.state) } else { peer.state.to_owned() };
            let colour = if peer.state == "one-way" { Color::Yellow } else { Color::Reset };
            table.add_row([
                Cell::new(peer.node),
                Cell::new(peer.subnet),
                Cell::new(state).fg(colour),
                Cell::new(encap_packets),
                Cell::new(si(encap_bytes)),
                Cell::new(si(peer.rate.encap_bytes)),
                Cell::new(decap_packets),
                Cell::new(si(decap_bytes)),
                Cell::new(si(peer.rate.decap_bytes)),
                Cell::new(fast),
            ]);
        }
        if self.peers.is_empty() { "no peers".to_owned() } else { table.trim_fmt() }
    }

    fn drops_table(&self) -> String {
        let mut table = plain();
        table.set_header(["DROPPED", "A SECOND", "REASON", "MEANING, AND WHAT TO LOOK AT"]);
        for drops in &self.drops {
            let colour = if drops.rate > 0 { Color::Yellow } else { Color::Reset };
            table.add_row([
                Cell::new(drops.packets),
                Cell::new(drops.rate).fg(colour),
                Cell::new(&drops.reason),
                Cell::new(format!("{}\n-> {}", drops.meaning, drops.hint)),
            ]);
        }
        if self.drops.is_empty() { "nothing dropped".to_owned() } else { table.trim_fmt() }
    }
}

fn of_agent(agent: &AgentState, table: &mut Table) {
    let now = seconds(SystemTime::now());
    table.add_row(["agent", &format!("pid {}, for {} s", agent.pid, now.saturating_sub(agent.started))]);
    if let Some(choice) = &agent.choice {
        table.add_row(["mtu", &format!("{}; the underlay's is {}", choice.mtu, choice.underlay_mtu)]);
        table.add_row(["decap", &format!("{}: {}", choice.decap, choice.decap_why)]);
        table.add_row(["fast path", if choice.fast_path { "on" } else { "off" }]);
    }
    let lease = agent.lease.expires.map_or_else(
        || "never expires".to_owned(),
        |expires| format!("expires in {} min unless renewed", expires.saturating_sub(now) / 60),
    );
    table.add_row(["lease", &lease]);
    let store = &agent.datastore;
    let (state, age) = (if store.silent.is_some() { "silent" } else { "answers" }, now.saturating_sub(store.since));
    table.add_row(["datastore", &format!("{state} for {age} s; {} keys skipped", store.skipped)]);
}

fn plain() -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    table
}

/// A share in per cent; a dash where there is none.
pub(crate) fn percent(share: Option<u64>) -> String {
    share.map_or_else(|| "-".to_owned(), |share| format!("{share}%"))
}

/// A number in few digits, with a prefix of the SI.
pub(crate) fn si(number: u64) -> String {
    let prefixes = [(1_000_000_000_000, "T"), (1_000_000_000, "G"), (1_000_000, "M"), (1000, "k")];
    let prefix = prefixes.into_iter().find(|(from, _)| number >= *from);
    prefix.map_or_else(|| number.to_string(), |(from, prefix)| format!("{}{prefix}", number / from))
}
