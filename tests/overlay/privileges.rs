//! The agent needs the capabilities that the package's unit gives it, all of them and no others; what it leaves is root's.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, chown},
    path::{Path, PathBuf},
    time::Duration,
};

use nix::{
    mount::{MsFlags, mount},
    sys::signal::Signal,
};
use overlay_tests::{
    cluster::{Backend, Cluster, agent_program},
    for_either_backend,
    node::Node,
    process::{self, Process},
    sandbox::{isolated, scratch},
    traffic::ping,
    two_nodes,
};

use crate::refusals::{assert_names, one_node, refusal};

/// Longer than an agent takes to start or to stop.
const LIMIT: Duration = Duration::from_secs(20);

/// What the unit gives the agent.
fn granted() -> Vec<&'static str> {
    let unit = include_str!("../../packaging/systemd/overlay.service");
    let line = unit.lines().find_map(|line| line.strip_prefix("CapabilityBoundingSet=")).unwrap();
    line.split_whitespace().collect()
}

/// A program that is `overlay` as root with these capabilities alone.
fn overlay_with(capabilities: &[&str]) -> PathBuf {
    let set: String =
        capabilities.iter().map(|name| format!(",+{}", name.strip_prefix("CAP_").unwrap().to_lowercase())).collect();
    let path = scratch().join(format!("overlay-with{}", set.replace(",+", "-")));
    let program = agent_program().unwrap();
    let script = format!(
        "#!/bin/sh\nexec setpriv --no-new-privs --inh-caps=-all --bounding-set=-all{set} {} \"$@\"\n",
        program.display()
    );
    fs::write(&path, script).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// Mounts the bpffs of the run directory, as `run-overlay-bpf.mount` does it.
fn mount_bpffs(node: &Node) {
    let path = node.run_dir().join("bpf");
    fs::create_dir(&path).unwrap();
    mount(Some("bpf"), &path, Some("bpf"), MsFlags::empty(), Some("mode=0700")).unwrap();
}

/// Starts both agents, anew or for the first time, and fails unless the containers talk and no agent has warned of anything.
#[track_caller]
fn assert_works(cluster: &mut Cluster) {
    for node in cluster.nodes_mut() {
        node.start_agent().unwrap();
        node.wait_ready().unwrap();
        // It outlives the agent.
        if !node.netns().ip("link").unwrap().contains("br0") {
            node.add_container().unwrap();
        }
    }
    cluster.wait_converged().unwrap();
    for node in cluster.nodes_mut() {
        node.wait_container().unwrap();
        let log = node.agent().log();
        assert!(!log.contains("WARN"), "{log}");
    }
    let [one, two] = two_nodes::two(cluster);
    for (from, to) in [(one, two), (two, one)] {
        let pings = ping(&from.container().netns, to.container().v4(), 3).unwrap();
        assert_eq!(pings.received, 3, "to {}", to.name());
    }
}

for_either_backend! {
    /// Legacy iptables is in use, and its rules are needed.
    fn with_the_units_capabilities_alone_an_agent_does_all_its_work(backend) {
        isolated(|| {
            let mut settings = two_nodes::settings(backend);
            settings.agent_arguments.push("--ip-masq".to_owned());
            let mut cluster = Cluster::new(&settings).unwrap();
            cluster.write_config(&settings.network_config()).unwrap();
            let overlay = overlay_with(&granted());
            for node in cluster.nodes_mut() {
                mount_bpffs(node);
                node.set_program(&overlay);
                process::output(node.netns().command("iptables-legacy").args(["-P", "FORWARD", "DROP"])).unwrap();
            }
            assert_works(&mut cluster);
            for node in cluster.nodes_mut() {
                assert!(node.stop_agent().unwrap().success());
            }
            assert_works(&mut cluster);
            let node = &mut cluster.nodes_mut()[0];
            node.agent().kill().unwrap();
            process::output(node.overlay().arg("teardown").arg("--run-dir").arg(node.run_dir())).unwrap();
            assert!(!node.netns().ip("link").unwrap().contains("overlay."), "the device is still there");
        });
    }
}

/// Gives the agent a file that only another user may read, as certificates often are.
fn another_users(file: &Path) {
    fs::write(file, "").unwrap();
    fs::set_permissions(file, fs::Permissions::from_mode(0o600)).unwrap();
    chown(file, Some(65534), Some(65534)).unwrap();
}

#[test]
fn each_capability_that_is_missing_is_named_before_anything_is_taken() {
    isolated(|| {
        let mut cluster = one_node();
        cluster.write_config(r#"{"Network":"10.1.0.0/16"}"#).unwrap();
        let node = &mut cluster.nodes_mut()[0];
        node.set_program(&overlay_with(&granted()));
        let said = refusal(&cluster, cluster.nodes()[0].agent_command());
        assert_names(&said, &["CAP_SYS_ADMIN", "bpffs"]);

        mount_bpffs(&cluster.nodes()[0]);
        let certificate = scratch().join("ca.pem");
        another_users(&certificate);
        for missing in granted() {
            let rest: Vec<_> = granted().into_iter().filter(|name| *name != missing).collect();
            cluster.nodes_mut()[0].set_program(&overlay_with(&rest));
            let node = &cluster.nodes()[0];
            let mut agent = node.agent_command();
            agent.args(["--etcd-endpoints", "https://192.0.2.1:2379", "--etcd-cafile"]).arg(&certificate);
            let said = refusal(&cluster, agent);
            assert_names(&said, &[missing]);
            for other in &rest {
                assert!(!said.contains(other), "{other} is there: {said}");
            }
            if missing != "CAP_DAC_READ_SEARCH" {
                assert_names(&said, &["this process lacks"]);
                let mut check = node.overlay();
                check.args(["check", "--iface", "eth0", "--run-dir"]).arg(node.run_dir());
                let found = check.args(cluster.datastore_arguments()).output().unwrap();
                let found = String::from_utf8(found.stdout).unwrap();
                let line = said.trim_start_matches("overlay: ");
                let red = found.lines().find(|found| found.contains("privileges")).unwrap_or_default();
                assert!(red.contains(" red ") && red.contains(line), "{said}: {found}");
            }
        }
    });
}

/// Every file, socket and directory below `path`, and its mode.
fn modes(path: &Path, found: &mut Vec<(PathBuf, u32)>) {
    for entry in fs::read_dir(path).unwrap() {
        let path = entry.unwrap().path();
        let kind = path.symlink_metadata().unwrap();
        found.push((path.clone(), kind.permissions().mode() & 0o777));
        if kind.is_dir() {
            modes(&path, found);
        }
    }
}

/// Starts an agent with this umask and a run directory of its own; returns it, and that directory.
fn agent_with_umask(cluster: &Cluster, umask: &str, more: &[&str]) -> (Process, PathBuf) {
    let node = &cluster.nodes()[0];
    let directory = scratch().join(umask);
    let (run_dir, subnet_file) = (directory.join("run/overlay"), directory.join("flannel/subnet.env"));
    fs::create_dir(&directory).unwrap();
    let agent = node.agent_command();
    let mut command = node.netns().command("sh");
    command.args(["-c", "umask $0; exec \"$@\"", umask]).arg(agent.get_program()).args(agent.get_args()).args(more);
    command.arg("--run-dir").arg(&run_dir).arg("--subnet-file").arg(&subnet_file);
    let mut agent = Process::spawn("the agent", command, &directory.join("log")).unwrap();
    agent.wait_ready("its subnet.env", LIMIT, || Ok(subnet_file.exists().then_some(()))).unwrap();
    (agent, run_dir)
}

#[test]
fn what_an_agent_leaves_is_for_root_alone_whatever_the_umask_is() {
    isolated(|| {
        let cluster = one_node();
        cluster.write_config(r#"{"Network":"10.1.0.0/16"}"#).unwrap();
        // The second agent's programs are filters: those have notes.
        for (umask, more) in [("0000", &[][..]), ("0022", &["--clsact"])] {
            let (mut agent, run_dir) = agent_with_umask(&cluster, umask, more);
            let mut found = Vec::new();
            modes(run_dir.parent().unwrap(), &mut found);
            for name in ["agent.sock", "agent.lock", "device", "conntrack", "ROUTES", "links"] {
                assert!(found.iter().any(|(path, _)| path.ends_with(name)), "no {name} in {found:?}");
            }
            assert_eq!(found.iter().any(|(path, _)| path.ends_with("clsact")), !more.is_empty());
            found.retain(|(path, mode)| mode & !if path.is_dir() { 0o700 } else { 0o600 } != 0);
            assert!(found.is_empty(), "with umask {umask}: {found:?}");
            // Docker and CNI read this one.
            let mut found = Vec::new();
            modes(&run_dir.ancestors().nth(2).unwrap().join("flannel"), &mut found);
            assert_eq!(found.iter().map(|(_, mode)| *mode).collect::<Vec<_>>(), [0o644]);
            others_are_told(&cluster, &run_dir);
            agent.signal(Signal::SIGTERM).unwrap();
            assert!(agent.wait(LIMIT).unwrap().success());
            let mut teardown = cluster.nodes()[0].overlay();
            process::output(teardown.arg("teardown").arg("--run-dir").arg(&run_dir)).unwrap();
        }
    });
}

/// Commands of a user who is not root: those on pins are refused in a line each, the datastore's work.
#[track_caller]
fn others_are_told(cluster: &Cluster, run_dir: &Path) {
    let node = &cluster.nodes()[0];
    let program = scratch().join("overlay");
    if !program.exists() {
        // Where cargo put it, others may not be able to reach it.
        fs::copy(agent_program().unwrap(), &program).unwrap();
    }
    let run = |line: &str, more: &[String]| {
        let mut command = node.netns().command("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&program).args(line.split(' '));
        command.arg("--run-dir").arg(run_dir).args(more).output().unwrap()
    };
    for line in ["status", "map list", "map dump ROUTES", "trace 10.1.1.1 10.1.2.2", "teardown"] {
        let output = run(line, &[]);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), said.lines().count()), (Some(1), 1), "{line}: {said}");
        assert_names(&said, &["run it as root"]);
    }
    for line in ["config get", "lease list"] {
        let output = run(line, &cluster.datastore_arguments());
        assert!(output.status.success() && output.stderr.is_empty(), "{line}: {output:?}");
    }
}
