//! Nodes where an agent runs, or something like it.

use std::os::unix::process::CommandExt as _;

use overlay_tests::{
    cluster::{Backend, Cluster, Settings},
    for_either_backend, process,
    sandbox::isolated,
    traffic::ping,
};

use crate::ground::{Checked, USUAL, on_a_node, overlay_elsewhere};

for_either_backend! {
    fn a_running_agent_is_named_and_not_disturbed(backend) {
        isolated(|| {
            let mut cluster = Cluster::start(&Settings { backend, ..Settings::default() }).unwrap();
            let (pid, subnet) = (cluster.nodes_mut()[0].agent().pid(), cluster.nodes()[0].subnet().subnet());
            let log = cluster.nodes_mut()[0].agent().log();
            let checked = Checked::of(&cluster, USUAL);
            assert_eq!((checked.code, checked.reds()), (Some(0), vec![]), "{:#}", checked.report);
            checked.says("agent", "green", &[&format!("pid {pid}")]).says("others", "green", &[]);
            checked.says("port", "green", &[]).says("device", "green", &["is there"]).says("subnet", "green", &["our lease"]);
            assert_eq!(checked.report["agent_pid"], pid);
            assert_eq!(checked.report["choice"]["subnet"], format!("{subnet}/24"));
            assert_eq!(cluster.nodes_mut()[0].agent().log(), log, "the agent has noticed something");
            let [one, two] = cluster.nodes() else { panic!("two nodes") };
            assert_eq!(ping(&one.container().netns, two.container().v4(), 3).unwrap().received, 3);
        });
    }
}

#[test]
fn a_second_agent_and_flanneld_are_named() {
    isolated(|| {
        let mut cluster =
            Cluster::start(&Settings { nodes: 1, backend: Backend::Vxlan, ..Settings::default() }).unwrap();
        let pid = cluster.nodes_mut()[0].agent().pid();
        let elsewhere = cluster.directory().join("elsewhere");
        let mut command = cluster.nodes()[0].overlay();
        command.arg("check").args(cluster.datastore_arguments()).args(USUAL).arg("--run-dir").arg(elsewhere);
        let checked = Checked::by(&cluster, command);
        let named = format!("an agent of another run directory (pid {pid})");
        checked.says("others", "yellow", &[&named]).says("agent", "green", &["none"]);
        checked.says("device", "red", &["overlay.1 exists", "elsewhere", "--run-dir"]);
    });
    on_a_node(Backend::Vxlan, |cluster| {
        let mut sleep = cluster.nodes()[0].netns().command("sleep");
        let mut flanneld = sleep.arg0("flanneld").arg("600").spawn().unwrap();
        let named = format!("flanneld (pid {})", flanneld.id());
        // Between fork and exec it is still this test.
        process::wait_until("the process", crate::ground::LIMIT, || {
            std::fs::read(format!("/proc/{}/cmdline", flanneld.id())).unwrap().starts_with(b"flanneld\0")
        })
        .unwrap();
        Checked::of(cluster, USUAL).says("others", "yellow", &[&named]);
        flanneld.kill().unwrap();
        flanneld.wait().unwrap();
        Checked::of(cluster, USUAL).says("others", "green", &[]);
    });
}

#[test]
fn a_directory_as_datastore_is_not_made() {
    on_a_node(Backend::Vxlan, |cluster| {
        let directory = cluster.directory().join("store");
        let option = format!("file:{}", directory.display());
        let command = overlay_elsewhere(cluster, "check", &["--iface", "eth0", "--datastore", &option]);
        Checked::by(cluster, command).says("config", "red", &["overlay config set"]);
        assert!(!directory.exists());
        std::fs::create_dir(&directory).unwrap();
        std::fs::write(directory.join("config"), r#"{"Network":"10.1.0.0/16"}"#).unwrap();
        let command = overlay_elsewhere(cluster, "check", &["--iface", "eth0", "--datastore", &option]);
        let checked = Checked::by(cluster, command);
        checked.says("config", "green", &["backend udp on port 8285"]).says("subnet", "green", &["by chance"]);
        assert!(!directory.join("subnets").exists());
    });
}
