//! [`Layout`]: the maps that the programs of this start are loaded over.
//!
//! Those of an earlier agent, if they have the layout that is wanted. Otherwise new ones beside them: the old programs go on
//! forwarding by the old maps while the new ones are filled; then the programs in all links are replaced, and the new maps
//! take the place of the old. A start that ends half way through leaves each link with a program that forwards, by old maps
//! or by new ones, and the next start begins with new maps again.

use std::path::PathBuf;

use anyhow::{Context as _, Result};

use crate::{
    loader,
    maps::{self, Capacities},
    rundir::RunDir,
};

/// The maps of this start.
pub(super) struct Layout {
    run_dir: RunDir,
    /// Whether they are beside others, whose place they are to take.
    beside: bool,
}

impl Layout {
    /// Chooses the maps. The run directory is prepared.
    ///
    /// # Errors
    /// When what is pinned cannot be read, or what an earlier start has begun cannot be removed.
    pub(super) fn choose(run_dir: &RunDir, capacities: Capacities) -> Result<Self> {
        let wanted = maps::definitions(loader::object(), capacities).context("read the eBPF object")?;
        let beside = run_dir.has_older_layout() || !maps::are_as_wanted(&run_dir.maps(), &wanted)?;
        run_dir.clear_new_maps(beside)?;
        Ok(Self { run_dir: run_dir.clone(), beside })
    }

    /// The directory where the maps are or will be pinned.
    pub(super) fn maps(&self) -> PathBuf {
        if self.beside { self.run_dir.new_maps() } else { self.run_dir.maps() }
    }

    /// Whether the programs in the links have other maps than those of this start.
    pub(super) const fn is_beside(&self) -> bool {
        self.beside
    }

    /// Lets the new maps, which are there by now, know whose address is whose.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(super) fn carry_owners(&self) -> Result<()> {
        if self.beside { Ok(maps::carry_owners(&self.run_dir.maps(), &self.maps())?) } else { Ok(()) }
    }

    /// Copies what was counted so far, right before the programs are replaced.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(super) fn carry_counts(&self) -> Result<()> {
        if self.beside { Ok(maps::carry_counts(&self.run_dir.maps(), &self.maps())?) } else { Ok(()) }
    }

    /// Gives the new maps the place of the old, which no program uses any more.
    ///
    /// # Errors
    /// When the directory of pins cannot be written.
    pub(super) fn settle(&mut self) -> Result<()> {
        if self.beside {
            self.run_dir.settle_new_maps()?;
            self.beside = false;
            tracing::info!("maps of another layout are in place; the old ones are gone");
        }
        Ok(())
    }
}
