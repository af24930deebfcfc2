//! Whether the datastore answers, and holds a network config that makes sense.

use std::{sync::Arc, time::Duration};

use futures::future::join_all;

use super::Finding;
use crate::{
    agent,
    datastore::{self, Datastore, DatastoreConfig, DatastoreError, EtcdOptions},
    in_words::joined,
    network::NetworkConfig,
};

const CHECK: &str = "datastore";

/// A datastore that answers, and its network config.
pub(super) struct Cluster {
    pub(super) store: Arc<dyn Datastore>,
    pub(super) network: NetworkConfig,
}

/// After so long without an answer the user is told what is waited for.
const SILENCE: Duration = Duration::from_secs(1);

pub(super) async fn check(config: &DatastoreConfig) -> (Vec<Finding>, Option<Cluster>) {
    let (name, endpoints) = match config {
        DatastoreConfig::Etcd(options) => (options.endpoints.join(", "), options.endpoints.as_slice()),
        DatastoreConfig::File(options) => (options.directory.display().to_string(), &[][..]),
    };
    let both = async { tokio::join!(as_the_agent(config), each(config, endpoints)) };
    let (asked, answers) = announced(&name, both).await;
    let (mut findings, cluster) = match asked {
        Ok(cluster) => {
            let network = describe(&cluster.network);
            let findings = vec![Finding::green(CHECK, format!("{name}: answers")), Finding::green("config", network)];
            (findings, Some(cluster))
        }
        Err(error) if error.is::<DatastoreError>() => (vec![Finding::refused(CHECK, error, advice(config))], None),
        Err(error) => {
            let config = Finding::refused(
                "config",
                error,
                "write one with `overlay config set`; without one, device, port and subnet are not checked",
            );
            (vec![Finding::green(CHECK, format!("{name}: answers")), config], None)
        }
    };
    // One endpoint alone has just been spoken of.
    if endpoints.len() > 1 {
        findings.extend(answers);
    }
    (findings, cluster)
}

/// What the agent would hear, by the agent's own calls.
async fn as_the_agent(config: &DatastoreConfig) -> anyhow::Result<Cluster> {
    let store = datastore::look(config)?;
    let (network, _) = agent::network_config(&*store).await?;
    store.may_write().await?;
    Ok(Cluster { store, network })
}

/// What each endpoint of etcd has to say.
async fn each(config: &DatastoreConfig, endpoints: &[String]) -> Vec<Finding> {
    let DatastoreConfig::Etcd(options) = config else { return Vec::new() };
    join_all(endpoints.iter().map(|endpoint| one(options, endpoint))).await
}

async fn one(options: &EtcdOptions, endpoint: &str) -> Finding {
    const CHECK: &str = "etcd";
    let alone = DatastoreConfig::Etcd(EtcdOptions { endpoints: vec![endpoint.to_owned()], ..options.clone() });
    let answer = match datastore::look(&alone) {
        Ok(store) => store.config().await.map(drop),
        Err(error) => Err(error),
    };
    match answer {
        Ok(()) => Finding::green(CHECK, format!("{endpoint}: answers")),
        Err(error) => Finding::yellow(
            CHECK,
            error.to_string(),
            "mend it, or take it out of --etcd-endpoints; the agent asks one after another",
        ),
    }
}

fn advice(config: &DatastoreConfig) -> &'static str {
    match config {
        DatastoreConfig::Etcd(_) => {
            "see that it runs, can be reached from here, and lets us write; for https, that --etcd-cafile signed its certificate"
        }
        DatastoreConfig::File(_) => "see that the directory can be read and written",
    }
}

fn describe(network: &NetworkConfig) -> String {
    let (backend, port) = (network.backend.name(), network.backend.port());
    let ranges = network.networks().zip(network.first_subnets().subnets());
    let ranges = ranges.map(|(network, subnet)| format!("{network}, subnets of /{}", subnet.prefix()));
    format!("{}, backend {backend} on port {port}", joined(ranges))
}

/// Waits for `work`, and says so when it takes long.
async fn announced<T>(what: &str, work: impl Future<Output = T>) -> T {
    let mut work = std::pin::pin!(work);
    tokio::select! {
        done = &mut work => return done,
        () = tokio::time::sleep(SILENCE) => tracing::info!(datastore = what, "waiting for an answer"),
    }
    work.await
}
