//! Watches on a directory: inotify says that something happened, the files say what.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures::{StreamExt, stream};
use inotify::{EventMask, EventOwned, EventStream, Inotify, WatchDescriptor, WatchMask};

use super::directory::{CONFIG, Directory};
use crate::datastore::{Change, Changes, DatastoreError, Position, Revision, Scope};

/// The longest sleep before a look at the clock, which somebody may have set.
const NAP: Duration = Duration::from_secs(60);

/// Opens a watch on `scope` that goes on from what `from` has seen.
pub(super) async fn open(directory: &Arc<Directory>, scope: Scope, from: &Position) -> io::Result<Changes> {
    let mut watch = Watch::new(directory, scope, &from.seen)?;
    // From here on inotify remembers; what happened between `from` and here is found by comparing.
    watch.rescan().await?;
    Ok(stream::unfold(watch, Watch::next).boxed())
}

struct Watch {
    directory: Arc<Directory>,
    scope: Scope,
    events: EventStream<[u8; 4096]>,
    /// inotify's number for the directory that holds the config.
    root: WatchDescriptor,
    seen: BTreeMap<String, Seen>,
    /// Expired leases that were reported and whose files are about to be removed.
    expired: BTreeSet<String>,
    pending: VecDeque<Change>,
    ended: bool,
}

/// What the reader of the watch knows of a file.
struct Seen {
    revision: Revision,
    /// When the lease expires, once the watch has looked.
    expires: Option<SystemTime>,
}

impl Watch {
    fn new(directory: &Arc<Directory>, scope: Scope, seen: &BTreeMap<String, Revision>) -> io::Result<Self> {
        let inotify = Inotify::init()?;
        let mask = WatchMask::CREATE
            | WatchMask::CLOSE_WRITE
            | WatchMask::ATTRIB
            | WatchMask::MOVE
            | WatchMask::DELETE
            | WatchMask::DELETE_SELF
            | WatchMask::MOVE_SELF
            | WatchMask::ONLYDIR;
        inotify.watches().add(directory.subnets(), mask)?;
        let root = inotify.watches().add(directory.root(), mask)?;
        let in_scope = seen.iter().filter(|(name, _)| wants(&scope, name));
        Ok(Self {
            directory: Arc::clone(directory),
            events: inotify.into_event_stream([0; 4096])?,
            root,
            seen: in_scope.map(|(name, &revision)| (name.clone(), Seen { revision, expires: None })).collect(),
            scope,
            expired: BTreeSet::new(),
            pending: VecDeque::new(),
            ended: false,
        })
    }

    async fn next(mut self) -> Option<(Result<Change, DatastoreError>, Self)> {
        loop {
            if let Some(change) = self.pending.pop_front() {
                return Some((Ok(change), self));
            }
            if self.ended {
                return None;
            }
            if let Err(error) = self.wait().await {
                let error = self.directory.error("watch leases", &error);
                return Some((Err(error), Self { ended: true, ..self }));
            }
        }
    }

    /// Waits for one event or expiry, and queues what it changed.
    async fn wait(&mut self) -> io::Result<()> {
        let now = SystemTime::now();
        let next = self.seen.values().filter_map(|seen| seen.expires).min();
        let nap = next.map_or(NAP, |at| at.duration_since(now).unwrap_or_default().min(NAP));
        tokio::select! {
            event = self.events.next() => match event {
                Some(event) => self.event(event?).await,
                None => Err(io::Error::other("inotify ended")),
            },
            () = tokio::time::sleep(nap) => self.expire().await,
        }
    }

    async fn event(&mut self, event: EventOwned) -> io::Result<()> {
        if event.mask.contains(EventMask::Q_OVERFLOW) {
            return self.rescan().await;
        }
        if event
            .mask
            .intersects(EventMask::DELETE_SELF | EventMask::MOVE_SELF | EventMask::IGNORED | EventMask::UNMOUNT)
        {
            return Err(io::Error::other("the directory was removed or moved away"));
        }
        let name = event.name.as_ref().map(|name| name.to_string_lossy());
        match name.as_deref() {
            Some("config") if event.wd == self.root => self.look_at_config().await,
            Some(name) if event.wd != self.root && !name.starts_with('.') => {
                let gone = event.mask.intersects(EventMask::DELETE | EventMask::MOVED_FROM);
                self.look_at(name.to_owned(), gone).await
            }
            _ => Ok(()),
        }
    }

    /// Compares every file with what was seen of it.
    async fn rescan(&mut self) -> io::Result<()> {
        let names = self.blocking(Directory::names).await?;
        let names: BTreeSet<String> = names.into_iter().chain(self.seen.keys().cloned()).collect();
        for name in names {
            self.look_at(name, false).await?;
        }
        self.look_at_config().await
    }

    /// Reports what has become of a file. `gone` says that it was removed once, if only for a moment.
    async fn look_at(&mut self, name: String, gone: bool) -> io::Result<()> {
        if name == CONFIG || !wants(&self.scope, &name) {
            return Ok(());
        }
        let file = name.clone();
        let Some(found) = self.blocking(move |directory| directory.read(&file)).await? else {
            // A file that came and went before we looked was never seen, but whoever made it wants to know.
            let seen = self.seen.remove(&name).is_some();
            if (gone && !self.expired.remove(&name)) || seen {
                self.pending.push_back(Change::Deleted(name));
            }
            return Ok(());
        };
        // A file is empty while somebody writes it by hand; its closing is the next event.
        if found.entry.value.is_empty() {
            return Ok(());
        }
        let (revision, expires) = (found.entry.revision, found.expires);
        self.expired.remove(&name);
        let before = self.seen.insert(name, Seen { revision, expires });
        if before.is_none_or(|before| before.revision != revision) {
            self.pending.push_back(Change::Put(found.entry));
        }
        Ok(())
    }

    async fn look_at_config(&mut self) -> io::Result<()> {
        if !wants(&self.scope, CONFIG) {
            return Ok(());
        }
        let config = self.blocking(Directory::config).await?;
        // As with leases: somebody is writing it by hand.
        if config.as_ref().is_some_and(|config| config.value.is_empty()) {
            return Ok(());
        }
        let revision = config.as_ref().map(|config| config.revision);
        if revision != self.seen.get(CONFIG).map(|seen| seen.revision) {
            match revision {
                Some(revision) => self.seen.insert(CONFIG.to_owned(), Seen { revision, expires: None }),
                None => self.seen.remove(CONFIG),
            };
            self.pending.push_back(Change::Config(config));
        }
        Ok(())
    }

    /// Reports leases that have expired, and removes their files.
    async fn expire(&mut self) -> io::Result<()> {
        let now = SystemTime::now();
        let due = self.seen.iter().filter(|(_, seen)| seen.expires.is_some_and(|at| at <= now));
        for name in due.map(|(name, _)| name.clone()).collect::<Vec<_>>() {
            self.look_at(name.clone(), false).await?;
            if !self.seen.contains_key(&name) {
                self.expired.insert(name.clone());
                let file = name.clone();
                if let Err(error) = self.blocking(move |directory| directory.sweep(&file)).await {
                    tracing::debug!(name, %error, "the file of an expired lease stays");
                }
            }
        }
        Ok(())
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Directory) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let directory = Arc::clone(&self.directory);
        tokio::task::spawn_blocking(move || work(&directory)).await.map_err(io::Error::other).flatten()
    }
}

fn wants(scope: &Scope, name: &str) -> bool {
    match scope {
        Scope::Everything => true,
        Scope::Lease(key) => key == name,
    }
}
