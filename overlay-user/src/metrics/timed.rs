//! [`Timed`]: a datastore whose requests are timed and whose failures are counted.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use async_trait::async_trait;
use prometheus_client::{
    metrics::{counter::Counter, family::Family, histogram::Histogram},
    registry::{Registry, Unit},
};

use crate::datastore::{
    Changes, Created, Datastore, DatastoreError, Lifetime, Position, Replaced, Revision, Scope, Snapshot, Versioned,
};

type Operation = [(&'static str, &'static str); 1];

/// How long requests took, and how many failed.
#[derive(Debug, Clone)]
pub(super) struct Requests {
    durations: Family<Operation, Histogram, fn() -> Histogram>,
    failures: Family<Operation, Counter>,
}

impl Requests {
    pub(super) fn register(registry: &mut Registry) -> Self {
        // From a file's 0.1 ms to the 5 s after which etcd counts as silent.
        let buckets = || Histogram::new([0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0]);
        let requests = Self { durations: Family::new_with_constructor(buckets), failures: Family::default() };
        registry.register_with_unit(
            "datastore_request_duration",
            "How long the datastore took to answer, by what it was asked for",
            Unit::Seconds,
            requests.durations.clone(),
        );
        registry.register("datastore_failures", "Requests that the datastore failed", requests.failures.clone());
        requests
    }

    async fn time<T>(
        &self,
        operation: &'static str,
        request: impl Future<Output = Result<T, DatastoreError>>,
    ) -> Result<T, DatastoreError> {
        let (start, operation) = (Instant::now(), [("operation", operation)]);
        let answer = request.await;
        self.durations.get_or_create(&operation).observe(start.elapsed().as_secs_f64());
        // Also when there is none: a rate needs a sample from before the first.
        self.failures.get_or_create(&operation).inc_by(u64::from(answer.is_err()));
        answer
    }
}

/// A datastore whose requests are timed.
#[derive(Debug)]
pub(super) struct Timed {
    store: Arc<dyn Datastore>,
    requests: Requests,
}

impl Timed {
    pub(super) const fn new(store: Arc<dyn Datastore>, requests: Requests) -> Self {
        Self { store, requests }
    }
}

#[async_trait]
impl Datastore for Timed {
    fn ttl(&self) -> Duration {
        self.store.ttl()
    }

    async fn config(&self) -> Result<Option<Versioned>, DatastoreError> {
        self.requests.time("config", self.store.config()).await
    }

    async fn put_config(&self, value: &[u8]) -> Result<Revision, DatastoreError> {
        self.requests.time("put_config", self.store.put_config(value)).await
    }

    async fn snapshot(&self, scope: &Scope) -> Result<Snapshot, DatastoreError> {
        self.requests.time("snapshot", self.store.snapshot(scope)).await
    }

    async fn expiries(&self) -> Result<BTreeMap<String, SystemTime>, DatastoreError> {
        self.requests.time("expiries", self.store.expiries()).await
    }

    async fn watch(&self, scope: Scope, from: &Position) -> Result<Changes, DatastoreError> {
        self.requests.time("watch", self.store.watch(scope, from)).await
    }

    async fn create(&self, key: &str, value: &[u8], lifetime: Lifetime) -> Result<Created, DatastoreError> {
        self.requests.time("create", self.store.create(key, value, lifetime)).await
    }

    async fn replace(
        &self,
        key: &str,
        revision: Revision,
        value: &[u8],
        lifetime: Lifetime,
    ) -> Result<Replaced, DatastoreError> {
        self.requests.time("replace", self.store.replace(key, revision, value, lifetime)).await
    }

    async fn may_write(&self) -> Result<(), DatastoreError> {
        self.requests.time("may_write", self.store.may_write()).await
    }

    async fn delete(&self, key: &str, revision: Revision) -> Result<bool, DatastoreError> {
        self.requests.time("delete", self.store.delete(key, revision)).await
    }
}
