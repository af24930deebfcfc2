//! What an agent leaves behind when it goes, and what teardown makes of it.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
};

use overlay_tests::{
    cluster::{Backend, Cluster, Settings},
    node::Node,
    process::output,
    sandbox::isolated,
    snapshot::Snapshot,
    traffic::ping,
    two_nodes::{settings, two},
};

/// A node with an agent that masquerades and has `arguments`, and what the node was before.
fn brought_up(backend: Backend, arguments: &[&str]) -> (Cluster, Snapshot) {
    brought_up_by(backend, arguments, |_| {})
}

/// The same, once `prepare` has done something about the cluster.
fn brought_up_by(backend: Backend, arguments: &[&str], prepare: fn(&mut Cluster)) -> (Cluster, Snapshot) {
    let agent_arguments = ["--ip-masq"].iter().chain(arguments).map(|&argument| argument.to_owned()).collect();
    let settings = Settings { nodes: 1, agent_arguments, ..settings(backend) };
    let mut cluster = Cluster::new(&settings).unwrap();
    prepare(&mut cluster);
    let before = Snapshot::of_node(&cluster.nodes()[0]);
    cluster.bring_up_agents(&settings.network_config()).unwrap();
    (cluster, before)
}

/// Fails unless the node is as it was, but for what the test and the harness keep in its run directory.
#[track_caller]
pub(crate) fn assert_nothing_left(node: &Node, before: &Snapshot, said: &str) {
    for file in ["agent.log", "subnet.env"] {
        fs::remove_file(node.run_dir().join(file)).unwrap();
    }
    before.assert_same(&Snapshot::of_node(node), said);
}

pub(crate) fn teardown(node: &Node) -> String {
    output(node.overlay().arg("teardown").arg("--run-dir").arg(node.run_dir())).unwrap()
}

#[test]
fn an_agent_that_is_stopped_says_that_the_data_path_goes_on() {
    isolated(|| {
        let mut cluster = Cluster::start(&settings(Backend::Vxlan)).unwrap();
        let node = &mut cluster.nodes_mut()[0];
        let lines = node.agent().log().lines().count();
        assert!(node.stop_agent().unwrap().success());
        let log = node.agent().log();
        let last: Vec<_> = log.lines().skip(lines).collect();
        assert!(
            matches!(last[..], [line] if line.contains("the data path goes on forwarding until `overlay teardown`")),
            "{last:?}"
        );
        let [one, two] = two(&cluster);
        assert_eq!(ping(&one.container().netns, two.container().v4(), 2).unwrap().received, 2);
    });
}

/// Gives the first node an agent whose `nft` returns long after the kernel has told others of the change.
fn with_slow_nft(cluster: &mut Cluster) {
    let directory = cluster.directory().to_owned();
    let node = &mut cluster.nodes_mut()[0];
    let overlay = node.agent_command().get_program().display().to_string();
    let script = |name: &str, lines: &str| {
        let path = directory.join(name);
        fs::write(&path, format!("#!/bin/sh\n{lines}\n")).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        path
    };
    // Listings are quick.
    script("nft", r#"PATH=${PATH#*:} nft "$@"; code=$?; case "$*" in *list*) ;; *) sleep 0.5 ;; esac; exit $code"#);
    node.set_program(&script("overlay", &format!(r#"PATH={}:$PATH exec {overlay} "$@""#, directory.display())));
}

#[test]
fn an_agent_with_teardown_on_exit_takes_everything_along() {
    for prepare in [|_: &mut Cluster| {}, with_slow_nft] {
        isolated(|| {
            let (mut cluster, before) = brought_up_by(Backend::Vxlan, &["--teardown-on-exit"], prepare);
            let node = &mut cluster.nodes_mut()[0];
            assert!(node.stop_agent().unwrap().success());
            let log = node.agent().log();
            assert!(log.lines().last().unwrap().contains("nothing is left on this node"), "{log}");
            assert_nothing_left(node, &before, &log);
        });
    }
}

#[test]
fn teardown_after_a_crash_leaves_nothing_and_can_be_done_twice() {
    for backend in [Backend::Udp, Backend::Vxlan] {
        isolated(|| {
            let (mut cluster, before) = brought_up(backend, &[]);
            let node = &mut cluster.nodes_mut()[0];
            node.agent().kill().unwrap();
            let said = teardown(node) + &teardown(node);
            assert_nothing_left(node, &before, &said);
        });
    }
}

#[test]
fn teardown_takes_away_what_is_left_when_half_of_it_is_missing() {
    let damages: [fn(&Node); 6] = [
        |node| drop(node.netns().ip("link del overlay.1").unwrap()),
        |node| drop(output(node.netns().command("nft").args(["flush", "ruleset"])).unwrap()),
        |node| fs::remove_dir_all(node.run_dir().join("bpf/v1/links")).unwrap(),
        |node| fs::remove_dir_all(node.run_dir().join("bpf/v1/maps")).unwrap(),
        |node| fs::remove_dir_all(node.run_dir().join("bpf/v1")).unwrap(),
        |node| drop(output(node.netns().command("umount").arg(node.run_dir().join("bpf"))).unwrap()),
    ];
    for (number, damage) in damages.into_iter().enumerate() {
        isolated(|| {
            println!("damage {number}");
            let (mut cluster, before) = brought_up(Backend::Vxlan, &[]);
            let node = &mut cluster.nodes_mut()[0];
            node.agent().kill().unwrap();
            damage(node);
            assert_nothing_left(node, &before, &teardown(node));
        });
    }
}
