//! Whether files and directories could be made somewhere, without making any.

use std::{io, path::Path};

use nix::unistd::{AccessFlags, access};

/// Refuses a directory that is not there and could not be made, or that could not be written in.
pub(crate) fn could_write_in(directory: &Path) -> io::Result<()> {
    let absolute = std::path::absolute(directory)?;
    // The first that is there is where the others would be made.
    let there = absolute.ancestors().find(|ancestor| ancestor.symlink_metadata().is_ok()).unwrap_or(Path::new("/"));
    if !there.is_dir() {
        return Err(io::ErrorKind::NotADirectory.into());
    }
    Ok(access(there, AccessFlags::W_OK | AccessFlags::X_OK)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_be_made_is_told_from_what_could_not() {
        let directory = tempfile::tempdir().unwrap();
        assert!(could_write_in(directory.path()).is_ok());
        assert!(could_write_in(&directory.path().join("a/b")).is_ok());
        assert!(!directory.path().join("a").exists());
        std::fs::write(directory.path().join("file"), "").unwrap();
        for below in ["file", "file/b"] {
            let error = could_write_in(&directory.path().join(below)).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::NotADirectory);
        }
    }
}
