//! Agents that are killed, stopped, away and started again, on one node after the other.

use std::{collections::BTreeMap, fs, time::Duration};

use nix::sys::signal::Signal;
use overlay_tests::{
    attached::{Link, links},
    cluster::{Backend, Cluster},
    for_either_backend,
    node::Node,
    process::wait_until,
    sandbox::scratch,
    two_nodes::settings,
};

use crate::watch::{pass, without_loss};

/// Longer than anything in the data path counts, the approval of flows (2 s) being the longest: what goes on until then goes
/// on for an hour.
const AWAY: Duration = Duration::from_secs(6);
pub(crate) const LIMIT: Duration = Duration::from_secs(20);

/// Does `end` to the agent of each node in turn, waits for `away`, and starts it again.
fn restart_each(cluster: &mut Cluster, end: impl Fn(&mut Node), away: Duration) {
    for node in cluster.nodes_mut() {
        end(node);
        pass(away);
        start(node);
    }
}

/// Starts an agent and waits until it has put programs of its own into every link that it has found.
pub(crate) fn start(node: &mut Node) {
    let before = links(node.run_dir()).unwrap();
    start_over(node, &before);
}

/// The same with the links that were `before`.
pub(crate) fn start_over(node: &mut Node, before: &BTreeMap<String, Link>) {
    let subnet = node.subnet().clone();
    node.start_agent().unwrap();
    assert_eq!(*node.wait_ready().unwrap(), subnet, "the node keeps its subnet");
    let all_replaced = || {
        let now = links(node.run_dir()).unwrap();
        before.iter().all(|(name, old)| now.get(name).is_some_and(|new| new.program != old.program))
    };
    wait_until(&format!("new programs on {}", node.name()), LIMIT, all_replaced).unwrap();
    let now = links(node.run_dir()).unwrap();
    for (name, old) in before {
        assert_eq!(now[name].id, old.id, "{name} is still the link that it was: it was never without a program");
    }
}

fn kill(node: &mut Node) {
    node.agent().kill().unwrap();
}

pub(crate) fn terminate(node: &mut Node) {
    let status = node.stop_agent().unwrap();
    assert!(status.success(), "{status}");
}

for_either_backend! {
    fn no_packet_is_lost_when_agents_are_killed_and_started_again(backend) {
        without_loss(&settings(backend), |cluster| restart_each(cluster, kill, Duration::ZERO));
    }
}

#[test]
fn no_packet_is_lost_when_agents_are_stopped_and_started_again() {
    without_loss(&settings(Backend::Vxlan), |cluster| restart_each(cluster, terminate, Duration::ZERO));
}

#[test]
fn no_packet_is_lost_while_no_agent_runs() {
    without_loss(&settings(Backend::Vxlan), |cluster| {
        cluster.nodes_mut().iter_mut().for_each(terminate);
        pass(AWAY);
        cluster.nodes_mut().iter_mut().for_each(start);
    });
}

#[test]
fn no_packet_is_lost_when_an_agent_is_killed_at_any_moment_of_its_start() {
    without_loss(&settings(Backend::Vxlan), |cluster| {
        for delay in (0..400).step_by(40).map(Duration::from_millis) {
            let node = &mut cluster.nodes_mut()[0];
            node.agent().signal(Signal::SIGKILL).unwrap();
            node.agent().wait(LIMIT).unwrap();
            node.start_agent().unwrap();
            pass(delay);
        }
        kill(&mut cluster.nodes_mut()[0]);
        start(&mut cluster.nodes_mut()[0]);
    });
}

#[test]
fn no_packet_is_lost_when_another_program_file_takes_over() {
    without_loss(&settings(Backend::Vxlan), |cluster| {
        let newer = scratch().join("overlay-newer");
        fs::copy(cluster.nodes()[0].overlay().get_program(), &newer).unwrap();
        for node in cluster.nodes_mut() {
            terminate(node);
            node.set_program(&newer);
            start(node);
        }
    });
}
