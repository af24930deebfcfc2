//! Containers that come and go, several at once as a runtime has them, leave nothing behind.

use std::thread;

use overlay_tests::{cluster::Backend, node::Node, traffic::ping};
use serde_json::json;

use crate::{
    networks::{Delegate, Writer, runtime},
    pods::on_two_nodes,
    runtime::{Pod, Runtime},
    state::State,
};

/// Connects a container, has it and `there` reach each other, and disconnects it.
fn live(runtime: &Runtime<'_>, id: &str, there: &Pod, ends_first: bool) {
    let mut pod = Pod::new(id);
    runtime.add(&mut pod).unwrap();
    // At once: whether the agent knows it yet or not.
    for (from, to) in [(&pod, there), (there, &pod)] {
        assert_eq!(ping(from.netns(), to.address(), 1).unwrap().received, 1, "{} to {}", from.id, to.id);
    }
    if ends_first {
        pod.netns = None;
    }
    runtime.del(&pod).unwrap();
}

/// Lets containers come and go on the first node, `at_once` at a time: on the bridge and behind host routes, deleted
/// while they live and when they have ended.
fn come_and_go(rounds: u32, at_once: u32) {
    on_two_nodes(Backend::Vxlan, &["--ip-masq"], |cluster| {
        let [one, two] = cluster.nodes() else { panic!("two nodes") };
        let there = runtime(two, Writer::Overlay, Delegate::Bridge).pod("there", json!([]));
        let runtimes = [Delegate::Bridge, Delegate::Ptp].map(|delegate| runtime(one, Writer::Overlay, delegate));
        let before = State::after_first(&runtimes[0], &json!([]));
        for round in 0..rounds {
            thread::scope(|scope| {
                for number in 0..at_once {
                    let (runtime, there) = (&runtimes[usize::from(number % 2 == 1)], &there);
                    scope.spawn(move || live(runtime, &format!("pod-{round}-{number}"), there, number % 4 > 1));
                }
            });
            before.wait(one, &format!("round {round}"));
        }
        assert_no_drops([one, two]);
    });
}

fn assert_no_drops(nodes: [&Node; 2]) {
    for node in nodes {
        assert_eq!(node.counters().drops().unwrap(), [], "on {}", node.name());
    }
}

#[test]
fn fifty_containers_that_come_and_go_leave_nothing_behind() {
    come_and_go(5, 10);
}

#[test]
#[ignore = "long"]
fn a_thousand_containers_that_come_and_go_leave_nothing_behind() {
    come_and_go(50, 20);
}
