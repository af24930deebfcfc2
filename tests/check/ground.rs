//! What the tests stand on: a node without an agent, the check, and an agent with the same options.

use std::{
    process::{Command, Output},
    time::Duration,
};

use overlay_tests::{
    cluster::{Backend, Cluster, Settings},
    node::{Node, UNDERLAY_DEVICE},
    process::Process,
    sandbox::{isolated, scratch},
    snapshot::Snapshot,
};
use serde_json::Value;

/// Longer than anything takes that works.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

/// Runs `test` with a node of the given backend, whose etcd has a network config.
pub(crate) fn on_a_node(backend: Backend, test: impl FnOnce(&mut Cluster) + Send) {
    on_a_node_with(&Settings { backend, ..Settings::default() }, test);
}

pub(crate) fn on_a_node_with(settings: &Settings, test: impl FnOnce(&mut Cluster) + Send) {
    isolated(|| {
        let settings = Settings { nodes: 1, ..settings.clone() };
        let mut cluster = Cluster::new(&settings).unwrap();
        cluster.write_config(&settings.network_config()).unwrap();
        test(&mut cluster);
    });
}

/// `overlay VERB` on the first node, with the datastore that `more` names.
pub(crate) fn overlay_elsewhere(cluster: &Cluster, verb: &str, more: &[&str]) -> Command {
    let node = &cluster.nodes()[0];
    let mut command = node.overlay();
    command.arg(verb).args(more).arg("--run-dir").arg(node.run_dir());
    command.arg("--subnet-file").arg(node.subnet_file());
    command
}

/// On the usual interface.
pub(crate) const USUAL: &[&str] = &["--iface", UNDERLAY_DEVICE];

/// `overlay VERB` on the first node, with its options and more.
pub(crate) fn overlay(cluster: &Cluster, verb: &str, more: &[&str]) -> Command {
    let mut command = overlay_elsewhere(cluster, verb, more);
    command.args(cluster.datastore_arguments());
    command
}

/// What a check has said.
#[derive(Debug)]
pub(crate) struct Checked {
    pub(crate) code: Option<i32>,
    pub(crate) report: Value,
    pub(crate) log: String,
}

impl Checked {
    /// Runs the check of the first node and fails if it has changed anything there or in etcd.
    #[track_caller]
    pub(crate) fn of(cluster: &Cluster, more: &[&str]) -> Self {
        Self::by(cluster, overlay(cluster, "check", more))
    }

    #[track_caller]
    pub(crate) fn by(cluster: &Cluster, command: Command) -> Self {
        let before = Snapshot::of(cluster, &cluster.nodes()[0]);
        let checked = Self::unwatched(command);
        before.assert_same(&Snapshot::of(cluster, &cluster.nodes()[0]), &format!("{:#}", checked.report));
        checked
    }

    /// The same where there is no etcd to look into.
    #[track_caller]
    pub(crate) fn with_dead_etcd(cluster: &Cluster, more: &[&str]) -> Self {
        let before = Snapshot::of_node(&cluster.nodes()[0]);
        let checked = Self::unwatched(overlay(cluster, "check", more));
        before.assert_same(&Snapshot::of_node(&cluster.nodes()[0]), &format!("{:#}", checked.report));
        checked
    }

    #[track_caller]
    fn unwatched(mut command: Command) -> Self {
        let Output { status, stdout, stderr } = command.args(["-o", "json"]).output().unwrap();
        let log = String::from_utf8(stderr).unwrap();
        let report = serde_json::from_slice(&stdout).unwrap_or_else(|error| panic!("{error}: {log}"));
        Self { code: status.code(), report, log }
    }

    /// The findings of `check` in one state, as text.
    pub(crate) fn findings(&self, check: &str, state: &str) -> Vec<String> {
        let of = |finding: &&Value| finding["check"] == check && finding["state"] == state;
        self.report["checks"].as_array().unwrap().iter().filter(of).map(Value::to_string).collect()
    }

    /// Fails unless `check` has found this state alone, in `words`.
    #[track_caller]
    pub(crate) fn says(&self, check: &str, state: &str, words: &[&str]) -> &Self {
        let found = self.findings(check, state);
        let all = self.report["checks"].as_array().unwrap().iter().filter(|finding| finding["check"] == check).count();
        assert!(all == 1 && found.len() == 1, "{check} is not {state}: {:#}", self.report);
        for word in words {
            assert!(found[0].contains(word), "no {word:?} in {}", found[0]);
        }
        let advice = &self.report["checks"].as_array().unwrap().iter().find(|f| f["check"] == check).unwrap()["advice"];
        assert_eq!(advice.is_string(), state != "green", "what to do: {}", found[0]);
        self
    }

    /// Fails unless the one finding of `check` that speaks of `subject` has this state, in `words`.
    #[track_caller]
    pub(crate) fn says_of(&self, subject: &str, check: &str, state: &str, words: &[&str]) -> &Self {
        let speaks = |finding: &&Value| {
            finding["check"] == check && finding["found"].as_str().is_some_and(|found| found.contains(subject))
        };
        let found: Vec<_> = self.report["checks"].as_array().unwrap().iter().filter(speaks).collect();
        assert!(
            found.len() == 1 && found[0]["state"] == state,
            "{check} of {subject} is not {state}: {:#}",
            self.report
        );
        for word in words {
            assert!(found[0].to_string().contains(word), "no {word:?} in {}", found[0]);
        }
        self
    }

    /// The names of the checks that are red.
    pub(crate) fn reds(&self) -> Vec<&str> {
        let checks = self.report["checks"].as_array().unwrap().iter();
        checks.filter(|finding| finding["state"] == "red").map(|finding| finding["check"].as_str().unwrap()).collect()
    }
}

/// Checks the first node, and then starts an agent with the same options: it must start if no check is red, and refuse if
/// one is. `red` names the one that has to be.
#[track_caller]
pub(crate) fn agree(cluster: &Cluster, more: &[&str], red: Option<&str>) -> Checked {
    agree_by(cluster, &|verb| overlay(cluster, verb, more), red)
}

#[track_caller]
pub(crate) fn agree_by(cluster: &Cluster, command: &dyn Fn(&str) -> Command, red: Option<&str>) -> Checked {
    let checked = Checked::by(cluster, command("check"));
    assert_eq!(checked.reds(), Vec::from_iter(red), "{:#}", checked.report);
    assert_eq!(checked.code, Some(i32::from(red.is_some())));
    assert_eq!(checked.report["can_run"], red.is_none());
    let directory = tempfile::tempdir_in(scratch()).unwrap();
    let mut agent = Process::spawn("the agent", command("agent"), &directory.path().join("log")).unwrap();
    if red.is_some() {
        assert_eq!(agent.wait(LIMIT).unwrap().code(), Some(1), "{}", agent.log());
    } else {
        let log = directory.path().join("log");
        let ready = || Ok(std::fs::read_to_string(&log)?.contains(" ready ").then_some(()));
        agent.wait_ready("the agent to be ready", LIMIT, ready).unwrap();
        agent.signal(nix::sys::signal::Signal::SIGTERM).unwrap();
        assert!(agent.wait(LIMIT).unwrap().success(), "{}", agent.log());
        clean(&cluster.nodes()[0]);
    }
    checked
}

/// Takes an agent's data path away.
#[track_caller]
pub(crate) fn clean(node: &Node) {
    let done = node.overlay().arg("teardown").arg("--run-dir").arg(node.run_dir()).output().unwrap();
    assert!(done.status.success(), "{done:?}");
    // It goes with what was in it; the tests put their logs there.
    std::fs::create_dir_all(node.run_dir()).unwrap();
}
