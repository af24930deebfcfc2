//! What a flood of new flows does to an established one: to its rate, while it lasts and afterwards, and to the memory of
//! the flow tables.
//!
//! Everything of the established flow happens on one CPU, everything of the flood on the other: what they share is the
//! tables, and the kernel's own.

use std::{
    fmt, fs,
    os::fd::{AsFd as _, AsRawFd as _},
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use aya::maps::MapData;
use overlay_tests::{flood::Flood, node::Node};

use crate::{
    bed::Bed,
    cpu::{self, Awake},
    ground::GROUNDS,
    report::FloodCost,
    stats,
    subject::{self, SUBJECTS},
    workload::Workload,
};

/// How many flows are new.
const FLOWS: u32 = 1_000_000;

/// The kinds of flood.
#[derive(Debug, Clone, Copy)]
enum Kind {
    /// A port scan that nobody answers: no flow of it is ever approved.
    Scan,
    /// One packet there and one back: each flow is approved.
    Exchange,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Scan => "scan",
            Self::Exchange => "exchange",
        })
    }
}

/// Measures both kinds; the established flow for `duration` at a time.
///
/// # Errors
///
/// When the bed cannot be built, or the flood does not get through.
pub(crate) fn measure(duration: Duration) -> Result<Vec<FloodCost>> {
    let subject = SUBJECTS.iter().find(|subject| matches!(subject.path, subject::Path::Overlay(..)));
    [Kind::Scan, Kind::Exchange]
        .into_iter()
        .map(|kind| flood(&Bed::build(subject.context("a subject of ours")?)?, kind, duration))
        .collect()
}

fn flood(bed: &Bed, kind: Kind, duration: Duration) -> Result<FloodCost> {
    let two = cpu::two()?;
    let ground = GROUNDS[0];
    bed.prepare(ground, two)?;
    let _awake = Awake::hold();
    let (work, idle) = (ground.layout.cpus(two), two[0]);
    ensure!(!work.contains(&idle), "the flood needs a CPU of its own");
    let rate = || Ok::<_, anyhow::Error>(Workload::Udp.measure(&bed.ends, work, duration)?.rate);
    let median = |rates: &[f64]| stats::median(rates).context("no rate");

    let nodes = [&bed.agents[0], &bed.agents[1]];
    let memory_before = table_bytes(nodes[0])?;
    let before = (0..5).map(|_| rate()).collect::<Result<Vec<_>>>()?;
    let over = AtomicBool::new(false);
    let during = thread::scope(|scope| {
        let flood = scope.spawn(|| {
            let flooded = cpu::pin(0, idle).and_then(|()| {
                let flood = Flood::between(nodes[0].container(), nodes[1].container())?;
                match kind {
                    Kind::Scan => flood.scan(FLOWS),
                    Kind::Exchange => flood.exchange(FLOWS),
                }
            });
            over.store(true, Ordering::Relaxed);
            flooded
        });
        let mut rates = Vec::new();
        while !over.load(Ordering::Relaxed) {
            rates.push(rate()?);
        }
        flood.join().map_err(|_| anyhow::anyhow!("the flood has panicked"))??;
        Ok::<_, anyhow::Error>(rates)
    })?;
    let after = (0..5).map(|_| rate()).collect::<Result<Vec<_>>>()?;
    Ok(FloodCost {
        kind: kind.to_string(),
        flows: FLOWS,
        before: median(&before)?,
        during: median(&during)?,
        after: median(&after)?,
        table_bytes_before: memory_before,
        table_bytes_after: table_bytes(nodes[0])?,
    })
}

/// The memory of the node's flow tables in bytes, as the kernel charges it.
fn table_bytes(node: &Node) -> Result<u64> {
    let bytes = |name: &str| map_bytes(&node.run_dir().join("bpf/v1/maps").join(name));
    Ok(bytes("FLOWS")? + bytes("CANDIDATES")?)
}

fn map_bytes(pin: &Path) -> Result<u64> {
    let map = MapData::from_pin(pin).with_context(|| format!("open the map {}", pin.display()))?;
    let path = format!("/proc/self/fdinfo/{}", map.fd().as_fd().as_raw_fd());
    let info = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let bytes = info.lines().find_map(|line| line.strip_prefix("memlock:"));
    bytes.with_context(|| format!("{path} has no memlock"))?.trim().parse().context("understand memlock")
}
