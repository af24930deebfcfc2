//! [`RunDirLock`]: the right to change what is in a run directory.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, fcntl},
    libc,
};

use super::{RunDirError, private};

/// A right to change what is in the run directory; ends with the process or when dropped.
///
/// A record lock (fcntl), which is the process's own: a child that an agent is just starting would hold another kind (flock)
/// a moment longer than an agent lives that is killed meanwhile, and the next agent would be refused.
#[derive(Debug)]
pub struct RunDirLock {
    _file: File,
}

impl RunDirLock {
    /// Takes the lock `file`; `held` is the error when the process with an id has it.
    pub(super) fn take(file: &Path, held: impl FnOnce(String) -> RunDirError) -> Result<Self, RunDirError> {
        let failed = |source: io::Error| RunDirError::Lock { path: file.to_owned(), source };
        let mut options = OpenOptions::new();
        options.write(true).read(true).create(true).truncate(false).mode(private::MODE);
        let mut lock = options.open(file).map_err(failed)?;
        match fcntl(&lock, FcntlArg::F_SETLK(&whole_file(libc::F_WRLCK))) {
            Ok(_) => {}
            Err(Errno::EACCES | Errno::EAGAIN) => {
                return Err(held(holder_of(&lock).map_err(|errno| failed(errno.into()))?.unwrap_or_default()));
            }
            Err(errno) => return Err(failed(errno.into())),
        }
        lock.set_len(0).map_err(failed)?;
        writeln!(lock, "{}", std::process::id()).map_err(failed)?;
        Ok(Self { _file: lock })
    }
}

/// The process id of whoever holds the lock `file`, if somebody does. Changes nothing.
pub(super) fn holder(file: &Path) -> io::Result<Option<String>> {
    match File::open(file) {
        Ok(file) => Ok(holder_of(&file)?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn holder_of(file: &File) -> Result<Option<String>, Errno> {
    let mut lock = whole_file(libc::F_WRLCK);
    fcntl(file, FcntlArg::F_GETLK(&mut lock))?;
    Ok((libc::c_int::from(lock.l_type) != libc::F_UNLCK).then(|| lock.l_pid.to_string()))
}

fn whole_file(kind: libc::c_int) -> libc::flock {
    libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}
