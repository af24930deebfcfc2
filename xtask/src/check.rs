//! `cargo xtask check`: what can be found without running anything. CI runs it first.

use std::{env, process::Command};

use anyhow::anyhow;

use crate::{
    command::{self, cargo},
    setup,
    toolchain::{self, Toolchain},
};

/// What every step leaves out: the crate that compiles for a BPF target only.
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
    step("clippy for the eBPF programs", &mut ebpf_clippy(&toolchain))?;
    step("documentation", cargo().arg("doc").args(HOST).arg("--no-deps").env("RUSTDOCFLAGS", "-D warnings"))?;
    println!("check: ok");
    Ok(())
}

fn step(name: &str, command: &mut Command) -> anyhow::Result<()> {
    command::step(name, || command::run(command))
}

/// Clippy on the programs and on the crates they share with the host, as they are compiled for BPF.
fn ebpf_clippy(toolchain: &Toolchain) -> Command {
    let mut clippy = Command::new("rustup");
    clippy.args(["run", &toolchain.name, "cargo", "clippy", "--package", "overlay-ebpf", "--locked", "--release"]);
    clippy.args(["--target", "bpfel-unknown-none", "-Z", "build-std=core", "--target-dir", "target/ebpf"]);
    clippy.args(["--", "-D", "warnings"]).current_dir(command::workspace());
    // As in the build script: `-Z` with a stable rustc, and which registers the context of a probe has.
    clippy.env("RUSTC_BOOTSTRAP", "1");
    clippy.env("CARGO_ENCODED_RUSTFLAGS", format!("--cfg=bpf_target_arch=\"{}\"", env::consts::ARCH));
    clippy
}
