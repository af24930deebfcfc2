//! Files that are replaced as a whole.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;

use crate::place::could_write_in;

/// Writes `text` to the file `path`: who reads it sees the old or the new text, and the new one survives a power cut.
///
/// The file gets mode 0644 and a missing directory 0755, whatever the umask is.
///
/// # Errors
/// When the file cannot be written; the old one is then still there.
pub fn replace(path: &Path, text: &str) -> io::Result<()> {
    let directory = directory_of(path);
    DirBuilder::new().recursive(true).mode(0o755).create(directory)?;
    let mut name = path.file_name().ok_or(io::ErrorKind::IsADirectory)?.to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = directory.join(name);
    write_and_rename(&temporary, path, directory, text.as_bytes()).inspect_err(|_| {
        // The first error is the one to report; the temporary file may not even exist.
        fs::remove_file(&temporary).ok();
    })
}

/// Whether [`replace`] could write the file `path`, without writing.
///
/// # Errors
/// Why not.
pub fn could_replace(path: &Path) -> io::Result<()> {
    match path.file_name() {
        Some(_) if !path.is_dir() => could_write_in(directory_of(path)),
        _ => Err(io::ErrorKind::IsADirectory.into()),
    }
}

fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn write_and_rename(temporary: &Path, path: &Path, directory: &Path, text: &[u8]) -> io::Result<()> {
    let mut file = File::create(temporary)?;
    file.set_permissions(Permissions::from_mode(0o644))?;
    file.write_all(text)?;
    file.sync_all()?;
    fs::rename(temporary, path)?;
    File::open(directory)?.sync_all()
}
