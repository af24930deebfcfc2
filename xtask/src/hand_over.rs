//! Hands a task over to a program of `overlay-tests`, which may depend on the agent; this package may not.

use std::{ffi::OsString, os::unix::process::CommandExt as _};

use anyhow::{Context as _, anyhow};

use crate::command::{self, cargo};

/// What the program is told; with `--help` it says what it understands.
#[derive(clap::Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Options {
    /// Passed on
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) arguments: Vec<OsString>,
}

/// Builds agent and tests as `profile` says (arguments of cargo) and becomes `program`, so that a signal to this process
/// reaches it.
///
/// # Errors
///
/// Building failed, or there is no program to become.
pub(crate) fn hand_over(program: &str, profile: &[&str], options: &Options) -> anyhow::Result<()> {
    // Not quiet: it can take minutes, and cargo says what it does.
    let packages = ["--package", "overlay-user", "--package", "overlay-tests", "--bins"];
    command::run(cargo().arg("build").args(profile).args(packages))?;
    let mut run = cargo();
    run.args(["run", "--quiet"]).args(profile).args(["--package", "overlay-tests", "--bin", program, "--"]);
    Err(anyhow!(run.args(&options.arguments).exec())).with_context(|| format!("start {program}"))
}
