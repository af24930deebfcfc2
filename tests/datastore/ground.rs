//! [`Ground`]: what a test stands on: a datastore of either kind, and time limits.

use std::{
    future::Future,
    net::Ipv4Addr,
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::StreamExt;
use overlay_tests::{etcd::Etcd, sandbox};
use overlay_user::{
    datastore::{self, Change, Changes, Datastore, DatastoreConfig, Entry, EtcdOptions, FileOptions, Scope},
    lease::{Backend, Node, Vtep},
    mac::Mac,
    network::NetworkConfig,
};
use tokio::sync::mpsc;

/// Longer than anything takes that works.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);
/// A lease time that a test can wait for. etcd's clock has whole seconds.
pub(crate) const SHORT: Duration = Duration::from_secs(2);

/// A datastore to test on.
#[derive(Debug, Clone)]
pub(crate) struct Ground {
    config: DatastoreConfig,
}

impl Ground {
    pub(crate) const fn new(config: DatastoreConfig) -> Self {
        Self { config }
    }

    /// The datastore as one node opens it: nothing is shared with another call.
    pub(crate) fn store(&self) -> Arc<dyn Datastore> {
        datastore::open(&self.config).expect("open the datastore")
    }

    /// The same datastore with leases that live for `ttl`.
    pub(crate) fn with_ttl(mut self, ttl: Duration) -> Self {
        match &mut self.config {
            DatastoreConfig::Etcd(options) => options.ttl = ttl,
            DatastoreConfig::File(options) => options.ttl = ttl,
        }
        self
    }
}

/// A test that runs on either kind of datastore.
pub(crate) type Test = fn(Ground) -> Pin<Box<dyn Future<Output = ()>>>;

/// Runs `test` against a real etcd in a network namespace of its own.
pub(crate) fn on_etcd(test: Test) {
    sandbox::isolated(|| {
        let etcd = Etcd::on_loopback().expect("start etcd");
        let ground = Ground::new(DatastoreConfig::Etcd(options(&etcd)));
        etcd.netns().run(|| block_on(test(ground)));
    });
}

/// Runs `test` against a directory of its own.
pub(crate) fn on_file(test: Test) {
    let directory = tempfile::tempdir().expect("make a directory");
    let ground = Ground::new(DatastoreConfig::File(FileOptions::new(directory.path().join("store"))));
    block_on(test(ground));
}

/// Runs `task` on this thread.
pub(crate) fn block_on<T>(task: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("make a runtime");
    runtime.block_on(task)
}

/// How to reach `etcd`.
pub(crate) fn options(etcd: &Etcd) -> EtcdOptions {
    EtcdOptions { endpoints: vec![etcd.endpoint()], ..EtcdOptions::default() }
}

/// Makes one test per kind of datastore of each function named.
macro_rules! on_both {
    ($($test:ident),* $(,)?) => {
        mod etcd {
            $(#[test]
            fn $test() {
                crate::ground::on_etcd(|ground| Box::pin(super::$test(ground)));
            })*
        }
        mod file {
            $(#[test]
            fn $test() {
                crate::ground::on_file(|ground| Box::pin(super::$test(ground)));
            })*
        }
    };
}
pub(crate) use on_both;

/// Waits for `what`, but not for ever.
pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(LIMIT, future).await {
        Ok(value) => value,
        Err(_) => panic!("waited {LIMIT:?} for {what}"),
    }
}

/// The next event of a channel.
pub(crate) async fn next<T>(events: &mut mpsc::Receiver<T>) -> T {
    within("the next event", events.recv()).await.expect("the sender lives")
}

/// The next change of a watch.
pub(crate) async fn change(changes: &mut Changes) -> Change {
    within("the next change", changes.next()).await.expect("the watch goes on").expect("the watch works")
}

/// Waits until `holds` says yes.
pub(crate) async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !holds().await {
        assert!(start.elapsed() < LIMIT, "waited {LIMIT:?} until {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The lease with this key.
pub(crate) async fn lease(store: &Arc<dyn Datastore>, key: &str) -> Option<Entry> {
    store.snapshot(&Scope::Lease(key.to_owned())).await.expect("read a lease").entries.pop()
}

/// The keys of all leases.
pub(crate) async fn keys(store: &Arc<dyn Datastore>) -> Vec<String> {
    let snapshot = store.snapshot(&Scope::Everything).await.expect("read all leases");
    snapshot.entries.into_iter().map(|entry| entry.key).collect()
}

/// A vxlan network with room for `10.1.1.0/24` to `10.1.255.0/24`.
pub(crate) fn network() -> NetworkConfig {
    NetworkConfig::parse(br#"{"Network":"10.1.0.0/16","Backend":{"Type":"vxlan"}}"#).expect("a valid config")
}

/// The vxlan node with underlay address 192.0.2.`last` and a MAC address that ends in `mac`.
pub(crate) fn node(last: u8, mac: u8) -> Node {
    let vtep = Vtep { vni: 1, mac: Mac([2, 0, 0, 0, 0, mac]), takes_no_checksum: false };
    let backend = Backend::Vxlan { v4: Some(vtep), v6: None };
    Node { public_ip: Ipv4Addr::new(192, 0, 2, last), public_ipv6: None, backend }
}
