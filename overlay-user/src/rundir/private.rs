//! Files and directories for root alone, whatever the umask is.

use std::{
    fs::{self, DirBuilder, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::Path,
};

use nix::sys::stat::{Mode, umask};

/// The mode of files.
pub(super) const MODE: u32 = 0o600;

/// Makes a directory, and those above it that are missing.
pub(crate) fn create_dir(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Writes a note for whoever comes after this process, unless it is there: written again, it would be empty for a moment,
/// and forgotten if this process is killed then.
pub(crate) fn write_note(path: &Path, text: &str) -> io::Result<()> {
    if read_note(path).as_deref() == Some(text) {
        return Ok(());
    }
    OpenOptions::new().write(true).create(true).truncate(true).mode(MODE).open(path)?.write_all(text.as_bytes())
}

/// A note; none if its writer was killed before it wrote, and so before it did what the note is about.
pub(super) fn read_note(path: &Path) -> Option<String> {
    fs::read_to_string(path).ok().filter(|note| !note.is_empty())
}

/// Does something that makes a file and has no argument for its mode, such as binding a socket. The umask is the whole
/// process's: other threads' files would be as private.
pub(crate) fn with_private_umask<T>(make: impl FnOnce() -> T) -> T {
    let before = umask(Mode::from_bits_truncate(!MODE & 0o777));
    let made = make();
    umask(before);
    made
}
