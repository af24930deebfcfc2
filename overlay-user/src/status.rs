//! What `overlay status` shows: this node, its peers, its drops, and whether anything is wrong.
//!
//! Everything but what only an agent can know is read from the pinned maps, so it is there while the agent is dead.

mod problems;
mod sample;
mod text;

use std::{
    collections::BTreeSet,
    iter::Sum,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use anyhow::Result;
use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};
use overlay_common::{Reason, Traffic};
use serde::Serialize;

pub(crate) use self::{
    sample::Sample,
    text::{percent, si},
};
use crate::{
    agent::state::{self, AgentState},
    in_words::{joined, texts},
    interface_name::interface_name,
    maps::{Family, LocalNodeMap},
    rundir::RunDir,
};

/// What `overlay status` shows. With `-o json` these are its fields; they stay as they are.
#[derive(Debug, Serialize)]
pub struct Status {
    /// What is wrong, most urgent first; empty: nothing is.
    pub problems: Vec<String>,
    /// What the agent says; null while none runs.
    pub agent: Option<AgentState>,
    /// This node, as the programs see it.
    pub node: NodeStatus,
    /// Remote subnets and what is exchanged with them.
    pub peers: Vec<Peer>,
    /// Reasons for which packets were dropped.
    pub drops: Vec<Drops>,
    /// How long rates were measured for, in seconds.
    pub interval: f64,
}

/// This node, as the programs see it.
#[derive(Debug, Serialize)]
pub struct NodeStatus {
    /// Underlay address over IPv4; null without one.
    pub address: Option<Ipv4Addr>,
    /// The same over IPv6.
    pub ipv6_address: Option<Ipv6Addr>,
    /// The underlay interface; null when there is none with its index any more.
    pub underlay: Option<String>,
    /// The overlay device over IPv4; null when it is gone, or there is none.
    pub overlay: Option<String>,
    /// The same over IPv6.
    pub ipv6_overlay: Option<String>,
    /// The IPv4 network; null without one.
    pub network: Option<Ipv4Network>,
    /// The IPv4 subnet that is forwarded for; null without one, and while another node holds ours.
    pub subnet: Option<Ipv4Network>,
    /// The IPv6 network; null without one.
    pub ipv6_network: Option<Ipv6Network>,
    /// The IPv6 subnet that is forwarded for, as the IPv4 one.
    pub ipv6_subnet: Option<Ipv6Network>,
    /// UDP port.
    pub port: u16,
    /// VXLAN network number, 0 for `udp`.
    pub vni: u32,
    /// Containers whose addresses are known.
    pub containers: usize,
}

/// A remote subnet.
#[derive(Debug, Serialize)]
pub struct Peer {
    /// The subnet, of either family.
    pub subnet: IpNetwork,
    /// Underlay address of the node that owns it.
    pub node: IpAddr,
    /// `active`, `idle`, or `one-way` where packets went out and none has come in, ever.
    pub state: &'static str,
    /// Whether packets go without a tunnel.
    pub direct: bool,
    /// Counts since the subnet was first heard of.
    pub total: Counts,
    /// Counts a second.
    pub rate: Counts,
}

/// Packets and bytes of a peer; bytes are those of inner packets.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Counts {
    /// Packets sent.
    pub encap_packets: u64,
    /// Bytes sent.
    pub encap_bytes: u64,
    /// Packets received.
    pub decap_packets: u64,
    /// Bytes received.
    pub decap_bytes: u64,
    /// Packets of both directions that took the fast path.
    pub fast_packets: u64,
}

/// Drops for one reason.
#[derive(Debug, Serialize)]
pub struct Drops {
    /// The reason's name.
    pub reason: String,
    /// Packets since the data path was set up.
    pub packets: u64,
    /// Packets a second.
    pub rate: u64,
    /// The reason in words.
    pub meaning: &'static str,
    /// What to look at.
    pub hint: &'static str,
}

impl Status {
    /// Looks at the data path in `run_dir`, twice: rates are measured over `interval`.
    ///
    /// # Errors
    /// When there is no data path, or its maps cannot be read.
    pub async fn read(run_dir: &RunDir, interval: Duration) -> Result<Self> {
        let before = Sample::read(run_dir)?;
        tokio::time::sleep(interval).await;
        Self::between(run_dir, &before, &Sample::read(run_dir)?).await
    }

    /// What is so now, with rates as they were from `before` until `after`.
    pub(crate) async fn between(run_dir: &RunDir, before: &Sample, after: &Sample) -> Result<Self> {
        let agent = state::ask(&run_dir.socket()).await;
        let node = NodeStatus::read(run_dir, after.containers().map(|(_, veth)| veth).collect::<BTreeSet<_>>().len())?;
        let interval = after.since(before).as_secs_f64();
        let peers = after.routes.iter().map(|(&subnet, route)| {
            let (old, new) = (before.traffic(subnet), after.traffic(subnet));
            let (total, rate) = (Counts::of(&new), Counts::of(&new).less(Counts::of(&old)).over(interval));
            let state = match () {
                () if rate.encap_packets + rate.decap_packets > 0 => "active",
                () if total.encap_packets > 0 && total.decap_packets == 0 => "one-way",
                () => "idle",
            };
            Peer { subnet, node: route.next_hop().ip(), state, direct: route.is_direct(), total, rate }
        });
        let peers = peers.collect();
        let drops = after.drops.iter().zip(&before.drops).filter(|((_, packets), _)| *packets > 0);
        let drops = drops.map(|(new, old)| Drops::of(new.0, new.1, per_second(new.1 - old.1.min(new.1), interval)));
        let drops = drops.collect();
        let problems = problems::find(run_dir, agent.as_ref(), &node)?;
        Ok(Self { problems, agent, node, peers, drops, interval })
    }
}

impl NodeStatus {
    fn read(run_dir: &RunDir, containers: usize) -> Result<Self> {
        let node = LocalNodeMap::open(&run_dir.existing_maps()?)?.get()?;
        let (vtep4, vtep6) = (node.vtep::<[u8; 4]>(), node.vtep::<[u8; 16]>());
        let (network, subnet) = <[u8; 4]>::range_of(&node);
        let (ipv6_network, ipv6_subnet) = <[u8; 16]>::range_of(&node);
        let (device4, device6) = (node.device::<[u8; 4]>(), node.device::<[u8; 16]>());
        Ok(Self {
            address: device4.map(|_| vtep4.address),
            ipv6_address: device6.map(|_| vtep6.address),
            underlay: interface_name(node.underlay_ifindex),
            overlay: device4.and_then(|device| interface_name(device.ifindex)),
            ipv6_overlay: device6.and_then(|device| interface_name(device.ifindex)),
            network,
            subnet,
            ipv6_network,
            ipv6_subnet,
            port: node.port(),
            vni: node.vni(),
            containers,
        })
    }

    /// The underlay addresses, for people.
    #[must_use]
    pub fn addresses_text(&self) -> String {
        both(self.address, self.ipv6_address).unwrap_or_else(|| "no address".to_owned())
    }

    /// The subnets that are forwarded for, for people.
    #[must_use]
    pub fn subnets_text(&self) -> Option<String> {
        both(self.subnet, self.ipv6_subnet)
    }
}

/// What there is of a thing for IPv4 and the same for IPv6, for people.
fn both(ipv4: Option<impl ToString>, ipv6: Option<impl ToString>) -> Option<String> {
    let texts = texts(ipv4, ipv6);
    (!texts.is_empty()).then(|| joined(texts))
}

impl Counts {
    const fn of(traffic: &Traffic) -> Self {
        Self {
            encap_packets: traffic.encap_packets,
            encap_bytes: traffic.encap_bytes,
            decap_packets: traffic.decap_packets,
            decap_bytes: traffic.decap_bytes,
            fast_packets: traffic.encap_fast_packets + traffic.decap_fast_packets,
        }
    }

    /// How much of both directions took the fast path, in per cent; none where nothing was exchanged.
    #[must_use]
    pub fn fast_share(&self) -> Option<u64> {
        (self.fast_packets * 100).checked_div(self.encap_packets + self.decap_packets)
    }

    /// What was counted since `before`. A subnet that went and came back counts from 0 again.
    fn less(self, before: Self) -> Self {
        self.each(before, u64::saturating_sub)
    }

    fn over(self, seconds: f64) -> Self {
        self.each(self, |count, _| per_second(count, seconds))
    }

    fn each(self, other: Self, with: impl Fn(u64, u64) -> u64) -> Self {
        Self {
            encap_packets: with(self.encap_packets, other.encap_packets),
            encap_bytes: with(self.encap_bytes, other.encap_bytes),
            decap_packets: with(self.decap_packets, other.decap_packets),
            decap_bytes: with(self.decap_bytes, other.decap_bytes),
            fast_packets: with(self.fast_packets, other.fast_packets),
        }
    }
}

impl Sum for Counts {
    fn sum<I: Iterator<Item = Self>>(counts: I) -> Self {
        counts.fold(Self::default(), |sum, counts| sum.each(counts, |sum, count| sum + count))
    }
}

/// Rounded up: what has happened once is no rate of nothing.
pub(crate) fn per_second(count: u64, seconds: f64) -> u64 {
    (count as f64 / seconds.max(f64::EPSILON)).ceil() as u64
}

impl Drops {
    fn of(reason: Reason, packets: u64, rate: u64) -> Self {
        let (meaning, hint) = (reason.text(), reason.advice().hint);
        Self { reason: format!("{reason:?}"), packets, rate, meaning, hint }
    }
}
