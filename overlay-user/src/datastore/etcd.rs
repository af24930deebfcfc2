//! An etcd cluster with flannel's v3 schema. The only module that names etcd-client.

mod connection;
mod expiry;
mod options;
mod watch;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use etcd_client::{
    Client, Compare, CompareOp, GetOptions, GetResponse, KeyValue, PutOptions, ResponseHeader, Txn, TxnOp,
    TxnOpResponse, TxnResponse,
};

use self::connection::Connection;
pub use self::options::EtcdOptions;
use super::{
    Changes, Created, Datastore, DatastoreError, Entry, Lifetime, Position, Replaced, Revision, Scope, Snapshot,
    Versioned,
};

/// Leases in one answer to a listing. Values are a few hundred bytes, so an answer is about a megabyte.
const PAGE: i64 = 4096;

/// The cluster, and where in it our keys are.
#[derive(Debug)]
pub(super) struct Etcd {
    connection: Connection,
    keys: Keys,
    ttl: Duration,
}

/// Our keys: `PREFIX/config` and `PREFIX/subnets/...`.
#[derive(Debug, Clone)]
struct Keys {
    prefix: String,
}

impl Keys {
    fn config(&self) -> String {
        format!("{}/config", self.prefix)
    }

    fn subnets(&self) -> String {
        format!("{}/subnets/", self.prefix)
    }

    fn lease(&self, key: &str) -> String {
        format!("{}/subnets/{key}", self.prefix)
    }

    /// The key after every lease's, which is the end of the range: `/` + 1 is `0`.
    fn subnets_end(&self) -> String {
        format!("{}/subnets0", self.prefix)
    }

    fn entry(&self, stored: &KeyValue) -> Entry {
        let name = stored.key().strip_prefix(self.subnets().as_bytes()).unwrap_or(stored.key());
        Entry {
            key: String::from_utf8_lossy(name).into_owned(),
            value: stored.value().to_vec(),
            revision: stored.mod_revision(),
            permanent: stored.lease() == 0,
        }
    }
}

impl Etcd {
    pub(super) fn open(options: &EtcdOptions) -> Result<Self, DatastoreError> {
        let prefix = format!("/{}", options.prefix.trim_matches('/'));
        Ok(Self { connection: Connection::new(options)?, keys: Keys { prefix }, ttl: options.ttl })
    }

    /// Reads a page of the leases from `start` to `end`, or the one at `start`, at `revision` or, if that is 0, now.
    async fn page(
        &self,
        start: &[u8],
        end: Option<&String>,
        revision: Revision,
    ) -> Result<GetResponse, DatastoreError> {
        let options = GetOptions::new().with_limit(PAGE).with_revision(revision);
        let options = match end {
            Some(end) => options.with_range(end.as_str()),
            None => options,
        };
        let get = |client: Client| {
            let (start, options) = (start.to_vec(), options.clone());
            async move { connection::roomy(&client).get(start, Some(options)).await }
        };
        self.connection.call("read leases", get).await
    }

    /// Reads all keys in `scope` at one moment.
    async fn list(&self, scope: &Scope) -> Result<(Vec<KeyValue>, Position), DatastoreError> {
        let (mut start, end) = match scope {
            Scope::Everything => (self.keys.subnets().into_bytes(), Some(self.keys.subnets_end())),
            Scope::Lease(key) => (self.keys.lease(key).into_bytes(), None),
        };
        let mut position: Option<Position> = None;
        let mut found = Vec::new();
        loop {
            // All pages are of the first one's revision, so that together they are one moment.
            let at = position.as_ref().map_or(0, |position| position.revision);
            let response = self.page(&start, end.as_ref(), at).await?;
            let position = position.get_or_insert_with(|| self::position(response.header()));
            found.extend_from_slice(response.kvs());
            match response.kvs().last() {
                Some(last) if response.more() => start = [last.key(), b"\0"].concat(),
                _ => return Ok((found, position.clone())),
            }
        }
    }

    /// A new etcd lease for a key that is to expire, or 0 for one that is not.
    async fn grant(&self, lifetime: Lifetime) -> Result<i64, DatastoreError> {
        if lifetime == Lifetime::Permanent {
            return Ok(0);
        }
        let seconds = i64::try_from(self.ttl.as_secs().max(1)).unwrap_or(i64::MAX);
        let grant = |mut client: Client| async move { client.lease_grant(seconds, None).await };
        Ok(self.connection.call("grant an etcd lease", grant).await?.id())
    }

    /// Gives back an etcd lease that nothing hangs on. If that fails, it runs out by itself.
    async fn revoke(&self, lease: i64) {
        if lease == 0 {
            return;
        }
        let revoke = |mut client: Client| async move { client.lease_revoke(lease).await };
        if let Err(error) = self.connection.call("revoke an etcd lease", revoke).await {
            tracing::debug!(%error, "an unused etcd lease stays until it runs out");
        }
    }

    async fn transaction(&self, operation: &str, transaction: Txn) -> Result<TxnResponse, DatastoreError> {
        self.connection
            .call(operation, |mut client: Client| {
                let transaction = transaction.clone();
                async move { client.txn(transaction).await }
            })
            .await
    }
}

#[async_trait]
impl Datastore for Etcd {
    fn ttl(&self) -> Duration {
        self.ttl
    }

    async fn config(&self) -> Result<Option<Versioned>, DatastoreError> {
        let key = self.keys.config();
        let operation = format!("read {key}");
        let get = |mut client: Client| {
            let key = key.clone();
            async move { client.get(key, None).await }
        };
        let response = self.connection.call(&operation, get).await?;
        Ok(response.kvs().first().map(versioned))
    }

    async fn put_config(&self, value: &[u8]) -> Result<Revision, DatastoreError> {
        let key = self.keys.config();
        let operation = format!("write {key}");
        let put = |mut client: Client| {
            let (key, value) = (key.clone(), value.to_vec());
            async move { client.put(key, value, None).await }
        };
        let response = self.connection.call(&operation, put).await?;
        Ok(revision(response.header()))
    }

    async fn snapshot(&self, scope: &Scope) -> Result<Snapshot, DatastoreError> {
        let (stored, position) = self.list(scope).await?;
        Ok(Snapshot { entries: stored.iter().map(|stored| self.keys.entry(stored)).collect(), position })
    }

    async fn expiries(&self) -> Result<BTreeMap<String, SystemTime>, DatastoreError> {
        self.expiries_of(&self.list(&Scope::Everything).await?.0).await
    }

    async fn watch(&self, scope: Scope, from: &Position) -> Result<Changes, DatastoreError> {
        watch::open(&self.connection, &self.keys, scope, from).await
    }

    async fn create(&self, key: &str, value: &[u8], lifetime: Lifetime) -> Result<Created, DatastoreError> {
        let full = self.keys.lease(key);
        let lease = self.grant(lifetime).await?;
        let options = PutOptions::new().with_lease(lease);
        let transaction = Txn::new()
            .when([Compare::version(full.clone(), CompareOp::Equal, 0)])
            .and_then([TxnOp::put(full.clone(), value, Some(options))])
            .or_else([TxnOp::get(full.clone(), None)]);
        match self.transaction(&format!("create {full}"), transaction).await {
            Ok(response) if response.succeeded() => Ok(Created::Yes(revision(response.header()))),
            Ok(response) => match written_before(&response, lease) {
                Some(stored) => Ok(Created::Yes(stored.mod_revision())),
                None => {
                    self.revoke(lease).await;
                    Ok(Created::Exists)
                }
            },
            // The key may be there all the same; revoking the etcd lease makes sure that it is not.
            Err(error) => {
                self.revoke(lease).await;
                Err(error)
            }
        }
    }

    async fn replace(
        &self,
        key: &str,
        at: Revision,
        value: &[u8],
        lifetime: Lifetime,
    ) -> Result<Replaced, DatastoreError> {
        let full = self.keys.lease(key);
        let lease = self.grant(lifetime).await?;
        let options = PutOptions::new().with_lease(lease).with_prev_key();
        let transaction = Txn::new()
            .when([Compare::mod_revision(full.clone(), CompareOp::Equal, at)])
            .and_then([TxnOp::put(full.clone(), value, Some(options))])
            .or_else([TxnOp::get(full.clone(), None)]);
        let response = self.transaction(&format!("renew {full}"), transaction).await?;
        if response.succeeded() {
            // The etcd lease that the key hung on until now has no use any more.
            if let Some(TxnOpResponse::Put(put)) = response.op_responses().first() {
                self.revoke(put.prev_key().map_or(0, KeyValue::lease)).await;
            }
            return Ok(Replaced::Yes(revision(response.header())));
        }
        if let Some(stored) = written_before(&response, lease) {
            return Ok(Replaced::Yes(stored.mod_revision()));
        }
        self.revoke(lease).await;
        Ok(Replaced::Changed(found(&response).map(|stored| self.keys.entry(&stored))))
    }

    async fn may_write(&self) -> Result<(), DatastoreError> {
        let key = self.keys.lease("");
        // No version is below 0, so nothing is put. Rights, and room, are asked for beforehand.
        let never = Compare::version(key.as_str(), CompareOp::Less, 0);
        let transaction = Txn::new().when([never]).and_then([TxnOp::put(key, "", None)]);
        self.transaction("ask for the right to write leases", transaction).await.map(drop)
    }

    async fn delete(&self, key: &str, at: Revision) -> Result<bool, DatastoreError> {
        let full = self.keys.lease(key);
        let transaction = Txn::new()
            .when([Compare::mod_revision(full.clone(), CompareOp::Equal, at)])
            .and_then([TxnOp::delete(full.clone(), None)]);
        Ok(self.transaction(&format!("delete {full}"), transaction).await?.succeeded())
    }
}

/// The key that a transaction which wrote nothing found instead.
fn found(response: &TxnResponse) -> Option<KeyValue> {
    match response.op_responses().first() {
        Some(TxnOpResponse::Get(get)) => get.kvs().first().cloned(),
        _ => None,
    }
}

/// The key, if it hangs on the etcd lease just granted: then an endpoint did the transaction, its answer was lost, and
/// this is the answer to the second try.
fn written_before(response: &TxnResponse, lease: i64) -> Option<KeyValue> {
    found(response).filter(|stored| lease != 0 && stored.lease() == lease)
}

fn versioned(stored: &KeyValue) -> Versioned {
    Versioned { value: stored.value().to_vec(), revision: stored.mod_revision() }
}

fn revision(header: Option<&ResponseHeader>) -> Revision {
    header.map_or(0, ResponseHeader::revision)
}

fn position(header: Option<&ResponseHeader>) -> Position {
    Position {
        history: header.map_or(0, ResponseHeader::cluster_id),
        term: header.map_or(0, ResponseHeader::raft_term),
        revision: revision(header),
        seen: Arc::new(BTreeMap::new()),
    }
}
