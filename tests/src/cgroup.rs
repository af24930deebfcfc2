//! Control groups that tests make: they lie in no namespace, so somebody has to take them away.

use std::{fs, io, path::Path};

/// Removes a control group with those inside. The files in it go with it.
///
/// # Errors
///
/// When it is not there, or processes are in it.
pub fn remove_tree(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    fs::remove_dir(path)
}
