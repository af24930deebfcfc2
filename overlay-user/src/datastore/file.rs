//! A directory as datastore: for one machine, a lab, or a static cluster.
//!
//! `config` and `subnets/KEY` hold the bytes that etcd would hold. A lease expires when its file has not been modified for
//! the lease time. A file that nobody may write (`chmod a-w`) is a reservation and never expires. Writers take turns by a
//! lock on `.lock`; every write is a new file moved into place, so readers need no lock.

mod directory;
mod watch;

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;

use self::directory::Directory;
use super::{
    Changes, Created, Datastore, DatastoreError, FileOptions, Lifetime, Position, Replaced, Revision, Scope, Snapshot,
    Versioned,
};

/// The datastore in a directory.
#[derive(Debug)]
pub(super) struct FileStore {
    directory: Arc<Directory>,
    /// Whether the directory may be missing, as nobody has made sure that it is there.
    may_be_missing: bool,
}

impl FileStore {
    pub(super) fn open(options: &FileOptions) -> Result<Self, DatastoreError> {
        let directory = Directory::new(options.directory.clone(), options.ttl);
        directory.prepare().map_err(|error| directory.error("create the datastore", &error))?;
        Ok(Self { directory: Arc::new(directory), may_be_missing: false })
    }

    /// The same without creating anything. A directory that is not there reads as an empty one.
    pub(super) fn look(options: &FileOptions) -> Self {
        let directory = Directory::new(options.directory.clone(), options.ttl);
        Self { directory: Arc::new(directory), may_be_missing: true }
    }

    /// Does one piece of work on a thread that may block.
    async fn run<T: Send + 'static>(
        &self,
        operation: &str,
        work: impl FnOnce(&Directory) -> io::Result<T> + Send + 'static,
    ) -> Result<T, DatastoreError> {
        let directory = Arc::clone(&self.directory);
        let done = tokio::task::spawn_blocking(move || work(&directory)).await.map_err(io::Error::other);
        done.flatten().map_err(|error| self.directory.error(operation, &error))
    }
}

#[async_trait]
impl Datastore for FileStore {
    fn ttl(&self) -> Duration {
        self.directory.ttl()
    }

    async fn config(&self) -> Result<Option<Versioned>, DatastoreError> {
        self.run("read config", Directory::config).await
    }

    async fn put_config(&self, value: &[u8]) -> Result<Revision, DatastoreError> {
        let value = value.to_vec();
        self.run("write config", move |directory| directory.put_config(&value)).await
    }

    async fn snapshot(&self, scope: &Scope) -> Result<Snapshot, DatastoreError> {
        let scope = scope.clone();
        if self.may_be_missing && !self.directory.subnets().exists() {
            let position = Position { history: 0, term: 0, revision: 0, seen: Arc::default() };
            return Ok(Snapshot { entries: Vec::new(), position });
        }
        self.run("read leases", move |directory| {
            let (entries, seen) = match scope {
                Scope::Everything => directory.list()?,
                Scope::Lease(key) => directory.only(&key)?,
            };
            let position = Position { history: directory.identity()?, term: 0, revision: 0, seen: Arc::new(seen) };
            Ok(Snapshot { entries, position })
        })
        .await
    }

    async fn expiries(&self) -> Result<BTreeMap<String, SystemTime>, DatastoreError> {
        self.run("read leases", Directory::expiries).await
    }

    async fn watch(&self, scope: Scope, from: &Position) -> Result<Changes, DatastoreError> {
        watch::open(&self.directory, scope, from).await.map_err(|error| self.directory.error("watch leases", &error))
    }

    async fn create(&self, key: &str, value: &[u8], lifetime: Lifetime) -> Result<Created, DatastoreError> {
        let (name, value) = (key.to_owned(), value.to_vec());
        let create = move |directory: &Directory| directory.create(&name, &value, lifetime);
        Ok(self.run(&format!("create subnets/{key}"), create).await?.map_or(Created::Exists, Created::Yes))
    }

    async fn replace(
        &self,
        key: &str,
        at: Revision,
        value: &[u8],
        lifetime: Lifetime,
    ) -> Result<Replaced, DatastoreError> {
        let (name, value) = (key.to_owned(), value.to_vec());
        let replace = move |directory: &Directory| directory.replace(&name, at, &value, lifetime);
        self.run(&format!("renew subnets/{key}"), replace).await
    }

    async fn may_write(&self) -> Result<(), DatastoreError> {
        self.run("ask for the right to write leases", Directory::may_write).await
    }

    async fn delete(&self, key: &str, at: Revision) -> Result<bool, DatastoreError> {
        let name = key.to_owned();
        self.run(&format!("delete subnets/{key}"), move |directory| directory.delete(&name, at)).await
    }
}
