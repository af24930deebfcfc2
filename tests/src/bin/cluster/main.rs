//! `cargo xtask run`: a cluster on this machine, every container talking to every other, and everything gone again.
//!
//! The work is done in a contained child (see [`overlay_tests::sandbox`]), so that nothing depends on its clean-up.

mod keep;
mod measure;
mod table;

use std::{process::ExitCode, time::Instant};

use anyhow::{Context, Result};
use clap::Parser;
use overlay_tests::{
    cluster::{Backend, Cluster, Datastore, Settings},
    families::Families,
    node::Node,
    sandbox::{self, Contained},
};
use overlay_user::in_words::joined;

/// Runs a cluster of network namespaces on this machine: real etcd, one agent and one container per node; every
/// container pings every other and sends it a TCP stream, over IPv4, IPv6 or both. Exits with 0 only if every pair talked and every packet was
/// counted.
#[derive(Debug, Parser)]
#[command(bin_name = "cargo xtask run")]
struct Arguments {
    /// How many nodes
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(2..=64))]
    nodes: u8,
    /// How packets cross the underlay
    #[arg(long, value_enum, default_value_t = Backend::Vxlan)]
    backend: Backend,
    /// Which addresses the containers have, and the nodes
    #[arg(long, value_enum, default_value_t = Families::V4)]
    ip: Families,
    /// Where the leases are kept
    #[arg(long, value_enum, default_value_t = Datastore::Etcd)]
    datastore: Datastore,
    /// Leave the cluster up and print how to enter it and how to end it
    #[arg(long)]
    keep: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.backend == Backend::Udp && arguments.ip.has_v6() {
        eprintln!("error: the udp backend carries IPv4 alone: leave out --ip, or take --backend vxlan");
        return ExitCode::from(2);
    }
    if !nix::unistd::Uid::effective().is_root() {
        eprintln!("error: only root can make network namespaces: run `cargo xtask run` as root");
        return ExitCode::FAILURE;
    }
    let outcome = sandbox::contain(|contained| run(&arguments, contained).unwrap_or_else(|error| fail(&error)));
    match outcome {
        Ok(code) => {
            if code > 128 {
                eprintln!("interrupted: everything is gone again");
            }
            code.into()
        }
        Err(error) => fail(&error).into(),
    }
}

fn fail(error: &anyhow::Error) -> u8 {
    eprintln!("error: {error:#}");
    1
}

/// Brings the cluster up and measures it. Returns the exit code.
fn run(arguments: &Arguments, contained: Contained) -> Result<u8> {
    let start = Instant::now();
    let cluster = bring_up(arguments)?;
    let pairs = measure::measure(&cluster)?;
    println!("{}", table::table(&pairs));
    let problems: Vec<_> = pairs.iter().flat_map(measure::Pair::problems).collect();
    for problem in &problems {
        eprintln!("error: {problem}");
    }
    for node in cluster.nodes() {
        for (reason, packets) in node.counters().drops()? {
            println!("{}: {packets} packets dropped: {}", node.name(), reason.text());
        }
    }
    let nodes = cluster.nodes().len();
    eprintln!("{} pairs in {:.1} s", nodes * (nodes - 1), start.elapsed().as_secs_f64());
    let code = u8::from(!problems.is_empty());
    if arguments.keep {
        keep::keep(&cluster, contained, code)?;
    }
    Ok(code)
}

/// Brings the cluster up and says what it is doing.
fn bring_up(arguments: &Arguments) -> Result<Cluster> {
    let settings = Settings {
        nodes: arguments.nodes,
        backend: arguments.backend,
        overlay: arguments.ip,
        underlay: arguments.ip,
        datastore: arguments.datastore,
        ..Settings::default()
    };
    let start = Instant::now();
    let seconds = || format!("{:.1} s", start.elapsed().as_secs_f64());
    let mut cluster = Cluster::new(&settings).context("set the cluster up")?;
    cluster.write_config(&settings.network_config())?;
    let store = match settings.datastore {
        Datastore::Etcd => "etcd up",
        Datastore::File => "datastore directory made",
    };
    eprintln!("{store}, {} nodes on one underlay, after {}", settings.nodes, seconds());
    cluster.nodes_mut().iter_mut().try_for_each(Node::start_agent)?;
    for node in cluster.nodes_mut() {
        let subnets = joined(node.wait_ready()?.networks());
        let addresses = joined(&node.add_container()?.addresses);
        eprintln!("{}: subnet {subnets}, container {addresses}, after {}", node.name(), seconds());
    }
    cluster.wait_converged()?;
    eprintln!("every node knows every other after {}", seconds());
    Ok(cluster)
}
