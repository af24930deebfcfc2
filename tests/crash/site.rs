//! Two nodes with a container each, of which the first lives through crashes.

use std::{fs, path::PathBuf, process::Command, time::Duration};

use overlay_tests::{
    cluster::{Backend, Cluster, Settings},
    node::Node,
    process::{output, wait_until},
    snapshot::Snapshot,
    traced::{Step, Traced},
    traffic::ping,
};

/// How long anything may take that must happen.
const LIMIT: Duration = Duration::from_secs(30);
/// How long a step that was there the last time is waited for when everything else is done.
const LAST_STEPS: Duration = Duration::from_secs(1);

/// What is killed behind one of its steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Doing {
    /// An agent on a node that has never had one, but for its `subnet.env`, and without a lease.
    FirstStart,
    /// An agent that takes over what a killed one has left.
    Restart,
    /// `overlay teardown` after an agent that was stopped.
    Teardown,
}

/// The cluster, and how its first node is without an agent.
pub(crate) struct Site {
    cluster: Cluster,
    before: Snapshot,
}

impl Site {
    pub(crate) fn new(backend: Backend) -> Self {
        let agent_arguments = vec!["--ip-masq".to_owned()];
        let settings = Settings { backend, agent_arguments, ..Settings::default() };
        let mut cluster = Cluster::new(&settings).unwrap();
        // As Docker does: the agent has to do something about it.
        output(cluster.nodes()[0].netns().command("iptables").args(["-P", "FORWARD", "DROP"])).unwrap();
        cluster.bring_up(&settings.network_config()).unwrap();
        one(&mut cluster).stop_agent().unwrap();
        teardown(&cluster.nodes()[0]);
        let before = Snapshot::of_node(&cluster.nodes()[0]);
        Self { cluster, before }
    }

    /// Kills what is `Doing` behind its step `last`, or when it has done all; returns the steps it has made.
    pub(crate) fn crash(&mut self, doing: Doing, last: Option<usize>) -> Vec<Step> {
        match doing {
            Doing::FirstStart => {
                let key = format!("/coreos.com/network/subnets/{}-24", self.cluster.nodes()[0].subnet().subnet());
                self.cluster.etcd().delete(&key).unwrap();
            }
            Doing::Restart => {
                self.start();
                one(&mut self.cluster).agent().kill().unwrap();
            }
            Doing::Teardown => {
                self.start();
                one(&mut self.cluster).stop_agent().unwrap();
            }
        }
        let node = &self.cluster.nodes()[0];
        let (command, log) = match doing {
            Doing::Teardown => (teardown_command(node), "teardown.log"),
            _ => (node.agent_command(), "agent.log"),
        };
        let directory = self.cluster.directory().join(log);
        let traced = Traced::start(command, &directory, last).unwrap();
        if doing == Doing::Teardown {
            return traced.wait(LIMIT).unwrap();
        }
        let text = || fs::read_to_string(&directory).unwrap();
        let past = text().matches(" ready ").count();
        wait_until("a traced agent to be ready or dead", LIMIT, || {
            traced.has_ended() || text().matches(" ready ").count() > past && node.knows(node.container().v4()).unwrap()
        })
        .unwrap_or_else(|error| panic!("{error:#}\n{}", text()));
        if last.is_some() {
            // The last steps are those behind the start.
            wait_until("the last steps", LAST_STEPS, || traced.has_ended()).ok();
        } else {
            self.pings();
        }
        traced.kill().unwrap()
    }

    /// Starts an agent, as a supervisor would, and waits until containers can talk.
    pub(crate) fn start(&mut self) {
        let node = one(&mut self.cluster);
        let subnet = node.subnet().clone();
        node.start_agent().unwrap();
        assert_eq!(*node.wait_ready().unwrap(), subnet, "the node keeps its subnet");
        node.wait_container().unwrap();
        let files = fs::read_dir(node.run_dir()).unwrap().map(|entry| entry.unwrap().path());
        let half = files.filter(|file| file.extension().is_some_and(|extension| extension == "tmp"));
        assert_eq!(half.collect::<Vec<_>>(), Vec::<PathBuf>::new(), "a half-written file is left over");
        self.cluster.wait_converged().unwrap();
        self.pings();
    }

    /// Fails unless containers can talk, in both directions.
    #[track_caller]
    pub(crate) fn pings(&self) {
        let [one, two] = self.cluster.nodes() else { panic!("not two nodes") };
        for (from, to) in [(one, two), (two, one)] {
            let answered = || ping(&from.container().netns, to.container().v4(), 1).unwrap().received == 1;
            wait_until(&format!("a ping from {} to {}", from.name(), to.name()), LIMIT, answered).unwrap();
        }
    }

    /// Fails unless a ping gets through now, whatever agents do.
    #[track_caller]
    pub(crate) fn forwards(&self) {
        let [one, two] = self.cluster.nodes() else { panic!("not two nodes") };
        let pings = ping(&one.container().netns, two.container().v4(), 1).unwrap();
        assert_eq!(pings.received, 1, "the data path has stopped");
    }

    /// Stops the agent if one runs, tears down, and fails unless the node is as it was before the first agent.
    #[track_caller]
    pub(crate) fn take_down(&mut self, behind: &str) {
        one(&mut self.cluster).stop_agent().unwrap();
        let node = &self.cluster.nodes()[0];
        teardown(node);
        self.before.assert_same(&Snapshot::of_node(node), behind);
    }
}

fn one(cluster: &mut Cluster) -> &mut Node {
    &mut cluster.nodes_mut()[0]
}

fn teardown_command(node: &Node) -> Command {
    let mut command = node.overlay();
    command.arg("teardown").arg("--run-dir").arg(node.run_dir());
    command
}

#[track_caller]
fn teardown(node: &Node) {
    output(&mut teardown_command(node)).unwrap();
}
