//! Whether this user may do what the agent does.

use super::Finding;
use crate::agent;

pub(super) fn check() -> Finding {
    match agent::require_root() {
        Ok(()) => Finding::green("privileges", "this user may load eBPF programs and set up devices"),
        Err(error) => Finding::refused("privileges", error, "run it as root, here and in the unit file"),
    }
}
