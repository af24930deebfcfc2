//! The run directory, and the agent that lives in it.

use super::Finding;
use crate::{place::could_write_in, rundir::RunDir};

const CHECK: &str = "run-dir";

/// Whether the agent could use the run directory.
pub(super) fn check(run_dir: &RunDir) -> Finding {
    let path = run_dir.path().display();
    if let Err(error) = could_write_in(run_dir.path()) {
        return Finding::red(CHECK, format!("{path} cannot be written: {error}"), "choose another with --run-dir");
    }
    if let Err(error) = run_dir.refuse_newer_layout() {
        return Finding::refused(CHECK, error, "a newer version of this program has run here");
    }
    let bpffs = if run_dir.is_on_bpffs() { "on a bpffs" } else { "the agent mounts a bpffs in it" };
    let data_path = if run_dir.has_data_path() { "; a data path is there, and is taken over" } else { "" };
    Finding::green(CHECK, format!("{path}: {bpffs}{data_path}"))
}

/// The agent that runs with this run directory, if one does, as its process id.
pub(super) fn agent(run_dir: &RunDir) -> (Finding, Option<String>) {
    const CHECK: &str = "agent";
    match run_dir.holder() {
        Ok(None) => (Finding::green(CHECK, "none runs with this run directory"), None),
        Ok(Some(pid)) => {
            let found =
                format!("one runs with this run directory (pid {pid}): the rest is what it would do if started anew");
            (Finding::green(CHECK, found), Some(pid))
        }
        Err(error) => (Finding::yellow(CHECK, error.to_string(), "run the check as root"), None),
    }
}
