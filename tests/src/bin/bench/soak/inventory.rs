//! [`Inventory`]: what there is on the nodes that could be left over.

use std::{collections::BTreeMap, time::Duration};

use anyhow::Result;
use overlay_tests::{cluster::Cluster, kernel_objects::KernelObjects, process::wait_for, snapshot::Snapshot};
use overlay_user::{map_dump, rundir::RunDir};

/// Tables of fixed size that the programs write for the packets that they see: how many entries are in use says nothing.
const BY_TRAFFIC: [&str; 3] = ["FLOWS", "CANDIDATES", "NEIGHBOURS"];

/// What there is on all nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Inventory {
    /// By node and kind, such as `node1: links`.
    pub(crate) counts: BTreeMap<String, u64>,
    /// Devices, addresses, routes, rules, settings, mounts and files of each node.
    snapshots: Vec<Snapshot>,
}

impl Inventory {
    /// Counts what there is now.
    ///
    /// # Errors
    ///
    /// When a data path cannot be read.
    pub(crate) fn of(cluster: &Cluster) -> Result<Self> {
        let mut counts = BTreeMap::new();
        for node in cluster.nodes() {
            let mut count = |what: &str, number: u64| counts.insert(format!("{}: {what}", node.name()), number);
            let KernelObjects { programs, links, maps } = KernelObjects::of(node.run_dir())?;
            for (what, objects) in [("programs", programs), ("links", links), ("maps", maps)] {
                count(what, objects.len() as u64);
            }
            for row in map_dump::list(&RunDir::new(node.run_dir()))? {
                if !BY_TRAFFIC.contains(&row.map) {
                    count(&format!("entries of {}", row.map), row.entries);
                }
            }
        }
        Ok(Self { counts, snapshots: cluster.nodes().iter().map(Snapshot::of_node).collect() })
    }

    /// Counts once everything is as it was `before`, or as it is after `limit`.
    ///
    /// # Errors
    ///
    /// As [`of`](Self::of).
    pub(crate) fn once_as(before: &Self, cluster: &Cluster, limit: Duration) -> Result<Self> {
        let same = || Ok(Some(Self::of(cluster)?).filter(|now| now == before));
        wait_for("everything to be as it was", limit, same).or_else(|_| Self::of(cluster))
    }

    /// The first line in which the nodes differ from what they are in `after`, counts apart.
    pub(crate) fn difference(&self, after: &Self) -> Option<String> {
        self.snapshots.iter().zip(&after.snapshots).find_map(|(before, after)| before.difference(after))
    }
}
