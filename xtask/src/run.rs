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
    if wants_no_etcd(&options.arguments) {
        setup::run_without(&["etcd-server"])?;
    } else {
        setup::run()?;
    }
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

/// Whether `cluster` is told to keep the leases in a directory.
fn wants_no_etcd(arguments: &[OsString]) -> bool {
    let apart = arguments.windows(2).any(|pair| pair == ["--datastore", "file"]);
    apart || arguments.iter().any(|argument| argument == "--datastore=file")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_needs_no_etcd() {
        let wants_none = |line: &str| wants_no_etcd(&line.split(' ').map(OsString::from).collect::<Vec<_>>());
        assert!(wants_none("--nodes 3 --datastore file") && wants_none("--datastore=file"));
        assert!(!wants_none("--datastore etcd") && !wants_none("--nodes 3"));
    }
}
