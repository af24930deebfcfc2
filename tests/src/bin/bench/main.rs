//! `cargo xtask bench`: how fast the data path is beside others, and what the agent does with many leases.
//!
//! Everything happens in network namespaces without a name and a private mount namespace, and is gone at the end and on
//! Ctrl-C: see [`overlay_tests::sandbox`]. There is no PID namespace of its own, since the kernel's threads that poll
//! interfaces have to be found and given their CPU.

mod bed;
mod cpu;
mod flood;
mod ground;
mod leases;
mod lookup;
mod markdown;
mod plot;
mod programs;
mod report;
mod rounds;
mod soak;
mod stats;
mod subject;
mod workload;

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use overlay_tests::sandbox;
use regex::Regex;

use crate::report::Report;

/// Measures the data path beside plain routing, kernel VXLAN and bare nodes, what the programs take by the size of the
/// cluster, and the agent with many leases. Writes report.json, report.md and pictures.
#[derive(Debug, Parser)]
#[command(bin_name = "cargo xtask bench")]
struct Arguments {
    #[command(subcommand)]
    part: Option<Part>,
    /// Measure longer, in more rounds, with IPv6 inside and outside, and with more leases
    #[arg(long, global = true)]
    full: bool,
    /// Only the rows of the data path that this regular expression fits, and what they are compared with; rows are named
    /// like overlay-vxlan/nic/two/tcp-1. Implies the part `datapath`
    #[arg(long, value_name = "PATTERN")]
    only: Option<Regex>,
    /// Where the report goes
    #[arg(long, global = true, value_name = "DIR", default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/bench"))]
    out: PathBuf,
}

/// One part of the bench. The others stay in the report as they were.
#[derive(Debug, Clone, Copy, PartialEq, Subcommand)]
enum Part {
    /// The data path beside others
    Datapath,
    /// What the programs take for a packet of real traffic
    Programs,
    /// What the programs take by the number of routes, and of flows
    Lookup,
    /// What a flood of new flows does to an established one
    Flood,
    /// The agent with many leases
    Leases,
    /// Whether something leaks or is lost when everything happens together; only when asked for, with a report of its own
    Soak(soak::Options),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if !nix::unistd::Uid::effective().is_root() {
        eprintln!("error: only root can make network namespaces: run `cargo xtask bench` as root");
        return ExitCode::FAILURE;
    }
    match sandbox::isolated(|| run(&arguments)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    let start = Instant::now();
    let out = &arguments.out;
    fs::create_dir_all(out).with_context(|| format!("create {}", out.display()))?;
    if let Some(Part::Soak(options)) = arguments.part {
        return soak::run(options, out);
    }
    let mut report = Report::read(out);
    let only = arguments.only.as_ref().map(|_| Part::Datapath);
    let wanted = |part: Part| arguments.part.or(only).is_none_or(|wanted| wanted == part);
    if wanted(Part::Datapath) {
        report.datapath = Some(rounds::measure(&datapath(arguments)).context("measure the data path")?);
    }
    if wanted(Part::Programs) {
        let duration = Duration::from_millis(if arguments.full { 2000 } else { 300 });
        report.programs = Some(programs::measure(duration, arguments.full).context("measure the programs' run time")?);
    }
    if wanted(Part::Lookup) {
        report.lookup = Some(lookup::measure().context("measure the cost by the number of routes")?);
        report.flows = Some(lookup::flows().context("measure the cost by the number of flows")?);
    }
    if wanted(Part::Flood) {
        let duration = Duration::from_millis(if arguments.full { 500 } else { 100 });
        report.flood = Some(flood::measure(duration).context("measure what a flood of flows does")?);
    }
    if wanted(Part::Leases) {
        report.leases = Some(leases::measure(&leases(arguments)).context("measure the agent with many leases")?);
    }
    write(&report, out)?;
    eprintln!("bench: done in {:.0} s", start.elapsed().as_secs_f64());
    Ok(())
}

fn datapath(arguments: &Arguments) -> rounds::Extent {
    // Many short rounds rather than a few long ones: what disturbs a virtual machine lasts for seconds, and the median of
    // ratios forgets the rounds in which it came or went.
    let (rounds, milliseconds) = if arguments.full { (21, 300) } else { (3, 100) };
    let (duration, only) = (Duration::from_millis(milliseconds), arguments.only.clone());
    rounds::Extent { rounds, duration, only, ipv6: arguments.full }
}

fn leases(arguments: &Arguments) -> leases::Extent {
    let seconds = Duration::from_secs;
    match (arguments.full, arguments.part) {
        (true, _) => {
            leases::Extent { sizes: &[100, 1000, 10_000, 65_536], starts: 5, changes: 1000, rate: seconds(60) }
        }
        (false, Some(_)) => {
            leases::Extent { sizes: &[100, 1000, 10_000, 65_536], starts: 3, changes: 1000, rate: seconds(10) }
        }
        // Beside everything else, in three minutes.
        (false, None) => {
            leases::Extent { sizes: &[100, 1000, 10_000, 65_536], starts: 1, changes: 200, rate: seconds(5) }
        }
    }
}

/// Writes the report, prints it, and says where it is.
fn write(report: &Report, out: &Path) -> Result<()> {
    report.write(out)?;
    let text = markdown::text(report);
    let path = out.join(markdown::FILE);
    fs::write(&path, &text).with_context(|| format!("write {}", path.display()))?;
    if let Some(datapath) = &report.datapath {
        plot::draw(datapath, out)?;
    }
    println!("{text}");
    let shown = fs::canonicalize(out).unwrap_or_else(|_| out.to_path_buf());
    eprintln!("bench: report.json, report.md and pictures are in {}", shown.display());
    Ok(())
}
