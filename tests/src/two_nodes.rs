//! Two nodes with a container each: the ground of the tests that look at packets.

use std::time::Duration;

use crate::{
    cluster::{Backend, Cluster, Datastore, Settings},
    node::Node,
    sandbox::isolated,
    traffic::Flow,
};

/// How long something that must happen may take.
pub const LIMIT: Duration = Duration::from_secs(5);

/// Two nodes, and their leases in files: etcd takes no part in what these tests look at.
#[must_use]
pub fn settings(backend: Backend) -> Settings {
    Settings { backend, datastore: Datastore::File, ..Settings::default() }
}

/// Runs `test` on two nodes with a container each.
///
/// # Panics
///
/// When the cluster does not come up, or `test` panics.
pub fn on_two_nodes(settings: &Settings, test: impl FnOnce(&mut Cluster) + Send) {
    isolated(|| test(&mut Cluster::start(settings).expect("start a cluster")));
}

/// The two nodes of a cluster.
///
/// # Panics
///
/// When it has more or fewer.
#[must_use]
pub fn two(cluster: &Cluster) -> [&Node; 2] {
    let [one, two] = cluster.nodes() else { panic!("not two nodes") };
    [one, two]
}

/// From the container of `from` to that of `to`.
#[must_use]
pub fn flow(from: &Node, to: &Node) -> Flow {
    let (from, to) = (from.container(), to.container());
    Flow::new(&from.netns, &to.netns, to.v4())
}

/// Writes a test for either `Backend`, which has to be in scope, that calls a function with it.
#[macro_export]
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
