//! What `overlay status` shows: this node, its peers, its drops, and whether anything is wrong.
//!
//! Everything but what only an agent can know is read from the pinned maps, so it is there while the agent is dead.

mod problems;
mod sample;
mod text;

use std::{
    iter::Sum,
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use anyhow::Result;
use ipnetwork::Ipv4Network;
use overlay_common::{Reason, Traffic};
use serde::Serialize;

pub(crate) use self::{
    sample::Sample,
    text::{percent, si},
};
use crate::{
    agent::state::{self, AgentState},
    interface_name::interface_name,
    maps::LocalNodeMap,
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
    /// Underlay address.
    pub address: Ipv4Addr,
    /// The underlay interface; null when there is none with its index any more.
    pub underlay: Option<String>,
    /// The overlay device; null when it is gone.
    pub overlay: Option<String>,
    /// The overlay network.
    pub network: Ipv4Network,
    /// The subnet that is forwarded for; null while another node holds ours.
    pub subnet: Option<Ipv4Network>,
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
    /// The subnet.
    pub subnet: Ipv4Network,
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
        let node = NodeStatus::read(run_dir, after.containers().count())?;
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
        let (vtep, range) = (node.vtep::<[u8; 4]>(), node.range::<[u8; 4]>());
        let of = |(address, length)| Ipv4Network::new(address, length);
        let subnet = range.claims_subnet().then(|| of(range.subnet())).transpose()?;
        let network = of(range.network())?;
        Ok(Self {
            address: vtep.address,
            underlay: interface_name(node.underlay_ifindex),
            overlay: interface_name(node.usual_device::<[u8; 4]>().ifindex),
            network,
            subnet,
            port: vtep.port,
            vni: vtep.vni,
            containers,
        })
    }
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
