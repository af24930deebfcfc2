//! What the tests share.

use std::{process::Command, time::Duration};

use overlay_common::Reason;
pub(crate) use overlay_tests::cluster::Backend;
use overlay_tests::{
    cluster::{Cluster, Datastore, Settings},
    node::Node,
    sandbox::isolated,
    traffic::Flow,
};

/// How long something that must happen may take.
pub(crate) const LIMIT: Duration = Duration::from_secs(5);

/// Two nodes, and their leases in files: etcd takes no part in what these tests look at.
pub(crate) fn settings(backend: Backend) -> Settings {
    Settings { backend, datastore: Datastore::File, ..Settings::default() }
}

/// Runs `test` on two nodes with a container each.
pub(crate) fn on_two_nodes(settings: &Settings, test: impl FnOnce(&mut Cluster) + Send) {
    isolated(|| test(&mut Cluster::start(settings).unwrap()));
}

/// The two nodes of a cluster.
pub(crate) fn two(cluster: &Cluster) -> [&Node; 2] {
    let [one, two] = cluster.nodes() else { panic!("not two nodes") };
    [one, two]
}

/// From the container of `from` to that of `to`.
pub(crate) fn flow(from: &Node, to: &Node) -> Flow {
    let (from, to) = (from.container(), to.container());
    Flow { from: from.netns.clone(), to: to.netns.clone(), address: to.address }
}

/// What ping said, both on standard output and error.
pub(crate) fn said(command: &mut Command) -> String {
    let output = command.output().unwrap();
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// How many packets `node` has dropped for `reason`.
pub(crate) fn dropped(node: &Node, reason: Reason) -> u64 {
    let drops = node.counters().drops().unwrap();
    drops.iter().find(|(counted, _)| *counted == reason).map_or(0, |(_, packets)| *packets)
}

/// Writes a test for either backend that calls a function with it.
macro_rules! for_either_backend {
    ($($(#[$attribute:meta])* fn $name:ident($backend:ident) $body:block)*) => {$(
        mod $name {
            use super::*;

            $(#[$attribute])*
            fn check($backend: Backend) $body

            #[test]
            fn udp() {
                check(Backend::Udp);
            }

            #[test]
            fn vxlan() {
                check(Backend::Vxlan);
            }
        }
    )*};
}
pub(crate) use for_either_backend;
