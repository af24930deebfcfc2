//! Asking whether a lease has a living holder.

use std::time::Duration;

use futures::StreamExt;
use serde_json::{Map, Value};
use tokio::time::timeout;

use crate::datastore::{Change, Datastore, DatastoreError, Entry, Lifetime, Replaced, Revision, Scope};

/// The field that asks. Readers ignore what they do not know; the holder restores its value.
const QUESTION: &str = "Question";

/// What came of asking.
pub(super) enum Answer {
    /// Nobody answered. The lease is at this revision now.
    Silence(Revision),
    /// Somebody keeps the lease.
    Alive,
    /// The lease is not what it was: gone, or another node's.
    Changed,
}

/// Asks the holder of `entry`, and waits for its answer up to `wait`.
pub(super) async fn ask(store: &dyn Datastore, entry: &Entry, wait: Duration) -> Result<Answer, DatastoreError> {
    let lifetime = if entry.permanent { Lifetime::Permanent } else { Lifetime::Ttl };
    let question = question(&entry.value);
    let Replaced::Yes(asked) = store.replace(&entry.key, entry.revision, &question, lifetime).await? else {
        return Ok(Answer::Changed);
    };
    let scope = Scope::Lease(entry.key.clone());
    let snapshot = store.snapshot(&scope).await?;
    match snapshot.entries.first() {
        Some(now) if now.revision == asked => {}
        now => return Ok(judge(now.map(|now| now.value.as_slice()), &entry.value)),
    }
    let mut changes = store.watch(scope, &snapshot.position).await?;
    match timeout(wait, changes.next()).await {
        Err(_) => Ok(Answer::Silence(asked)),
        Ok(Some(Ok(Change::Put(now)))) => Ok(judge(Some(&now.value), &entry.value)),
        Ok(Some(Err(error))) => Err(error),
        Ok(_) => Ok(Answer::Changed),
    }
}

/// The holder writes what was there before the question. Another node that asks, too, writes something else.
fn judge(now: Option<&[u8]>, before: &[u8]) -> Answer {
    if now == Some(before) { Answer::Alive } else { Answer::Changed }
}

/// The value with a question in it that no other node asks.
fn question(value: &[u8]) -> Vec<u8> {
    let mut fields: Map<String, Value> = serde_json::from_slice(value).unwrap_or_default();
    fields.insert(QUESTION.to_owned(), rand::random::<u64>().into());
    Value::Object(fields).to_string().into_bytes()
}
