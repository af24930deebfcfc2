//! What an agent has attached on its node: pinned links, and the programs in them.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context, Result};
use aya::programs::links::{FdLink, PinnedLink};

/// Where the agent pins its links, below its run directory.
const LINKS: &str = "bpf/v1/links";

/// A link in the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// The kernel's number of the link, which no other ever has.
    pub id: u32,
    /// The kernel's number of the program in it.
    pub program: u32,
}

/// The links pinned in `run_dir`, by the names of their pins.
///
/// # Errors
///
/// When they cannot be read.
pub fn links(run_dir: &Path) -> Result<BTreeMap<String, Link>> {
    let directory = run_dir.join(LINKS);
    let entries = fs::read_dir(&directory).with_context(|| format!("list {}", directory.display()))?;
    let mut links = BTreeMap::new();
    for entry in entries {
        let path = entry?.path();
        let link = PinnedLink::from_pin(&path).with_context(|| format!("open {}", path.display()))?;
        let info = FdLink::from(link).info().with_context(|| format!("ask for {}", path.display()))?;
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        links.insert(name, Link { id: info.id(), program: info.program_id() });
    }
    Ok(links)
}
