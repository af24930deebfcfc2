//! [`Snapshot`]: everything on a node and in etcd that an agent could change.

use std::{collections::BTreeSet, fs, path::Path};

use crate::{
    cluster::Cluster,
    node::{Node, UNDERLAY_DEVICE},
};

/// Everything that an agent could change, as text. Not IPv6, which the kernel sets up in its own time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot(String);

impl Snapshot {
    /// The node as it is, and the keys in its cluster's etcd.
    ///
    /// # Panics
    ///
    /// When something cannot be read, or the cluster's etcd does not answer.
    #[must_use]
    pub fn of(cluster: &Cluster, node: &Node) -> Self {
        Self(format!("{}{:#?}\n", Self::of_node(node).0, cluster.etcd().list("/").expect("list etcd's keys")))
    }

    /// The node alone, as it is.
    ///
    /// # Panics
    ///
    /// When something cannot be read.
    #[must_use]
    pub fn of_node(node: &Node) -> Self {
        let ip = ["-details link", "-4 address", "-4 route show table all", "-4 rule"]
            .map(|what| node.netns().ip(what).expect("run ip"));
        let rules = node.netns().command("nft").args(["--stateless", "list", "ruleset"]).output().expect("run nft");
        let settings = node.netns().run(|| ["all", "default", UNDERLAY_DEVICE].map(settings).join("\n"));
        let mounts = fs::read_to_string("/proc/thread-self/mountinfo").expect("read mounts");
        // An agent that refuses may take the empty directory away.
        let files = fs::read_dir(node.run_dir()).into_iter().flatten().map(|entry| entry.expect("read entry").path());
        // A half-written `subnet.env` waits, as the whole one does, for the next agent.
        let files =
            files.filter(|file| file.extension().is_none_or(|extension| extension != "tmp")).collect::<BTreeSet<_>>();
        // Timers run, and whether a device is up and has carrier is found out by and by.
        let by_itself = regex::Regex::new(r"_timer +[0-9.]+| state [A-Z]+|NO-CARRIER,|,LOWER_UP").expect("a pattern");
        let ip = ip.map(|text| by_itself.replace_all(&text, "").into_owned());
        let text = format!("{ip:#?}\n{rules:#?}\n{settings}\n{mounts}\n{files:?}\n");
        Self(text.replace("\\n", "\n"))
    }

    /// The first line in which `after` is different, if one is.
    #[must_use]
    pub fn difference(&self, after: &Self) -> Option<String> {
        let (mut before, mut after) = (self.0.lines(), after.0.lines());
        loop {
            match (before.next(), after.next()) {
                (None, None) => return None,
                (before, after) if before == after => {}
                (before, after) => {
                    return Some(format!("{:?} was {:?}", after.unwrap_or_default(), before.unwrap_or_default()));
                }
            }
        }
    }

    /// Fails, saying what is different and what `said` was, unless `after` is the same.
    ///
    /// # Panics
    ///
    /// When it is not.
    #[track_caller]
    pub fn assert_same(&self, after: &Self, said: &str) {
        if let Some(difference) = self.difference(after) {
            panic!("the node has changed: {difference}; the program said: {said}");
        }
    }
}

/// The settings of a device for either family in the calling thread's network namespace. One of too small an MTU has no IPv6.
fn settings(device: &str) -> String {
    let directories = ["ipv4", "ipv6"].map(|family| format!("/proc/sys/net/{family}/conf/{device}"));
    let entries = directories.iter().flat_map(|directory| fs::read_dir(directory).into_iter().flatten());
    let mut names: Vec<_> = entries.map(|entry| entry.expect("read entry").path()).collect();
    names.sort();
    let line = |name: &Path| Some(format!("{}={}", name.display(), fs::read_to_string(name).ok()?.trim()));
    names.iter().filter_map(|name| line(name)).collect::<Vec<_>>().join("\n")
}
