//! Whether this process may do what the agent does.

use super::Finding;
use crate::{privileges, rundir::RunDir};

pub(super) fn check(run_dir: &RunDir) -> Finding {
    match privileges::require_for_agent(run_dir) {
        Ok(()) => Finding::green("privileges", "this process has every capability that the agent needs"),
        Err(error) => {
            Finding::refused("privileges", error, "the unit file of the package gives the agent what it needs")
        }
    }
}
