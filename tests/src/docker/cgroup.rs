//! [`Cgroup`]: the control groups of one dockerd's containers. They are the one thing of Docker's that lies in no
//! namespace, and that nobody takes away when dockerd is killed.

use std::{
    fs,
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use anyhow::{Context, Result};

use crate::{cgroup::remove_tree, process::wait_until};

/// What the names begin with; then follow the id of the process that it belongs to, and a number.
const PREFIX: &str = "overlay-docker-";

/// How long the kernel may take to end what was killed.
const LIMIT: Duration = Duration::from_secs(10);

/// The parent of the control groups of one dockerd's containers, in every hierarchy. Removed when dropped.
#[derive(Debug)]
pub(super) struct Cgroup {
    name: String,
}

impl Cgroup {
    /// A name that no other dockerd has. Removes what processes have left that were killed.
    pub(super) fn new() -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        for name in left_behind()? {
            // Another test may be at the same, and what is still in use is the next one's to remove.
            remove(&name).ok();
        }
        Ok(Self { name: format!("{PREFIX}{}-{}", process::id(), NUMBER.fetch_add(1, Ordering::Relaxed)) })
    }

    /// As dockerd's `--cgroup-parent` takes it.
    pub(super) fn parent(&self) -> String {
        format!("/{}", self.name)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let gone = wait_until("the control groups to be empty", LIMIT, || remove(&self.name).is_ok());
        if let Err(error) = gone.and_then(|()| remove(&self.name)) {
            eprintln!("{error:#}");
        }
    }
}

/// The names that belong to a process that is no more.
fn left_behind() -> Result<Vec<String>> {
    let mut names = Vec::new();
    for root in roots()? {
        for entry in fs::read_dir(&root).with_context(|| format!("list {}", root.display()))? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            let owner = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
            if owner.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
                names.push(name);
            }
        }
    }
    Ok(names)
}

fn remove(name: &str) -> Result<()> {
    for root in roots()? {
        let path = root.join(name);
        if path.exists() {
            remove_tree(&path).with_context(|| format!("remove the control group {}", path.display()))?;
        }
    }
    Ok(())
}

/// Where the hierarchies of control groups are mounted.
fn roots() -> Result<Vec<PathBuf>> {
    let mounts = fs::read_to_string("/proc/thread-self/mounts").context("list the mounts")?;
    let fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    Ok(fields.filter(|fields| ["cgroup", "cgroup2"].contains(&fields[2])).map(|fields| fields[1].into()).collect())
}
