//! What the fast path asks of conntrack, and that teardown takes it back.

use std::fs;

use overlay_tests::{
    cluster::{Backend, Cluster, Settings},
    node::Node,
    process::{output, wait_until},
    sandbox::isolated,
};

use crate::ground::{LIMIT, settings};

const BE_LIBERAL: &str = "/proc/sys/net/netfilter/nf_conntrack_tcp_be_liberal";

fn be_liberal(node: &Node) -> String {
    node.netns().run(|| fs::read_to_string(BE_LIBERAL)).unwrap().trim().to_owned()
}

#[test]
fn conntrack_is_liberal_while_there_is_a_fast_path_and_afterwards_as_it_was_before_the_first_agent() {
    for before in ["0", "1"] {
        isolated(|| {
            let settings = Settings { nodes: 1, ..settings(Backend::Vxlan) };
            let mut cluster = Cluster::new(&settings).unwrap();
            cluster.write_config(&settings.network_config()).unwrap();
            let node = &mut cluster.nodes_mut()[0];
            node.netns().sysctl("net.netfilter.nf_conntrack_tcp_be_liberal", before).unwrap();
            // The second agent finds what the first has set.
            for _ in 0..2 {
                node.start_agent().unwrap();
                node.wait_ready().unwrap();
                wait_until("conntrack to be liberal", LIMIT, || be_liberal(node) == "1").unwrap();
                node.stop_agent().unwrap();
            }
            assert_eq!(be_liberal(node), "1", "the data path goes on");
            output(node.overlay().args(["teardown", "--run-dir"]).arg(node.run_dir())).unwrap();
            assert_eq!(be_liberal(node), before);
        });
    }
}
