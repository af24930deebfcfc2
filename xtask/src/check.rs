//! `cargo xtask check`: what can be found without running anything. CI runs it first.

use std::{env, process::Command};

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

/// A command of cargo on the eBPF programs, and on the workspace's crates in them, as they are compiled for BPF.
fn ebpf(toolchain: &Toolchain, subcommand: &str) -> Command {
    let mut cargo = Command::new("rustup");
    cargo.args(["run", &toolchain.name, "cargo", subcommand, "--package", "overlay-ebpf", "--release", "--locked"]);
    cargo.args(["--target", "bpfel-unknown-none", "-Z", "build-std=core", "--target-dir", "target/ebpf"]);
    cargo.current_dir(command::workspace());
    // As in the build script: `-Z` with a stable rustc, and which registers the context of a probe has.
    cargo.env("RUSTC_BOOTSTRAP", "1");
    cargo.env("CARGO_ENCODED_RUSTFLAGS", format!("--cfg=bpf_target_arch=\"{}\"", env::consts::ARCH));
    cargo
}
