//! `cargo xtask run`: builds everything and hands over to the program `cluster` of `overlay-tests`.

use std::{ffi::OsString, os::unix::process::CommandExt as _};

use anyhow::anyhow;

use crate::{
    command::{self, cargo},
    setup,
};

/// What `cluster` is told; `cargo xtask run --help` shows what it understands.
#[derive(clap::Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Options {
    /// Passed on
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

/// Becomes `cluster`, so that a signal to this process reaches it.
///
/// # Errors
///
/// Setting up or building failed, or there is no `cluster` to become.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    setup::run()?;
    command::run(cargo().args([
        "build",
        "--quiet",
        "--package",
        "overlay-user",
        "--package",
        "overlay-tests",
        "--bins",
    ]))?;
    let mut cluster = cargo();
    cluster.args(["run", "--quiet", "--package", "overlay-tests", "--bin", "cluster", "--"]).args(&options.arguments);
    Err(anyhow!(cluster.exec()).context("start the cluster"))
}
