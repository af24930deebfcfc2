//! A soak: containers talk while agents and members of etcd are struck by chance, containers come and go, and underlay
//! interfaces go down and up; at the end nothing may be left over, and no packet be lost that no flap accounts for.

mod churn;
mod flaps;
mod inventory;
mod markdown;
mod memory;
mod report;
mod verdict;

use std::{
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use clap::Args;
use overlay_tests::{
    chaos::Chaos,
    cluster::{Backend, Cluster, Settings},
    paced::Paced,
    steady::Steady,
    two_nodes,
};

use self::{churn::Churn, flaps::Flaps, inventory::Inventory, memory::Memory, report::SoakReport};

/// 200 packets a second from each container to each other.
const INTERVAL: Duration = Duration::from_millis(5);
/// How many nodes there are. Agents are struck on all but the last, whose agent's memory is watched.
const NODES: u8 = 3;
/// How often it is said how far it is.
const TOLD: Duration = Duration::from_secs(60);
/// How long the cluster may take until nothing of the soak is left.
const SETTLE: Duration = Duration::from_secs(30);

/// Options of the soak.
#[derive(Debug, Clone, Copy, PartialEq, Args)]
pub(crate) struct Options {
    /// How long everything happens together
    #[arg(long, value_name = "N", default_value_t = 10.0, value_parser = minutes)]
    minutes: f64,
    /// Where chance begins, to have the same blows again [default: by chance]
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u64>,
}

fn minutes(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(minutes) if minutes > 0.0 && minutes <= 10_000.0 => Ok(minutes),
        _ => Err("a number above 0, at most 10000".to_owned()),
    }
}

/// Soaks, and writes soak.json and soak.md into the directory `out`.
///
/// # Errors
///
/// When the cluster cannot be built or struck, or something is wrong at the end: what it is.
pub(crate) fn run(options: Options, out: &Path) -> Result<()> {
    let seed = options.seed.unwrap_or_else(rand::random);
    eprintln!("soak: {} minutes, seed {seed}", options.minutes);
    let report = soak(Duration::from_secs_f64(options.minutes * 60.0), seed)?;
    let text = markdown::text(&report);
    for (name, text) in [("soak.json", serde_json::to_string_pretty(&report)?), ("soak.md", text.clone())] {
        let path = out.join(name);
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
    }
    println!("{text}");
    eprintln!("soak: soak.json and soak.md are in {}", out.display());
    match &report.problems[..] {
        [] => Ok(()),
        problems => bail!("the soak (seed {seed}) has found: {}", problems.join("; ")),
    }
}

fn soak(time: Duration, seed: u64) -> Result<SoakReport> {
    let mut ground = Ground::new(seed)?;
    let before = Inventory::of(&ground.cluster)?;
    let nodes = ground.cluster.nodes();
    let steady = Steady::start(&two_nodes::flow(&nodes[0], &nodes[1]))?;
    let containers: Vec<_> = nodes.iter().map(|node| node.container().clone()).collect();
    let paced = Paced::start(&containers, INTERVAL)?;
    ground.strike(time, &paced)?;
    ground.heal()?;
    let carried = steady.stop();
    let pairs = paced.stop()?;
    let after = Inventory::once_as(&before, &ground.cluster, SETTLE)?;

    let nodes = ground.cluster.nodes();
    let names: Vec<_> = nodes.iter().map(|node| (node.name().to_owned(), node.container().v4())).collect();
    let (pairs, flaps) = verdict::attribute(&pairs, &ground.flaps.all, &names);
    let drops = nodes.iter().map(|node| Ok(format!("{}: {:?}", node.name(), node.counters().drops()?)));
    let report = SoakReport {
        problems: Vec::new(),
        seed,
        seconds: time.as_secs_f64(),
        blows: ground.chaos.blows(),
        containers: ground.churn.count(),
        flaps,
        pairs,
        tcp: carried.into(),
        counts: verdict::compare(&before.counts, &after.counts),
        difference: before.difference(&after),
        drops: drops.collect::<Result<_>>()?,
        memory: ground.memory.samples,
    };
    Ok(SoakReport { problems: verdict::problems(&report), ..report })
}

/// The cluster, and all that strikes at it.
struct Ground {
    cluster: Cluster,
    chaos: Chaos,
    churn: Churn,
    flaps: Flaps,
    memory: Memory,
}

impl Ground {
    fn new(seed: u64) -> Result<Self> {
        let settings = Settings { nodes: NODES, etcd_members: 3, backend: Backend::Vxlan, ..Settings::default() };
        let mut cluster = Cluster::start(&settings)?;
        let unstruck = cluster.nodes_mut().last_mut().context("a last node")?.agent().pid();
        Ok(Self {
            chaos: Chaos::new(seed, usize::from(NODES) - 1, 3),
            churn: Churn::prepare(cluster.nodes())?,
            flaps: Flaps::default(),
            memory: Memory::of(unstruck),
            cluster,
        })
    }

    fn strike(&mut self, time: Duration, paced: &Paced) -> Result<()> {
        let mut told = Instant::now();
        while paced.elapsed() < time {
            self.chaos.strike(&mut self.cluster)?;
            self.churn.strike(self.chaos.rng(), self.cluster.nodes())?;
            self.flaps.strike(self.chaos.rng(), &self.cluster, paced)?;
            self.memory.sample(paced.elapsed())?;
            if told.elapsed() > TOLD {
                told = Instant::now();
                let (seconds, blows) = (paced.elapsed().as_secs(), self.chaos.blows());
                eprintln!("soak: after {seconds} s: {blows:?}, {} flaps", self.flaps.all.len());
            }
            thread::sleep(self.chaos.peace());
        }
        Ok(())
    }

    fn heal(&mut self) -> Result<()> {
        self.chaos.heal(&mut self.cluster)?;
        self.churn.end()
    }
}
