//! `cargo xtask bench`: builds everything for release and hands over to the program `bench` of `overlay-tests`.

use std::{ffi::OsString, os::unix::process::CommandExt as _};

use anyhow::anyhow;

use crate::{
    command::{self, cargo},
    setup,
};

/// What `bench` is told; `cargo xtask bench --help` shows what it understands.
#[derive(clap::Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Options {
    /// Passed on
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

/// Becomes `bench`, so that a signal to this process reaches it.
///
/// # Errors
///
/// Setting up or building failed, or there is no `bench` to become.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    setup::run()?;
    println!("bench: building for release; that takes minutes the first time");
    command::run(cargo().args([
        "build",
        "--quiet",
        "--release",
        "--package",
        "overlay-user",
        "--package",
        "overlay-tests",
        "--bins",
    ]))?;
    let mut bench = cargo();
    bench.args(["run", "--quiet", "--release", "--package", "overlay-tests", "--bin", "bench", "--"]);
    Err(anyhow!(bench.args(&options.arguments).exec()).context("start the bench"))
}
