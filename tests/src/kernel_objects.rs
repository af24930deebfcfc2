//! [`KernelObjects`]: what of a node's data path is in the kernel, pinned or not.

use std::{collections::BTreeSet, fs, path::Path};

use anyhow::{Context, Result};
use aya::{
    maps::MapInfo,
    programs::{ProgramInfo, loaded_links, loaded_programs},
};

/// Where the agent pins its maps, below its run directory.
const MAPS: &str = "bpf/v1/maps";

/// The kernel's numbers of what belongs to one node. Everything in the kernel is asked whose it is, so that what nobody pins,
/// and somebody still holds, is found as well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelObjects {
    /// The programs that use the node's maps.
    pub programs: BTreeSet<u32>,
    /// The links with those programs.
    pub links: BTreeSet<u32>,
    /// The maps that those programs use, and those that are pinned.
    pub maps: BTreeSet<u32>,
}

impl KernelObjects {
    /// Looks for those of the agent with the run directory `run_dir`.
    ///
    /// # Errors
    ///
    /// When the pinned maps cannot be read.
    pub fn of(run_dir: &Path) -> Result<Self> {
        let pinned = pinned_maps(run_dir)?;
        let (mut programs, mut maps) = (BTreeSet::new(), pinned.clone());
        for (program, used) in programs_over(&pinned) {
            programs.insert(program.id());
            maps.extend(used);
        }
        let links = loaded_links().flatten().filter(|link| programs.contains(&link.program_id())).map(|link| link.id());
        Ok(Self { links: links.collect(), programs, maps })
    }
}

/// The programs that use one of `maps`, and all the maps that each uses.
pub fn programs_over(maps: &BTreeSet<u32>) -> impl Iterator<Item = (ProgramInfo, Vec<u32>)> {
    // What is gone between listing and asking is nobody's any more.
    let programs = loaded_programs().flatten().map(|program| {
        let used = program.map_ids().ok().flatten().unwrap_or_default();
        (program, used)
    });
    programs.filter(|(_, used)| used.iter().any(|map| maps.contains(map)))
}

/// The maps that are pinned in this run directory, which no other node's programs use.
///
/// # Errors
///
/// When they cannot be read.
pub fn pinned_maps(run_dir: &Path) -> Result<BTreeSet<u32>> {
    let directory = run_dir.join(MAPS);
    let mut ids = BTreeSet::new();
    for entry in fs::read_dir(&directory).with_context(|| format!("list {}", directory.display()))? {
        let path = entry?.path();
        ids.insert(MapInfo::from_pin(&path).with_context(|| format!("open the map {}", path.display()))?.id());
    }
    Ok(ids)
}
