//! [`RunDirError`]: what can go wrong with the run directory.

use std::{io, path::PathBuf};

use nix::errno::Errno;

use super::layout;

/// What can go wrong with the run directory.
#[derive(Debug, thiserror::Error)]
pub enum RunDirError {
    /// A directory or a file could not be made.
    #[error("create {path}: {source}; choose another with --run-dir")]
    Create {
        /// The directory or file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Something of ours could not be removed.
    #[error("remove {path}: {source}")]
    Remove {
        /// What.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The bpffs could not be mounted or unmounted.
    #[error("{action} bpffs at {path}: {source}")]
    Mount {
        /// `mount` or `unmount`.
        action: &'static str,
        /// The mount point.
        path: PathBuf,
        /// Why.
        source: Errno,
    },
    /// Another agent holds the run directory.
    #[error("another agent (pid {pid}) runs in {path}; stop it, or give this one its own --run-dir")]
    Held {
        /// The run directory.
        path: PathBuf,
        /// The other agent's process id.
        pid: String,
    },
    /// Somebody traces what happens to packets.
    #[error(
        "a trace (pid {pid}) has the programs of {path} in its hands; wait for its end, or end it with `kill {pid}`"
    )]
    Traced {
        /// The run directory.
        path: PathBuf,
        /// The process id of the trace.
        pid: String,
    },
    /// The overlay device may be another overlay's.
    #[error(
        "{device} exists, and {path} does not say that an agent of ours made it: use the --run-dir of the agent that did, or \
         give this overlay a VNI of its own; a leftover goes with `ip link del {device}`"
    )]
    UnknownDevice {
        /// The device.
        device: String,
        /// Our run directory.
        path: PathBuf,
    },
    /// The lock file could not be used.
    #[error("lock {path}: {source}")]
    Lock {
        /// The lock file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another version of this program has made the maps.
    #[error(
        "{path} has maps of layout {found}, this program knows layout {known}: use the version that made them, or take the \
         data path away with `overlay teardown`", known = layout::VERSION
    )]
    Layout {
        /// Where they are.
        path: PathBuf,
        /// The version of their layout.
        found: u32,
    },
    /// Somebody else's: usually root's.
    #[error("look into {path}: {source}; run it as root")]
    Unreadable {
        /// The directory of pins.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Nothing is pinned here.
    #[error("no data path in {path}: no agent has run with this --run-dir")]
    Empty {
        /// The run directory.
        path: PathBuf,
    },
}
