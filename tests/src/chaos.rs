//! [`Chaos`]: kills, pauses and starts agents and members of etcd by chance. The same seed strikes in the same order.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use serde::Serialize;

use crate::{cluster::Cluster, etcd::Etcd, node::Node};

/// The longest time between two blows, and the shortest.
const PEACE: [Duration; 2] = [Duration::from_millis(50), Duration::from_millis(1500)];
/// The longest time without a majority of etcd's members.
const LEADERLESS: Duration = Duration::from_secs(20);

/// Who strikes, and at whom.
#[derive(Debug)]
pub struct Chaos {
    rng: StdRng,
    members: Vec<Member>,
    /// Which agents are stopped by a signal that lets them go on later.
    paused: Vec<bool>,
    /// Since when most members are down.
    leaderless: Option<Instant>,
    blows: Blows,
}

/// How often what was done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Blows {
    /// Members of etcd killed.
    pub members_killed: u32,
    /// Members stopped for a while.
    pub members_paused: u32,
    /// How often most members were down at once.
    pub majorities_lost: u32,
    /// Agents killed.
    pub agents_killed: u32,
    /// Agents stopped for a while.
    pub agents_paused: u32,
    /// Agents asked to end.
    pub agents_stopped: u32,
    /// Agents started again.
    pub agents_started: u32,
}

/// What a member of etcd is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Member {
    Up,
    Paused,
    Dead,
}

impl Chaos {
    /// Will strike at the first `agents` nodes' agents, and at as many `members` of etcd.
    #[must_use]
    pub fn new(seed: u64, agents: usize, members: usize) -> Self {
        Self {
            rng: StdRng::seed_from_u64(seed),
            members: vec![Member::Up; members],
            paused: vec![false; agents],
            leaderless: None,
            blows: Blows::default(),
        }
    }

    /// The chance that all of it comes from.
    pub fn rng(&mut self) -> &mut StdRng {
        &mut self.rng
    }

    /// How often what was done.
    #[must_use]
    pub fn blows(&self) -> Blows {
        self.blows
    }

    /// How long to wait for the next blow.
    pub fn peace(&mut self) -> Duration {
        self.rng.random_range(PEACE[0]..PEACE[1])
    }

    /// Does one thing to the cluster, or makes one good.
    ///
    /// # Errors
    ///
    /// When a process cannot be struck or started.
    pub fn strike(&mut self, cluster: &mut Cluster) -> Result<()> {
        let (nodes, members) = cluster.parts_mut();
        let nodes = &mut nodes[..self.paused.len()];
        match self.rng.random_range(0..10) {
            0..4 => self.hit_member(members)?,
            4..7 => self.heal_member(members)?,
            _ => self.hit_agent(nodes)?,
        }
        let down = self.members.iter().filter(|member| **member != Member::Up).count();
        if down * 2 < self.members.len() {
            self.leaderless = None;
        } else if self.leaderless.is_none() {
            self.leaderless = Some(Instant::now());
            self.blows.majorities_lost += 1;
        } else if self.leaderless.is_some_and(|since| since.elapsed() > LEADERLESS) {
            self.heal_members(members)?;
        }
        self.start_agents(nodes)
    }

    /// Makes everything good, and waits until all nodes know each other again. Agents that were struck at are started anew,
    /// and must keep their subnets.
    ///
    /// # Errors
    ///
    /// When something does not come back.
    pub fn heal(&mut self, cluster: &mut Cluster) -> Result<()> {
        let (nodes, members) = cluster.parts_mut();
        self.heal_members(members)?;
        for node in &mut nodes[..self.paused.len()] {
            let subnet = node.subnet().clone();
            node.agent().kill()?;
            node.start_agent()?;
            ensure!(*node.wait_ready()? == subnet, "{} has another subnet than before", node.name());
        }
        cluster.wait_converged()
    }

    fn hit_member(&mut self, members: &mut [Etcd]) -> Result<()> {
        let number = self.rng.random_range(0..members.len());
        if self.members[number] != Member::Up {
            return Ok(());
        }
        if self.rng.random() {
            members[number].kill()?;
            self.members[number] = Member::Dead;
            self.blows.members_killed += 1;
        } else {
            members[number].pause()?;
            self.members[number] = Member::Paused;
            self.blows.members_paused += 1;
        }
        Ok(())
    }

    fn heal_member(&mut self, members: &mut [Etcd]) -> Result<()> {
        let down: Vec<_> = (0..members.len()).filter(|&number| self.members[number] != Member::Up).collect();
        let Some(&number) = down.choose(&mut self.rng) else { return Ok(()) };
        match self.members[number] {
            Member::Dead => members[number].relaunch()?,
            _ => members[number].process().signal(Signal::SIGCONT)?,
        }
        self.members[number] = Member::Up;
        Ok(())
    }

    fn heal_members(&mut self, members: &mut [Etcd]) -> Result<()> {
        while self.members.iter().any(|member| *member != Member::Up) {
            self.heal_member(members)?;
        }
        members.iter_mut().try_for_each(Etcd::wait_healthy)?;
        self.leaderless = None;
        Ok(())
    }

    fn hit_agent(&mut self, nodes: &mut [Node]) -> Result<()> {
        let number = self.rng.random_range(0..nodes.len());
        let agent = nodes[number].agent();
        if self.paused[number] {
            self.paused[number] = false;
            return agent.signal(Signal::SIGCONT);
        }
        if agent.ended()?.is_some() {
            return Ok(());
        }
        let (signal, count) = match self.rng.random_range(0..3) {
            0 => (Signal::SIGKILL, &mut self.blows.agents_killed),
            1 => (Signal::SIGTERM, &mut self.blows.agents_stopped),
            _ => (Signal::SIGSTOP, &mut self.blows.agents_paused),
        };
        agent.signal(signal)?;
        *count += 1;
        self.paused[number] = signal == Signal::SIGSTOP;
        Ok(())
    }

    /// Starts agents that have ended, as a supervisor would: each one with some chance, so that some stay away longer.
    fn start_agents(&mut self, nodes: &mut [Node]) -> Result<()> {
        for node in nodes {
            if self.rng.random_bool(0.6) && node.agent().ended()?.is_some() {
                node.start_agent()?;
                self.blows.agents_started += 1;
            }
        }
        Ok(())
    }
}
