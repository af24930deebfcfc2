//! The versions of the layout of pins, below `RUNDIR/bpf`: those that are there, and the step from one to the next.

use std::{fs, path::Path};

use nix::{
    errno::Errno,
    fcntl::{AT_FDCWD, RenameFlags, renameat2},
};

use super::{RunDir, RunDirError, create_dir, remove};

/// Version of the layout: of what the bytes in maps mean, and of where pins are. Maps whose sizes or capacities change
/// need no new version: the kernel tells those of pinned ones.
pub(super) const VERSION: u32 = 1;

impl RunDir {
    /// Refuses what a newer version of this program has left: its maps would be misread.
    ///
    /// # Errors
    /// [`RunDirError::Layout`].
    pub fn refuse_newer_layout(&self) -> Result<(), RunDirError> {
        match self.versions().last() {
            Some(&found) if found > VERSION => Err(self.other_layout(found)),
            _ => Ok(()),
        }
    }

    /// Whether an older version of this program has left maps.
    #[must_use]
    pub fn has_older_layout(&self) -> bool {
        self.versions().first().is_some_and(|&found| found < VERSION)
    }

    /// Takes over the links of the newest older version, which are attached and go on as they are.
    pub(super) fn adopt_older_links(&self) -> Result<(), RunDirError> {
        let older = self.versions().into_iter().rfind(|&found| found < VERSION);
        let Some(links) = older.map(|older| self.version_dir(older).join("links")).filter(|links| links.is_dir())
        else {
            return Ok(());
        };
        create_dir(&self.version_dir(VERSION))?;
        fs::rename(&links, self.links()).map_err(|source| RunDirError::Create { path: self.links(), source })
    }

    /// Removes what a start has left that did not get to its end, and makes the place for new maps if they are `wanted`.
    ///
    /// # Errors
    /// When a directory cannot be written.
    pub fn clear_new_maps(&self, wanted: bool) -> Result<(), RunDirError> {
        remove_tree(&self.new_maps())?;
        if wanted { create_dir(&self.new_maps()) } else { Ok(()) }
    }

    /// Puts the new maps into the place of the old in one step, and removes those and all older versions.
    ///
    /// # Errors
    /// When a directory cannot be written.
    pub fn settle_new_maps(&self) -> Result<(), RunDirError> {
        let (new, maps) = (self.new_maps(), self.maps());
        renameat2(AT_FDCWD, &new, AT_FDCWD, &maps, RenameFlags::RENAME_EXCHANGE)
            .map_err(|errno: Errno| RunDirError::Create { path: maps, source: errno.into() })?;
        remove_tree(&new)?;
        self.versions()
            .into_iter()
            .filter(|&found| found < VERSION)
            .try_for_each(|older| remove_tree(&self.version_dir(older)))
    }

    /// Removes all versions, newer ones as well: pins are pins. The notes stay, so that whoever is killed before everything
    /// is taken away can be followed by another.
    ///
    /// # Errors
    /// When the kernel refuses. What is missing already is no error.
    pub fn remove_layouts(&self) -> Result<(), RunDirError> {
        self.versions().into_iter().try_for_each(|version| remove_tree(&self.version_dir(version)))
    }

    /// The error for a layout that is not ours.
    pub(super) fn other_layout(&self, found: u32) -> RunDirError {
        RunDirError::Layout { path: self.version_dir(found), found }
    }

    /// All versions that are there, the oldest first.
    pub(super) fn versions(&self) -> Vec<u32> {
        let entries = fs::read_dir(self.bpf()).into_iter().flatten().flatten();
        let version = |name: &str| name.strip_prefix('v')?.parse().ok();
        let mut versions: Vec<u32> = entries.filter_map(|entry| version(entry.file_name().to_str()?)).collect();
        versions.sort_unstable();
        versions
    }
}

fn remove_tree(path: &Path) -> Result<(), RunDirError> {
    remove(path.to_owned(), |path| fs::remove_dir_all(path))
}
