//! Follows the cluster's leases: one snapshot, then what changes, and a new snapshot after every gap.
//!
//! What a silent datastore does not say is not taken for a removal: peers stay as they were last heard of. What a datastore
//! that answers does not list is gone. There is one exception. A datastore that was wiped, or restored from an older
//! backup, forgets leases of nodes that live: every agent puts its own lease back within seconds. So when the history has
//! been *rewound* (see [`Position::is_rewound_since`]), leases that are missing stay for [`GRACE`], unless another
//! lease takes their subnet or their node turns up elsewhere.

mod known;

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use self::known::Known;
use crate::backoff::Backoff;
use crate::datastore::{Change, Datastore, DatastoreError, Position, Scope, Versioned};
use crate::lease::LeaseEvent;

/// How long leases stay that a rewound datastore does not know: the time for their nodes to come back to it.
pub const GRACE: Duration = Duration::from_secs(60);

/// A watch that lived this long was a success, and the next reconnection starts with a short wait again.
const GOOD_LIFE: Duration = Duration::from_secs(10);

/// What a follower of the datastore gets to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WatchEvent {
    /// The cluster's leases changed. The first event of all is a [`LeaseEvent::Reset`].
    Lease(LeaseEvent),
    /// The network config is now this; `None` when it was deleted. Told after the first snapshot, and when it changes, be
    /// it while nobody could see it.
    Config(Option<Versioned>),
    /// So many keys or values do not parse, and are skipped; told when the number changes.
    BadKeys(usize),
    /// The datastore no longer answers; leases are as last heard. Told once per outage.
    Silent(DatastoreError),
    /// The datastore answers again. A `Reset` follows.
    Answers,
}

/// The receiver is gone: nobody is left to follow for.
struct Unheard;

/// Follows `store` and tells `events` everything, for as long as somebody receives.
pub async fn run(store: Arc<dyn Datastore>, events: mpsc::Sender<WatchEvent>) {
    let mut follower = Follower { store, events, known: Known::default(), config: None, last: None, silent: false };
    let mut backoff = Backoff::default();
    loop {
        let start = Instant::now();
        match follower.follow().await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                if follower.silence(error).await.is_err() {
                    return;
                }
            }
            Err(Unheard) => return,
        }
        if start.elapsed() >= GOOD_LIFE {
            backoff.reset();
        }
        tokio::select! {
            () = backoff.wait() => {}
            () = follower.grace_over() => if follower.end_grace().await.is_err() { return },
            () = follower.events.closed() => return,
        }
    }
}

struct Follower {
    store: Arc<dyn Datastore>,
    events: mpsc::Sender<WatchEvent>,
    known: Known,
    /// The network config as last told.
    config: Option<Versioned>,
    /// How far we have read.
    last: Option<Position>,
    silent: bool,
}

impl Follower {
    /// Takes a snapshot and follows its watch to the end: the inner result says why it ended.
    async fn follow(&mut self) -> Result<Result<(), DatastoreError>, Unheard> {
        let snapshot = match self.store.snapshot(&Scope::Everything).await {
            Ok(snapshot) => snapshot,
            Err(error) => return Ok(Err(error)),
        };
        if std::mem::take(&mut self.silent) {
            self.tell(WatchEvent::Answers).await?;
        }
        let rewound = self.last.as_ref().is_some_and(|last| snapshot.position.is_rewound_since(last))
            || self.known.is_newer_than(&snapshot.entries);
        if rewound {
            tracing::warn!(grace = ?GRACE, "the datastore was wiped or restored: leases that it forgot stay for a while");
        }
        let leases = self.known.reset(&snapshot.entries, rewound.then(|| Instant::now() + GRACE));
        tracing::debug!(leases = leases.len(), revision = snapshot.position.revision, "snapshot of the leases");
        self.last = Some(snapshot.position.clone());
        self.tell_leases(vec![LeaseEvent::Reset(leases)]).await?;
        match self.store.config().await {
            Ok(config) => self.tell_config(config).await?,
            Err(error) => return Ok(Err(error)),
        }
        let mut changes = match self.store.watch(Scope::Everything, &snapshot.position).await {
            Ok(changes) => changes,
            Err(error) => return Ok(Err(error)),
        };
        loop {
            let change = tokio::select! {
                change = changes.next() => change,
                () = self.grace_over() => {
                    self.end_grace().await?;
                    continue;
                }
                () = self.events.closed() => return Err(Unheard),
            };
            match change {
                Some(Ok(change)) if change != Change::Gap => self.change(change).await?,
                Some(Err(error)) => return Ok(Err(error)),
                _ => {
                    tracing::info!("the watch has a gap or has ended: reading all leases again");
                    return Ok(Ok(()));
                }
            }
        }
    }

    async fn change(&mut self, change: Change) -> Result<(), Unheard> {
        match change {
            Change::Put(entry) => {
                if let Some(last) = &mut self.last {
                    last.advance(entry.revision);
                }
                let events = self.known.put(&entry);
                self.tell_leases(events).await
            }
            Change::Deleted(key) => {
                let events = self.known.delete(&key);
                self.tell_leases(events).await
            }
            Change::Config(config) => {
                // It may have been read, and told, before the watch got there.
                let told = self.config.as_ref().zip(config.as_ref());
                match told.is_some_and(|(told, now)| now.revision <= told.revision) {
                    true => Ok(()),
                    false => self.tell_config(config).await,
                }
            }
            Change::Gap => Ok(()),
        }
    }

    /// Notes that the datastore does not answer.
    async fn silence(&mut self, error: DatastoreError) -> Result<(), Unheard> {
        if std::mem::replace(&mut self.silent, true) {
            tracing::debug!(%error, "the datastore still does not answer");
            return Ok(());
        }
        self.tell(WatchEvent::Silent(error)).await
    }

    async fn grace_over(&self) {
        match self.known.grace() {
            Some(end) => sleep_until(end).await,
            None => std::future::pending().await,
        }
    }

    async fn end_grace(&mut self) -> Result<(), Unheard> {
        // A silent datastore cannot show who came back.
        let events = if self.silent { self.known.extend_grace(Instant::now() + GRACE) } else { self.known.end_grace() };
        self.tell_leases(events).await
    }

    async fn tell_leases(&mut self, events: Vec<LeaseEvent>) -> Result<(), Unheard> {
        for event in events {
            self.tell(WatchEvent::Lease(event)).await?;
        }
        match self.known.changed_bad_keys() {
            Some(count) => self.tell(WatchEvent::BadKeys(count)).await,
            None => Ok(()),
        }
    }

    async fn tell_config(&mut self, config: Option<Versioned>) -> Result<(), Unheard> {
        if self.config == config {
            return Ok(());
        }
        self.config.clone_from(&config);
        self.tell(WatchEvent::Config(config)).await
    }

    async fn tell(&self, event: WatchEvent) -> Result<(), Unheard> {
        self.events.send(event).await.map_err(|_| Unheard)
    }
}

#[cfg(test)]
mod tests;
