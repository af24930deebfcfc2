//! Isolation: what a test or a cluster does on this machine is gone when it ends, however it ends.
//!
//! Nothing here relies on clean-up code, because a process that is killed runs none. What exists is held by something
//! that the kernel takes away with the last process that uses it:
//!
//! - Devices, addresses, routes and rules live in network namespaces without a name ([`crate::netns`]).
//! - Files, sockets, bpffs mounts and thereby pinned maps live under a `tmpfs` on `/run` in a private mount namespace.
//! - Child processes carry `PR_SET_PDEATHSIG` ([`crate::process`]).
//!
//! [`isolated`] gives this to one test. Tests are threads of one process, so it starts a thread and moves that thread
//! alone into a mount namespace; what the thread starts (threads and processes) inherits it. A PID namespace cannot be
//! had for a thread: a grandchild whose parent dies first would survive a killed test. The agent and etcd have no
//! children, so nothing here does; whoever starts a daemon that has some must start it as the first process of its
//! own PID namespace (`unshare --pid --kill-child`).

use std::{
    fs, panic,
    path::{Path, PathBuf},
    thread,
};

use anyhow::{Context, Result};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};

/// Where files may be left: exists only on the `tmpfs` that [`private_mounts`] puts on `/run`.
const SCRATCH: &str = "/run/overlay-tests";

/// Runs `test` on a thread of its own, in a mount namespace of its own with an empty `/run`.
///
/// A panic of `test` is a panic of the caller. Processes that `test` started end with it.
pub fn isolated<T: Send>(test: impl FnOnce() -> T + Send) -> T {
    let outcome = thread::scope(|scope| {
        scope
            .spawn(|| {
                private_mounts().expect("isolate the test (needs root)");
                test()
            })
            .join()
    });
    outcome.unwrap_or_else(|panic| panic::resume_unwind(panic))
}

/// Moves the calling thread into a mount namespace of its own, with an empty `tmpfs` on `/run`.
///
/// Mounts made from here on are seen by nobody else and vanish with the last process in the namespace.
///
/// # Errors
///
/// When the kernel refuses, as it does without root.
pub fn private_mounts() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS).context("make a mount namespace")?;
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).context("make the mounts private")?;
    mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), Some("mode=0755"))
        .context("mount a tmpfs on /run")?;
    fs::create_dir(SCRATCH).with_context(|| format!("create {SCRATCH}"))
}

/// The directory for files that must not outlive the process: on the private `tmpfs` when there is one.
#[must_use]
pub fn scratch() -> PathBuf {
    let scratch = Path::new(SCRATCH);
    if scratch.is_dir() { scratch.to_path_buf() } else { std::env::temp_dir() }
}
