//! Two overlays on the same nodes: both carry traffic, and one goes without the other noticing.

use std::{fs, path::Path};

use overlay_tests::{
    cluster::{Backend, Cluster},
    node::{Container, Node},
    process::wait_until,
    sandbox::{isolated, scratch},
    two_nodes::{settings, two},
};

use crate::{
    leaving::teardown,
    restarts::{LIMIT, terminate},
    watch::{Traffic, USUAL, pass},
};

const OTHER_NETWORK: &str = r#"{"Network":"10.2.0.0/16","Backend":{"Type":"vxlan","VNI":2,"Port":8473}}"#;
const LIBERAL: &str = "/proc/sys/net/netfilter/nf_conntrack_tcp_be_liberal";

/// Brings up another overlay on `node`, with leases in `datastore`, and a container on a bridge of its own.
fn beside(node: &Node, datastore: &Path) -> (Node, Container) {
    let other = node.start_beside(scratch().join(format!("other-{}", node.name())), datastore, &[]).unwrap();
    let container = Container::on_bridge_of(other.netns(), other.subnet(), "other", "other-c").unwrap();
    other.wait_endpoint(container.v4()).unwrap();
    (other, container)
}

fn tear_down(node: &mut Node) {
    terminate(node);
    teardown(node);
}

fn conntrack_is_liberal(node: &Node) -> bool {
    node.netns().run(|| fs::read_to_string(LIBERAL).unwrap().trim() == "1")
}

#[test]
fn two_overlays_talk_side_by_side_and_no_packet_is_lost_when_one_is_torn_down() {
    isolated(|| {
        let cluster = Cluster::start(&settings(Backend::Vxlan)).unwrap();
        let datastore = scratch().join("other");
        fs::create_dir_all(&datastore).unwrap();
        fs::write(datastore.join("config"), OTHER_NETWORK).unwrap();
        let [(mut one, here), (mut another, there)] = two(&cluster).map(|node| beside(node, &datastore));
        let stays = Traffic::between(two(&cluster).map(Node::container));
        let goes = Traffic::between([&here, &there]);
        pass(USUAL);
        goes.judge();
        for other in [&mut one, &mut another] {
            tear_down(other);
            assert!(other.netns().ip("link show overlay.2").is_err(), "the other overlay's device has stayed");
            assert!(conntrack_is_liberal(other), "the overlay that stays has approved flows");
        }
        pass(USUAL);
        stays.judge();
    });
}

#[test]
fn conntrack_is_set_back_with_the_last_overlay_only() {
    isolated(|| {
        let mut cluster = Cluster::start(&settings(Backend::Vxlan)).unwrap();
        let node = &mut cluster.nodes_mut()[0];
        wait_until("conntrack to be told", LIMIT, || conntrack_is_liberal(node)).unwrap();
        node.netns().ip("link add overlay.2 type vxlan id 2 dstport 8473").unwrap();
        tear_down(node);
        assert!(conntrack_is_liberal(node), "overlay.2 is still there");

        node.netns().sysctl("net.netfilter.nf_conntrack_tcp_be_liberal", "0").unwrap();
        node.netns().ip("link del overlay.2").unwrap();
        fs::create_dir_all(node.run_dir()).unwrap();
        node.start_agent().unwrap();
        wait_until("conntrack to be told", LIMIT, || conntrack_is_liberal(node)).unwrap();
        tear_down(node);
        assert!(!conntrack_is_liberal(node), "no overlay is left");
    });
}
