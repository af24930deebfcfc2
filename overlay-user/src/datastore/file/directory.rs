//! [`Directory`]: the files themselves. Blocking.

use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::fcntl::{Flock, FlockArg};
use tempfile::NamedTempFile;

use crate::datastore::{DatastoreError, Entry, Lifetime, Replaced, Revision, Versioned};
use crate::json::shortened;
use crate::place::could_write_in;

/// How long a writer waits for its turn. Others hold the lock for one write.
const LOCK_WAIT: Duration = Duration::from_secs(5);
const LOCK_POLL: Duration = Duration::from_millis(5);
/// What is read of a file: a little more than any value that is accepted, so that a larger one is seen to be so.
const MAX_READ: u64 = 1 << 20;

/// The config's name among the things a reader has seen. No lease's file can have it.
pub(super) const CONFIG: &str = "/config";

/// The datastore's files.
#[derive(Debug)]
pub(super) struct Directory {
    root: PathBuf,
    ttl: Duration,
}

/// A lease's file.
pub(super) struct Found {
    pub(super) entry: Entry,
    /// When it expires, unless it is a reservation.
    pub(super) expires: Option<SystemTime>,
}

impl Directory {
    pub(super) const fn new(root: PathBuf, ttl: Duration) -> Self {
        Self { root, ttl }
    }

    pub(super) const fn ttl(&self) -> Duration {
        self.ttl
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn subnets(&self) -> PathBuf {
        self.root.join("subnets")
    }

    pub(super) fn prepare(&self) -> io::Result<()> {
        fs::create_dir_all(self.subnets())
    }

    pub(super) fn error(&self, operation: &str, error: &io::Error) -> DatastoreError {
        let (operation, store, reason) = (shortened(operation), self.root.display().to_string(), error.to_string());
        match error.kind() {
            ErrorKind::PermissionDenied
            | ErrorKind::ReadOnlyFilesystem
            | ErrorKind::NotADirectory
            | ErrorKind::InvalidInput => DatastoreError::Refused { operation, store, reason },
            _ => DatastoreError::Unavailable { operation, store, reason },
        }
    }

    /// A number that another directory at the same path would not have.
    pub(super) fn identity(&self) -> io::Result<u64> {
        let metadata = fs::metadata(self.subnets())?;
        let born = metadata.created().map_or(0, nanoseconds);
        Ok(metadata.ino() ^ born.unsigned_abs().rotate_left(20))
    }

    pub(super) fn config(&self) -> io::Result<Option<Versioned>> {
        let read = open(&self.root.join("config"))?.map(|mut file| {
            let revision = revision(&file.metadata()?)?;
            Ok(Versioned { value: contents(&mut file)?, revision })
        });
        read.transpose()
    }

    pub(super) fn put_config(&self, value: &[u8]) -> io::Result<Revision> {
        let _turn = self.lock()?;
        let after = self.config()?.map_or(0, |config| config.revision);
        let (file, revision) = self.prepared(&self.root, value, Lifetime::Ttl, after)?;
        file.persist(self.root.join("config"))?;
        Ok(revision)
    }

    /// All leases that have not expired, and what a reader has then seen.
    pub(super) fn list(&self) -> io::Result<(Vec<Entry>, BTreeMap<String, Revision>)> {
        let mut entries = Vec::new();
        for name in self.names()? {
            entries.extend(self.read(&name)?.map(|found| found.entry));
        }
        entries.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        let mut seen: BTreeMap<_, _> = entries.iter().map(|entry| (entry.key.clone(), entry.revision)).collect();
        seen.extend(self.config()?.map(|config| (CONFIG.to_owned(), config.revision)));
        Ok((entries, seen))
    }

    /// The same of one lease alone.
    pub(super) fn only(&self, name: &str) -> io::Result<(Vec<Entry>, BTreeMap<String, Revision>)> {
        let found = self.read(name)?.map(|found| found.entry);
        let seen = found.iter().map(|entry| (entry.key.clone(), entry.revision)).collect();
        Ok((found.into_iter().collect(), seen))
    }

    /// When each lease expires, by name; reservations are left out.
    pub(super) fn expiries(&self) -> io::Result<BTreeMap<String, SystemTime>> {
        let mut expiries = BTreeMap::new();
        for name in self.names()? {
            expiries.extend(self.read(&name)?.and_then(|found| found.expires).map(|at| (name, at)));
        }
        Ok(expiries)
    }

    /// The names of all files that may be leases.
    pub(super) fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for file in fs::read_dir(self.subnets())? {
            let name = file?.file_name().to_string_lossy().into_owned();
            if !name.starts_with('.') {
                names.push(name);
            }
        }
        Ok(names)
    }

    /// The lease in the file `name`; `None` when there is none or it has expired.
    pub(super) fn read(&self, name: &str) -> io::Result<Option<Found>> {
        Ok(self.look(name)?.filter(|found| !found.expired()))
    }

    fn look(&self, name: &str) -> io::Result<Option<Found>> {
        let Some(mut file) = open(&self.path(name)?)? else { return Ok(None) };
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Ok(None);
        }
        let permanent = metadata.permissions().readonly();
        let expires = (!permanent).then(|| metadata.modified().map(|at| at + self.ttl)).transpose()?;
        let (revision, value) = (revision(&metadata)?, contents(&mut file)?);
        Ok(Some(Found { entry: Entry { key: name.to_owned(), value, revision, permanent }, expires }))
    }

    /// Creates the file `name`; `None` when there is one that has not expired.
    pub(super) fn create(&self, name: &str, value: &[u8], lifetime: Lifetime) -> io::Result<Option<Revision>> {
        let _turn = self.lock()?;
        let path = self.path(name)?;
        let old = self.look(name)?;
        if old.as_ref().is_some_and(Found::expired) {
            fs::remove_file(&path)?;
        }
        let after = old.map_or(0, |old| old.entry.revision);
        let (file, revision) = self.prepared(&self.subnets(), value, lifetime, after)?;
        match file.persist_noclobber(path) {
            Ok(_) => Ok(Some(revision)),
            Err(error) if error.error.kind() == ErrorKind::AlreadyExists => Ok(None),
            Err(error) => Err(error.error),
        }
    }

    pub(super) fn replace(&self, name: &str, at: Revision, value: &[u8], lifetime: Lifetime) -> io::Result<Replaced> {
        let _turn = self.lock()?;
        match self.read(name)?.map(|found| found.entry) {
            Some(entry) if entry.revision == at => {
                let (file, revision) = self.prepared(&self.subnets(), value, lifetime, at)?;
                file.persist(self.path(name)?)?;
                Ok(Replaced::Yes(revision))
            }
            found => Ok(Replaced::Changed(found)),
        }
    }

    /// Refuses a directory that could not be written in. One that is not there yet is made by [`prepare`](Self::prepare).
    pub(super) fn may_write(&self) -> io::Result<()> {
        could_write_in(&self.subnets())
    }

    pub(super) fn delete(&self, name: &str, at: Revision) -> io::Result<bool> {
        let _turn = self.lock()?;
        let is_it = self.read(name)?.is_some_and(|found| found.entry.revision == at);
        if is_it {
            fs::remove_file(self.path(name)?)?;
        }
        Ok(is_it)
    }

    /// Removes the file `name` if it has expired. Readers do not count it in any case.
    pub(super) fn sweep(&self, name: &str) -> io::Result<()> {
        let _turn = self.lock()?;
        if self.look(name)?.is_some_and(|found| found.expired()) {
            fs::remove_file(self.path(name)?)?;
        }
        Ok(())
    }

    fn path(&self, name: &str) -> io::Result<PathBuf> {
        if name.is_empty() || name.starts_with('.') || name.contains(['/', '\0']) {
            return Err(io::Error::new(ErrorKind::InvalidInput, "not a name that a lease can have"));
        }
        if name.contains(char::REPLACEMENT_CHARACTER) {
            // Most likely a name that is no UTF-8. Its file is found again, so that it is reported like any other bad key.
            for file in fs::read_dir(self.subnets())? {
                let file = file?;
                if file.file_name().to_string_lossy() == name {
                    return Ok(file.path());
                }
            }
        }
        Ok(self.subnets().join(name))
    }

    /// Waits for our turn to write. It lasts until the value is dropped, or we die.
    fn lock(&self) -> io::Result<Flock<File>> {
        self.prepare()?;
        let open = || File::options().create(true).truncate(false).write(true).open(self.root.join(".lock"));
        let mut file = open()?;
        let deadline = Instant::now() + LOCK_WAIT;
        loop {
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(lock) => return Ok(lock),
                Err((_, nix::Error::EWOULDBLOCK)) if Instant::now() >= deadline => {
                    return Err(io::Error::new(ErrorKind::TimedOut, "another process keeps .lock locked"));
                }
                Err((back, nix::Error::EWOULDBLOCK | nix::Error::EINTR)) => file = back,
                Err((_, error)) => return Err(error.into()),
            }
            std::thread::sleep(LOCK_POLL);
        }
    }

    /// A complete file with a name that nobody looks at yet, and its revision, which comes after `after`.
    fn prepared(
        &self,
        place: &Path,
        value: &[u8],
        lifetime: Lifetime,
        after: Revision,
    ) -> io::Result<(NamedTempFile, Revision)> {
        let mode = if lifetime == Lifetime::Permanent { 0o444 } else { 0o644 };
        let mut file =
            tempfile::Builder::new().prefix(".new-").permissions(Permissions::from_mode(0o600)).tempfile_in(place)?;
        file.write_all(value)?;
        // The kernel's own time stamps are too coarse to tell two writes apart.
        let now = nanoseconds(SystemTime::now()).max(after + 1);
        file.as_file().set_modified(UNIX_EPOCH + Duration::from_nanos(now.unsigned_abs()))?;
        file.as_file().set_permissions(Permissions::from_mode(mode))?;
        Ok((file, now))
    }
}

impl Found {
    fn expired(&self) -> bool {
        self.expires.is_some_and(|at| at <= SystemTime::now())
    }
}

/// The file, or `None` when there is none.
fn open(path: &Path) -> io::Result<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn contents(file: &mut File) -> io::Result<Vec<u8>> {
    let mut value = Vec::new();
    file.take(MAX_READ).read_to_end(&mut value)?;
    Ok(value)
}

/// A file's version: its modification time in nanoseconds.
fn revision(metadata: &fs::Metadata) -> io::Result<Revision> {
    metadata.modified().map(nanoseconds)
}

fn nanoseconds(time: SystemTime) -> Revision {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| Revision::try_from(since.as_nanos()).unwrap_or(Revision::MAX))
}
