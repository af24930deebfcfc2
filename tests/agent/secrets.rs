//! Nobody learns etcd's password: not by `ps`, not from logs at their most talkative.

use std::{fs, path::Path, process::Command};

use overlay_tests::{
    cluster::Cluster,
    process::{Process, wait_until},
    sandbox::{isolated, scratch},
};

use crate::{
    ground::{LIMIT, NETWORK, settings},
    users,
};

/// Starts `command` with all of its log; returns it once its command line shows no password any more.
#[track_caller]
fn start_discreetly(name: &str, mut command: Command) -> Process {
    command.env("RUST_LOG", "trace");
    let process = Process::spawn(name, command, &scratch().join(format!("{name}.log"))).unwrap();
    let cmdline = Path::new("/proc").join(process.pid().to_string()).join("cmdline");
    let shown = || String::from_utf8(fs::read(&cmdline).unwrap()).unwrap();
    let hidden = "x".repeat(users::PASSWORD.len());
    wait_until("the password to be hidden", LIMIT, || shown().contains(&hidden)).unwrap();
    assert!(!shown().contains(users::PASSWORD), "{}", shown());
    // What is not secret can still be seen.
    assert!(shown().contains("etcd-username\0overlay\0"), "{}", shown());
    process
}

#[track_caller]
fn assert_discreet(process: &Process) {
    let log = process.log();
    assert!(log.contains("TRACE") && !log.contains(users::PASSWORD), "{log}");
}

#[test]
fn an_agents_password_is_seen_neither_by_ps_nor_in_its_log() {
    isolated(|| {
        let cluster = Cluster::new(&settings(1)).unwrap();
        cluster.write_config(NETWORK).unwrap();
        users::require(cluster.etcd(), "overlay");
        let node = &cluster.nodes()[0];
        let mut command = node.agent_command();
        command.args(["-etcd-username", "overlay"]).arg(format!("-etcd-password={}", users::PASSWORD));
        let mut agent = start_discreetly("agent", command);
        agent.wait_ready("its subnet.env", LIMIT, || Ok(node.subnet_file().exists().then_some(()))).unwrap();
        assert_discreet(&agent);
    });
}

#[test]
fn an_operators_password_is_seen_neither_by_ps_nor_in_a_log() {
    isolated(|| {
        let mut cluster = Cluster::new(&settings(1)).unwrap();
        cluster.write_config(NETWORK).unwrap();
        users::require(cluster.etcd(), "overlay");
        let mut command = cluster.nodes()[0].overlay();
        command.args(["config", "get"]).args(cluster.datastore_arguments()).args(users::options("overlay"));
        // So that there is time to look at it.
        cluster.etcd_mut().pause().unwrap();
        let mut config = start_discreetly("config", command);
        cluster.etcd_mut().resume().unwrap();
        assert!(config.wait(LIMIT).unwrap().success(), "{}", config.log());
        assert!(config.log().contains("10.1.0.0/16"), "{}", config.log());
        assert_discreet(&config);
        // A line that is refused repeats no password.
        let mut refused = cluster.nodes()[0].overlay();
        let output =
            refused.args(["config", "get", "--etcd-password", users::PASSWORD, "--nonsense"]).output().unwrap();
        assert!(!output.status.success());
        assert!(!String::from_utf8(output.stderr).unwrap().contains(users::PASSWORD));
    });
}
