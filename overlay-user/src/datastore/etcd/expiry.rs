//! When leases expire. etcd knows that of its own leases only, and tells of one at a time.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, SystemTime};

use etcd_client::{Client, KeyValue};
use futures::{StreamExt, TryStreamExt, stream};

use super::Etcd;
use crate::datastore::DatastoreError;

/// How many questions are under way at a time: enough that ten thousand leases take seconds.
const AT_ONCE: usize = 32;

impl Etcd {
    /// When each of the keys expires, by its name; those that never do are left out.
    pub(super) async fn expiries_of(
        &self,
        stored: &[KeyValue],
    ) -> Result<BTreeMap<String, SystemTime>, DatastoreError> {
        let leases: BTreeSet<i64> = stored.iter().map(KeyValue::lease).filter(|&lease| lease != 0).collect();
        let ask = |lease| async move { Ok::<_, DatastoreError>((lease, self.expiry(lease).await?)) };
        let expiries: HashMap<i64, Option<SystemTime>> =
            stream::iter(leases).map(ask).buffer_unordered(AT_ONCE).try_collect().await?;
        let expiry = |stored: &KeyValue| {
            let at = expiries.get(&stored.lease()).copied().flatten()?;
            Some((self.keys.entry(stored).key, at))
        };
        Ok(stored.iter().filter_map(expiry).collect())
    }

    /// When the etcd lease ends; `None` when it has.
    async fn expiry(&self, lease: i64) -> Result<Option<SystemTime>, DatastoreError> {
        let ask = |mut client: Client| async move { client.lease_time_to_live(lease, None).await };
        let answer = self.connection.call("ask when a lease expires", ask).await?;
        // etcd says -1 of a lease that has ended.
        Ok(u64::try_from(answer.ttl()).ok().map(|seconds| SystemTime::now() + Duration::from_secs(seconds)))
    }
}
