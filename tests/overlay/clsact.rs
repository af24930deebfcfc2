//! Kernels without tcx: programs are filters under clsact. `--clsact` takes that way on any kernel.

use std::fs;

use overlay_tests::{
    cluster::{Backend, Cluster, Settings},
    node::Node,
    process::output,
    sandbox::isolated,
    traffic::ping,
};

/// Disciplines and filters of the node's underlay interface, as tc shows them.
fn traffic_control(node: &Node) -> String {
    ["qdisc show dev eth0", "filter show dev eth0 ingress", "filter show dev eth0 egress"]
        .map(|arguments| output(node.netns().command("tc").args(arguments.split(' '))).unwrap())
        .concat()
}

/// How many programs `from_underlay` are filters of priority 2 on the node's underlay interface.
fn filters(node: &Node) -> usize {
    let ours = |line: &&str| line.contains("pref 2 bpf") && line.contains("from_underlay");
    traffic_control(node).lines().filter(ours).count()
}

fn tc(node: &Node, arguments: &str) {
    output(node.netns().command("tc").args(arguments.split(' '))).unwrap();
}

fn tear_down(node: &Node) {
    output(node.overlay().arg("teardown").arg("--run-dir").arg(node.run_dir())).unwrap();
}

#[track_caller]
fn assert_talk(cluster: &Cluster) {
    let [one, two] = cluster.nodes() else { panic!("two nodes") };
    for (from, to) in [(one, two), (two, one)] {
        assert_eq!(ping(&from.container().netns, to.container().v4(), 3).unwrap().received, 3);
    }
}

fn settings(backend: Backend) -> Settings {
    Settings { backend, agent_arguments: vec!["--clsact".to_owned()], ..Settings::default() }
}

#[test]
fn with_clsact_containers_talk_and_a_restarted_agent_replaces_its_filters() {
    for backend in [Backend::Udp, Backend::Vxlan] {
        isolated(|| {
            let mut cluster = Cluster::start(&settings(backend)).unwrap();
            assert_talk(&cluster);
            assert_eq!(filters(&cluster.nodes()[0]), 1);
            cluster.nodes_mut()[0].agent().kill().unwrap();
            assert_talk(&cluster);
            cluster.nodes_mut()[0].start_agent().unwrap();
            cluster.nodes_mut()[0].wait_ready().unwrap();
            assert_talk(&cluster);
            assert_eq!(filters(&cluster.nodes()[0]), 1, "{}", traffic_control(&cluster.nodes()[0]));
        });
    }
}

#[test]
fn with_clsact_teardown_leaves_what_others_have_and_nothing_of_ours_also_after_a_crash() {
    let settings = settings(Backend::Vxlan);
    isolated(|| {
        let mut cluster = Cluster::new(&settings).unwrap();
        tc(&cluster.nodes()[0], "qdisc add dev eth0 clsact");
        tc(&cluster.nodes()[0], "filter add dev eth0 ingress prio 7 protocol all u32 match u32 0 0");
        let before: Vec<_> = cluster.nodes().iter().map(traffic_control).collect();
        cluster.bring_up(&settings.network_config()).unwrap();
        assert_talk(&cluster);
        for node in cluster.nodes_mut() {
            assert_eq!(filters(node), 1);
            node.agent().kill().unwrap();
        }
        // Half is missing already.
        for entry in fs::read_dir(cluster.nodes()[1].run_dir().join("bpf/v1/links")).unwrap() {
            fs::remove_file(entry.unwrap().path()).unwrap();
        }
        for (node, before) in cluster.nodes().iter().zip(&before) {
            tear_down(node);
            assert_eq!(&traffic_control(node), before, "{}", node.name());
        }
    });
}

#[test]
fn with_clsact_two_overlays_share_an_underlay_interface() {
    isolated(|| {
        let cluster = Cluster::start(&settings(Backend::Vxlan)).unwrap();
        let node = &cluster.nodes()[0];
        let other = cluster.directory().join("other");
        fs::create_dir_all(other.join("leases")).unwrap();
        let config = r#"{"Network":"10.99.0.0/16","Backend":{"Type":"vxlan","VNI":99,"Port":8473}}"#;
        fs::write(other.join("leases/config"), config).unwrap();
        let mut second = node.start_beside(other.join("run"), &other.join("leases"), &["--clsact"]).unwrap();
        assert_eq!(filters(node), 2, "{}", traffic_control(node));
        assert_talk(&cluster);
        second.agent().kill().unwrap();
        tear_down(&second);
        assert_eq!(filters(node), 1, "{}", traffic_control(node));
        assert_talk(&cluster);
    });
}
