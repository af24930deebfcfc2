//! What the tests share.

use overlay_tests::{
    cluster::{Backend, Cluster, Settings},
    families::Families,
    node::Node,
    sandbox::isolated,
    traffic::{Flow, ping},
};

/// `nodes` nodes with vxlan.
pub(crate) fn settings(nodes: u8, overlay: Families, underlay: Families) -> Settings {
    Settings { nodes, backend: Backend::Vxlan, overlay, underlay, ..Settings::default() }
}

/// Runs `test` on a cluster, with a container on each node.
pub(crate) fn on_cluster(settings: &Settings, test: impl FnOnce(&mut Cluster) + Send) {
    isolated(|| {
        let mut cluster = Cluster::start(settings).unwrap();
        test(&mut cluster);
    });
}

/// Every container pings every other at each of its addresses, and exchanges UDP packets and a TCP stream with it.
#[track_caller]
pub(crate) fn all_talk(nodes: &[Node]) {
    for from in nodes {
        for to in nodes.iter().filter(|to| to.name() != from.name()) {
            for &address in &to.container().addresses {
                let (from, to) = (&from.container().netns, &to.container().netns);
                assert_eq!(ping(from, address, 2).unwrap().received, 2, "pings to {address}");
                let flow = Flow::new(from, to, address);
                assert_eq!(flow.udp_echo(3, 1000).unwrap(), 3, "UDP packets to {address}");
                flow.tcp_transfer(2 << 20).unwrap_or_else(|error| panic!("TCP to {address}: {error:#}"));
            }
        }
    }
}

/// The overlay devices of a node, by name.
pub(crate) fn devices(node: &Node) -> Vec<String> {
    let links = node.netns().ip("-o link show").unwrap();
    let names = links.lines().filter_map(|line| line.split(": ").nth(1)).filter(|name| name.starts_with("overlay"));
    let mut names: Vec<_> = names.map(str::to_owned).collect();
    names.sort();
    names
}
