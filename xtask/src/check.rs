//! `cargo xtask check`: what can be found without running a test. CI runs it first.

use std::process::Command;

use anyhow::anyhow;

use crate::{
    command::{self, cargo},
    setup,
    toolchain::{self, Toolchain},
};

/// The crates that compile for the host: all but one.
const HOST: [&str; 4] = ["--workspace", "--exclude", "overlay-ebpf", "--locked"];

/// Checks formatting, lints, documentation and, as root, that the kernel takes the programs.
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
    verifier()?;
    println!("check: ok");
    Ok(())
}

/// Prints what the kernel's verifier says of each program. The table in `bpf-maps.md` is compared with it by a test.
fn verifier() -> anyhow::Result<()> {
    if !command::is_root() {
        println!("== verifier: NOT RUN for want of root: nobody but root may load the programs");
        return Ok(());
    }
    step("verifier", cargo().args(["run", "--quiet", "--locked", "--package", "overlay-tests", "--bin", "verifier"]))
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
