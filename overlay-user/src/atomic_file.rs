//! Files that are replaced as a whole.

use std::ffi::{OsStr, OsString};
use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use crate::place::could_write_in;

/// How the names of temporary files end, behind the process id of their writer.
const TEMPORARY: &str = ".tmp";

/// The mode of the files: all may read.
const MODE: u32 = 0o644;

/// Writes `text` to the file `path`: who reads it sees the old or the new text, and the new one survives a power cut.
///
/// The file gets mode 0644 and a missing directory 0755, whatever the umask is. What a process that was killed before it
/// was done has left beside the file is removed.
///
/// # Errors
/// When the file cannot be written; the old one is then still there.
pub fn replace(path: &Path, text: &str) -> io::Result<()> {
    let directory = directory_of(path);
    DirBuilder::new().recursive(true).mode(0o755).create(directory)?;
    let name = path.file_name().ok_or(io::ErrorKind::IsADirectory)?;
    remove_leftovers(directory, name)?;
    let temporary = directory.join(temporary_name(name, std::process::id()));
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

fn temporary_name(name: &OsStr, pid: u32) -> OsString {
    let mut temporary = name.to_owned();
    temporary.push(format!(".{pid}{TEMPORARY}"));
    temporary
}

/// Removes temporary files of processes that are no more.
fn remove_leftovers(directory: &Path, name: &OsStr) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let found = entry.file_name();
        let pid = found.to_str().and_then(|found| found.strip_suffix(TEMPORARY)?.rsplit_once('.')?.1.parse().ok());
        let Some(pid) = pid.filter(|&pid| found == temporary_name(name, pid)) else { continue };
        if !Path::new("/proc").join(pid.to_string()).exists() {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn write_and_rename(temporary: &Path, path: &Path, directory: &Path, text: &[u8]) -> io::Result<()> {
    // Nobody else may write there for a moment, nor be kept from reading: the umask counts for neither.
    let mut file = File::options().write(true).create(true).truncate(true).mode(MODE).open(temporary)?;
    file.set_permissions(Permissions::from_mode(MODE))?;
    file.write_all(text)?;
    file.sync_all()?;
    fs::rename(temporary, path)?;
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_writer_has_left_is_removed_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let mut ended = std::process::Command::new("true").spawn().unwrap();
        ended.wait().unwrap();
        let stay = ["other.env.1.tmp", "subnet.env.1.tmp", "subnet.env.tmp", "subnet.env.x.tmp"];
        let leftover = format!("subnet.env.{}.tmp", ended.id());
        for name in stay.into_iter().chain([leftover.as_str()]) {
            fs::write(directory.path().join(name), "").unwrap();
        }
        replace(&directory.path().join("subnet.env"), "text").unwrap();
        let entries = fs::read_dir(directory.path()).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        let mut expected = [&stay[..], &["subnet.env"]].concat();
        expected.sort_unstable();
        assert_eq!(names, expected);
    }
}
