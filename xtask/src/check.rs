//! `cargo xtask check`: what can be found without running anything. CI runs it first.

use std::process::Command;

use anyhow::anyhow;

use crate::{
    command::{self, cargo},
    setup,
    toolchain::{self, Toolchain},
};

/// The crates that compile for the host: all but one.
const HOST: [&str; 4] = ["--workspace", "--exclude", "overlay-ebpf", "--locked"];

/// Checks formatting, lints and documentation.
///
/// # Errors
///
/// The first command that failed.
pub(crate) fn run() -> anyhow::Result<()> {
    setup::run()?;
    let toolchain = toolchain::find().map_err(|missing| anyhow!("{missing}"))?;
    step("format", cargo().args(["fmt", "--all", "--check"]))?;
    step("clippy", cargo().arg("clippy").args(HOST).args(["--all-targets", "--", "-D", "warnings"]))?;
    step("clippy, eBPF programs", ebpf(&toolchain, "clippy").args(["--", "-D", "warnings"]))?;
    step("documentation", cargo().arg("doc").args(HOST).arg("--no-deps").env("RUSTDOCFLAGS", "-D warnings"))?;
    step("documentation, eBPF programs", ebpf(&toolchain, "doc").arg("--no-deps").env("RUSTDOCFLAGS", "-D warnings"))?;
    println!("check: ok");
    Ok(())
}

fn step(name: &str, command: &mut Command) -> anyhow::Result<()> {
    command::step(name, || command::run(command))
}

/// A command of cargo on the eBPF programs, apart from where the build script compiles them.
fn ebpf(toolchain: &Toolchain, subcommand: &str) -> Command {
    let mut cargo = toolchain.cargo(subcommand);
    cargo.args(["--locked", "--target-dir", "target/ebpf"]).current_dir(command::workspace());
    cargo
}
