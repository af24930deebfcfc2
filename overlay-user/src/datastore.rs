//! [`Datastore`]: where the cluster keeps its network config and leases, and the two kinds of it.
//!
//! A datastore moves bytes. What they mean is `network`'s and `lease`'s business, who may overwrite them `holder`'s,
//! and what to do about a gap `watch`'s. Names are relative: a lease's is the text of its
//! [`SubnetKey`](crate::lease::SubnetKey), whatever prefix or directory the datastore puts in front.

mod etcd;
mod file;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use futures::stream::BoxStream;

pub use self::etcd::EtcdOptions;

/// How long a lease lives that nobody renews: flannel's 24 hours.
pub const LEASE_TTL: Duration = Duration::from_secs(24 * 60 * 60);

/// The number that a datastore gives to one version of a key. Only equality means anything across keys and kinds.
pub type Revision = i64;

/// Which datastore to open.
#[derive(Debug, Clone)]
pub enum DatastoreConfig {
    /// An etcd cluster with flannel's keys.
    Etcd(EtcdOptions),
    /// A directory on this machine: `config` and `subnets/`.
    File(FileOptions),
}

impl fmt::Display for DatastoreConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Etcd(options) => write!(f, "etcd at {}, {}", options.endpoints.join(", "), options.prefix),
            Self::File(options) => write!(f, "files in {}", options.directory.display()),
        }
    }
}

/// A datastore in a directory.
#[derive(Debug, Clone)]
pub struct FileOptions {
    /// The directory; created when it is not there.
    pub directory: PathBuf,
    /// How long after its modification time a lease expires. The same for everybody who uses the directory.
    pub ttl: Duration,
}

impl FileOptions {
    /// A datastore in `directory`, with flannel's lease time.
    #[must_use]
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into(), ttl: LEASE_TTL }
    }
}

/// Opens a datastore. Nothing is connected yet: an etcd that is away makes the first call fail, not this one.
///
/// # Errors
/// [`DatastoreError::Refused`] when options contradict each other or a file that they name cannot be read.
pub fn open(config: &DatastoreConfig) -> Result<Arc<dyn Datastore>, DatastoreError> {
    match config {
        DatastoreConfig::Etcd(options) => Ok(Arc::new(etcd::Etcd::open(options)?)),
        DatastoreConfig::File(options) => Ok(Arc::new(file::FileStore::open(options)?)),
    }
}

/// Opens a datastore to read the network config and take snapshots, and creates nothing.
///
/// # Errors
/// Those of [`open`].
pub fn look(config: &DatastoreConfig) -> Result<Arc<dyn Datastore>, DatastoreError> {
    match config {
        DatastoreConfig::Etcd(_) => open(config),
        DatastoreConfig::File(options) => Ok(Arc::new(file::FileStore::look(options))),
    }
}

/// A value and its version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Versioned {
    /// The bytes as stored.
    pub value: Vec<u8>,
    /// Their version.
    pub revision: Revision,
}

/// A lease as stored: not parsed, not judged.
#[derive(Clone, PartialEq, Eq)]
pub struct Entry {
    /// The key behind the datastore's prefix; bytes that are no UTF-8 are replaced.
    pub key: String,
    /// The bytes as stored.
    pub value: Vec<u8>,
    /// The version.
    pub revision: Revision,
    /// Never expires: a reservation.
    pub permanent: bool,
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, value, revision, permanent } = self;
        write!(f, "{key} @{revision}{} {}", if *permanent { " permanent" } else { "" }, String::from_utf8_lossy(value))
    }
}

/// How far into a datastore's history one has read. A watch goes on from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    /// Which history this is: the cluster's or the directory's identity.
    pub history: u64,
    /// etcd's raft term, which no intact cluster ever lowers; 0 in a directory.
    pub term: u64,
    /// The last revision read; 0 in a directory.
    pub revision: Revision,
    /// What a directory's reader has seen, by key: a directory cannot repeat its past, so the watch compares.
    seen: Arc<BTreeMap<String, Revision>>,
}

impl Position {
    /// Whether this position cannot follow `earlier` in one history: the datastore was replaced, wiped, or restored from an
    /// older backup in between.
    #[must_use]
    pub const fn is_rewound_since(&self, earlier: &Self) -> bool {
        self.history != earlier.history || self.term < earlier.term || self.revision < earlier.revision
    }

    /// Notes that a watch has come to `revision`.
    pub(crate) fn advance(&mut self, revision: Revision) {
        // A directory has no revisions of its own, only those of its files.
        if self.revision > 0 {
            self.revision = self.revision.max(revision);
        }
    }
}

/// The leases at one moment.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// The leases, in the order of their keys.
    pub entries: Vec<Entry>,
    /// The moment.
    pub position: Position,
}

/// What a snapshot or a watch looks at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// All leases; a watch reports the network config, too.
    Everything,
    /// The lease with this key.
    Lease(String),
}

/// One change that a watch reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A lease was created, changed or renewed.
    Put(Entry),
    /// The lease with this key was deleted or has expired.
    Deleted(String),
    /// The network config is now this; `None` when it was deleted.
    Config(Option<Versioned>),
    /// Changes are missing: the history that the watch should have told is gone. Nothing follows; take a snapshot.
    Gap,
}

/// The changes that a watch reports, as they happen. After an error or the end, nothing follows: take a snapshot.
pub type Changes = BoxStream<'static, Result<Change, DatastoreError>>;

/// How long a lease is to live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lifetime {
    /// Until the datastore's lease time has passed without a renewal.
    Ttl,
    /// For ever: a reservation.
    Permanent,
}

/// What came of [`Datastore::create`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Created {
    /// The key is ours, at this revision.
    Yes(Revision),
    /// Somebody else's key is there.
    Exists,
}

/// What came of [`Datastore::replace`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Replaced {
    /// The key holds the new value, at this revision.
    Yes(Revision),
    /// Nothing was written: the key is no longer at the revision given. It holds this now, or is gone.
    Changed(Option<Entry>),
}

/// Where the cluster keeps its network config and leases.
///
/// Every call returns within a bounded time, and dropping its future is safe: a write may or may not have happened,
/// as with any write whose answer is lost.
#[async_trait]
pub trait Datastore: Send + Sync + fmt::Debug {
    /// How long a lease lives that nobody renews.
    fn ttl(&self) -> Duration;

    /// The network config, or `None` when there is none yet.
    async fn config(&self) -> Result<Option<Versioned>, DatastoreError>;

    /// Writes the network config, whatever was there.
    async fn put_config(&self, value: &[u8]) -> Result<Revision, DatastoreError>;

    /// The leases in `scope` at this moment.
    async fn snapshot(&self, scope: &Scope) -> Result<Snapshot, DatastoreError>;

    /// When each lease expires if nobody renews it, by key; reservations and what is gone meanwhile are left out.
    ///
    /// For an operator's eyes: etcd has to be asked for every lease by itself.
    async fn expiries(&self) -> Result<BTreeMap<String, SystemTime>, DatastoreError>;

    /// What changes in `scope` after `from`, a position of this datastore.
    async fn watch(&self, scope: Scope, from: &Position) -> Result<Changes, DatastoreError>;

    /// Creates a lease, unless there is one with this key. Of any number of racers one wins.
    async fn create(&self, key: &str, value: &[u8], lifetime: Lifetime) -> Result<Created, DatastoreError>;

    /// Writes a lease's value and starts its lifetime anew, if it is still at `revision`: whoever has compared the owner
    /// at that revision overwrites nobody else.
    async fn replace(
        &self,
        key: &str,
        revision: Revision,
        value: &[u8],
        lifetime: Lifetime,
    ) -> Result<Replaced, DatastoreError>;

    /// Asks whether we may write leases, and writes none.
    async fn may_write(&self) -> Result<(), DatastoreError>;

    /// Deletes a lease if it is still at `revision`; says whether it did.
    async fn delete(&self, key: &str, revision: Revision) -> Result<bool, DatastoreError>;
}

/// Why a datastore did not do what it was asked. One line: what was tried, on what, why not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DatastoreError {
    /// It cannot be reached, or cannot serve at the moment. Worth another try later.
    #[error("{operation} at {store}: {reason}")]
    Unavailable {
        /// What was tried.
        operation: String,
        /// The endpoints or the directory.
        store: String,
        /// Why not.
        reason: String,
    },
    /// It will not do this, now or later, until somebody changes options, permissions or files.
    #[error("{operation} at {store}: {reason}")]
    Refused {
        /// What was tried.
        operation: String,
        /// The endpoints, the directory or the file.
        store: String,
        /// Why not.
        reason: String,
    },
}

impl DatastoreError {
    /// Whether the same call may succeed later without anybody's help.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
    }
}
