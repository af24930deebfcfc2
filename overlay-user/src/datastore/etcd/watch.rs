//! Watches on etcd.

use std::collections::VecDeque;

use etcd_client::{Client, Event, EventType, WatchOptions, WatchResponse, WatchStream};
use futures::{StreamExt, stream};

use super::connection::{self, Connection};
use super::{Keys, versioned};
use crate::datastore::{Change, Changes, DatastoreError, Position, Scope};

/// Opens a watch on `scope` from the revision after `from`.
pub(super) async fn open(
    connection: &Connection,
    keys: &Keys,
    scope: Scope,
    from: &Position,
) -> Result<Changes, DatastoreError> {
    let (key, options) = match &scope {
        // One range holds both the config and the leases.
        Scope::Everything => (keys.config(), WatchOptions::new().with_range(keys.subnets_end())),
        Scope::Lease(key) => (keys.lease(key), WatchOptions::new()),
    };
    // Fragments keep an answer small when one revision or a long gap holds many changes.
    let options = options.with_start_revision(from.revision + 1).with_fragment();
    let watch = |client: Client| {
        let (key, options) = (key.clone(), options.clone());
        async move { connection::roomy_watch(&client).watch(key, Some(options)).await }
    };
    let stream = connection.call("watch leases", watch).await?;
    let watch = Watch { stream, keys: keys.clone(), pending: VecDeque::new(), ended: false };
    Ok(stream::unfold(watch, Watch::next).boxed())
}

struct Watch {
    stream: WatchStream,
    keys: Keys,
    pending: VecDeque<Change>,
    ended: bool,
}

impl Watch {
    async fn next(mut self) -> Option<(Result<Change, DatastoreError>, Self)> {
        loop {
            if let Some(change) = self.pending.pop_front() {
                return Some((Ok(change), self));
            }
            if self.ended {
                return None;
            }
            match self.stream.message().await {
                Ok(Some(response)) => match self.take(&response) {
                    Ok(()) => {}
                    Err(error) => return Some((Err(error), Self { ended: true, ..self })),
                },
                Ok(None) => self.ended = true,
                Err(error) => {
                    let error = unavailable(&connection::one_line(&error));
                    return Some((Err(error), Self { ended: true, ..self }));
                }
            }
        }
    }

    /// Queues the changes of one answer.
    fn take(&mut self, response: &WatchResponse) -> Result<(), DatastoreError> {
        if response.compact_revision() > 0 {
            self.pending.push_back(Change::Gap);
            self.ended = true;
            return Ok(());
        }
        if response.canceled() {
            return Err(unavailable(&format!("canceled: {}", response.cancel_reason())));
        }
        self.pending.extend(response.events().iter().filter_map(|event| self.keys.change(event)));
        Ok(())
    }
}

impl Keys {
    /// What an event says, unless it is about a key that is not ours.
    fn change(&self, event: &Event) -> Option<Change> {
        let stored = event.kv()?;
        let put = matches!(event.event_type(), EventType::Put);
        if stored.key() == self.config().as_bytes() {
            return Some(Change::Config(put.then(|| versioned(stored))));
        }
        stored.key().starts_with(self.subnets().as_bytes()).then(|| {
            let entry = self.entry(stored);
            if put { Change::Put(entry) } else { Change::Deleted(entry.key) }
        })
    }
}

fn unavailable(reason: &str) -> DatastoreError {
    DatastoreError::Unavailable {
        operation: "watch leases".to_owned(),
        store: "etcd".to_owned(),
        reason: crate::json::shortened(reason),
    }
}
