//! Containers come and go while others talk.

use std::{thread, time::Duration};

use overlay_tests::{
    docker::{Docker, IMAGE},
    paced::Paced,
    process::wait_until,
};

use crate::ground::{Backend, LIMIT, on_two_dockers, report};

/// How many containers come and go on each node.
const COMINGS: u32 = 50;
/// How many of them at a time.
const AT_ONCE: u32 = 2;
/// Between two packets of the stream.
const INTERVAL: Duration = Duration::from_millis(5);

#[test]
fn not_a_packet_is_lost_while_a_hundred_containers_come_and_go_and_each_talks_at_once() {
    on_two_dockers(Backend::Vxlan, |ground| {
        let containers = ground.containers().map(|container| container.container);
        let count = |node: usize| {
            let node = ground.nodes()[node];
            let links = std::fs::read_dir(node.run_dir().join("bpf/v1/links")).unwrap().count();
            (node.counters().endpoints().unwrap().len(), links)
        };
        let known = |address| ground.nodes().map(|node| node.counters().endpoints().unwrap().contains_key(&address));
        wait_until("both containers to be known", LIMIT, || {
            containers.iter().all(|container| known(container.v4()).contains(&true))
        })
        .unwrap();
        let paced = Paced::start(&containers, INTERVAL).unwrap();
        // Two programs are attached to each container.
        wait_until("all programs", LIMIT, || count(0).1 == count(1).1 && count(0).1 >= 4).unwrap();
        let before = [count(0), count(1)];

        let come_and_go = |docker: &Docker, to| {
            for _ in 0..COMINGS / AT_ONCE {
                docker.docker(&format!("run --rm {IMAGE} ping -c 1 -W 5 {to}")).unwrap();
            }
        };
        thread::scope(|scope| {
            for (docker, to) in ground.dockers.iter().zip([containers[1].v4(), containers[0].v4()]) {
                for _ in 0..AT_ONCE {
                    scope.spawn(move || come_and_go(docker, to));
                }
            }
        });
        let pairs = paced.stop().unwrap();
        for pair in &pairs {
            assert!(pair.lost.is_empty() && pair.doubled == 0 && pair.sent > 0, "{pair:?}");
        }
        wait_until("what is gone to be forgotten", LIMIT, || [count(0), count(1)] == before)
            .unwrap_or_else(|error| panic!("{error:#}: {before:?}, {:?}", [count(0), count(1)]));
        report(format_args!(
            "{} containers came, pinged across the nodes and went; {} paced packets meanwhile, 0 lost; no entry, no link left",
            2 * COMINGS,
            pairs.iter().map(|pair| pair.sent).sum::<u32>()
        ));
    });
}
