//! [`Known`]: the leases as last heard, and what each change makes of them. Pure but for the clock that grace needs.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::Ipv4Addr;

use ipnetwork::Ipv4Network;
use tokio::time::Instant;

use crate::datastore::{Entry, Revision};
use crate::json::shortened;
use crate::lease::{Lease, LeaseEvent, SubnetKey};

/// The leases as last heard.
#[derive(Debug, Default)]
pub(super) struct Known {
    leases: BTreeMap<SubnetKey, (Lease, Revision)>,
    /// Keys or values that do not parse, and why not.
    bad: HashMap<String, String>,
    /// How many of them the follower has been told of.
    told_bad: usize,
    /// Leases that a rewound datastore does not have, and until when they stay all the same.
    grace: BTreeMap<SubnetKey, Instant>,
}

impl Known {
    /// Whether a key is older in `entries` than we have seen it: the datastore has been restored.
    pub(super) fn is_newer_than(&self, entries: &[Entry]) -> bool {
        entries.iter().any(|entry| {
            let known = entry.key.parse().ok().and_then(|key: SubnetKey| self.leases.get(&key));
            known.is_some_and(|(_, revision)| *revision > entry.revision)
        })
    }

    /// Takes over a snapshot and returns all leases. Leases that it does not have are gone, or stay until `grace`.
    pub(super) fn reset(&mut self, entries: &[Entry], grace: Option<Instant>) -> Vec<Lease> {
        let mut leases = BTreeMap::new();
        let mut present = HashSet::with_capacity(entries.len());
        for entry in entries {
            present.insert(entry.key.as_str());
            if let Some(lease) = self.read(entry) {
                leases.insert(lease.subnet, (lease, entry.revision));
            }
        }
        self.bad.retain(|key, _| present.contains(key.as_str()));
        let before = std::mem::replace(&mut self.leases, leases);
        let earlier = std::mem::take(&mut self.grace);
        let subnets: HashSet<Ipv4Network> = self.leases.keys().map(|key| key.v4).collect();
        let nodes: HashSet<Ipv4Addr> = self.leases.values().map(|(lease, _)| lease.node.public_ip).collect();
        for (key, (lease, _)) in before {
            let until = earlier.get(&key).copied().or(grace);
            let free = !subnets.contains(&key.v4) && !nodes.contains(&lease.node.public_ip);
            if let Some(until) = until.filter(|_| free) {
                self.grace.insert(key, until);
                // No revision of the new history is older than this.
                self.leases.insert(key, (lease, 0));
            }
        }
        self.leases.values().map(|(lease, _)| lease.clone()).collect()
    }

    /// Takes over one lease.
    pub(super) fn put(&mut self, entry: &Entry) -> Vec<LeaseEvent> {
        let Some(lease) = self.parse(entry) else { return Vec::new() };
        self.grace.remove(&lease.subnet);
        let replaced = |(key, _): &(&SubnetKey, &Instant)| {
            let stayed = self.leases.get(key).map(|(lease, _)| lease.node.public_ip);
            key.v4 == lease.subnet.v4 || stayed == Some(lease.node.public_ip)
        };
        let replaced: Vec<SubnetKey> = self.grace.iter().filter(replaced).map(|(key, _)| *key).collect();
        let mut events: Vec<LeaseEvent> = replaced.into_iter().filter_map(|key| self.remove(key)).collect();
        self.leases.insert(lease.subnet, (lease.clone(), entry.revision));
        events.push(LeaseEvent::Added(lease));
        events
    }

    /// Drops the lease with this key.
    pub(super) fn delete(&mut self, key: &str) -> Vec<LeaseEvent> {
        self.bad.remove(key);
        key.parse().ok().and_then(|key| self.remove(key)).into_iter().collect()
    }

    /// When the next lease's grace is over.
    pub(super) fn grace(&self) -> Option<Instant> {
        self.grace.values().min().copied()
    }

    /// Drops the leases whose grace is over.
    pub(super) fn end_grace(&mut self) -> Vec<LeaseEvent> {
        let now = Instant::now();
        let over: Vec<SubnetKey> = self.grace.iter().filter(|(_, until)| **until <= now).map(|(key, _)| *key).collect();
        over.into_iter().filter_map(|key| self.remove(key)).collect()
    }

    /// Lets the leases that stay by grace stay until `until`.
    pub(super) fn extend_grace(&mut self, until: Instant) -> Vec<LeaseEvent> {
        self.grace.values_mut().for_each(|end| *end = until);
        Vec::new()
    }

    /// The number of keys that do not parse, if it is not what was last asked for.
    pub(super) fn changed_bad_keys(&mut self) -> Option<usize> {
        let before = std::mem::replace(&mut self.told_bad, self.bad.len());
        (before != self.told_bad).then_some(self.told_bad)
    }

    fn remove(&mut self, key: SubnetKey) -> Option<LeaseEvent> {
        self.grace.remove(&key);
        self.leases.remove(&key).map(|_| LeaseEvent::Removed(key))
    }

    /// The entry's lease. If its value does not parse, the last good one at this key: the subnet is still claimed, and a
    /// slip of somebody's hand must not cut its node off.
    fn read(&mut self, entry: &Entry) -> Option<Lease> {
        let lease = self.parse(entry);
        lease.or_else(|| self.leases.get(&entry.key.parse().ok()?).map(|(lease, _)| lease.clone()))
    }

    /// The entry's lease, if it is one. Reports each bad key and error once.
    fn parse(&mut self, entry: &Entry) -> Option<Lease> {
        let error = match Lease::parse(&entry.key, &entry.value) {
            Ok(lease) => {
                self.bad.remove(&entry.key);
                return Some(lease);
            }
            Err(error) => error.to_string(),
        };
        if self.bad.get(&entry.key) != Some(&error) {
            tracing::warn!(key = shortened(&entry.key), %error, "lease skipped");
            self.bad.insert(entry.key.clone(), error);
        }
        None
    }
}
