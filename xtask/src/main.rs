//! Developer commands. `cargo xtask help` lists them.
//!
//! This package depends on no other of the workspace: `setup` must compile on a machine that cannot yet
//! compile the eBPF programs.

mod bench;
mod check;
mod command;
mod dist;
mod hand_over;
mod kernel;
mod run;
mod setup;
mod test;
mod toolchain;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Developer commands of the overlay.
#[derive(Parser)]
#[command(bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Install what building and testing needs and this machine lacks (Debian, as root; elsewhere: say what is missing)
    Setup,
    /// Run a cluster on this machine: every container talks to every other, then everything is gone again
    Run(hand_over::Options),
    /// Run every test; those with network namespaces and real traffic need root
    Test(test::Options),
    /// Measure the data path against other ways to do the same, and the agent with many leases (root)
    Bench(hand_over::Options),
    /// Build the packages to hand out, with one static program in each: target/dist
    Dist(dist::Options),
    /// Check formatting, lints and documentation, of the host's crates and of the eBPF programs, and what the kernel's
    /// verifier says of these (as root)
    Check,
}

fn main() -> ExitCode {
    let done = match Cli::parse().task {
        Task::Setup => setup::run(),
        Task::Run(options) => run::run(&options),
        Task::Test(options) => test::run(&options),
        Task::Bench(options) => bench::run(&options),
        Task::Dist(options) => dist::run(&options),
        Task::Check => check::run(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cargo xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
