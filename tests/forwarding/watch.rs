//! What watches the data path while something happens to agents: every packet has a number and is missed when it is lost.

use std::{
    thread,
    time::{Duration, Instant},
};

use overlay_tests::{
    cluster::{Cluster, Settings},
    node::{Container, Node},
    paced::{Paced, Pair},
    sandbox::isolated,
    steady::Steady,
    traffic::Flow,
    two_nodes::two,
};

/// 10,000 packets a second, in each direction.
const INTERVAL: Duration = Duration::from_micros(100);
/// A moment of traffic before and after, with everything as usual: long enough for flows to be approved and renewed.
pub(crate) const USUAL: Duration = Duration::from_millis(2500);

/// Brings up a cluster, does `what` to it while its first two containers talk, and fails when a single packet is lost
/// or doubled, or TCP has to send a segment twice.
#[track_caller]
pub(crate) fn without_loss(settings: &Settings, what: impl FnOnce(&mut Cluster) + Send) {
    isolated(|| {
        let mut cluster = Cluster::start(settings).unwrap();
        let traffic = Traffic::between(two(&cluster).map(Node::container));
        pass(USUAL);
        what(&mut cluster);
        pass(USUAL);
        for node in cluster.nodes() {
            println!("{}: drops {:?}", node.name(), node.counters().drops().unwrap());
        }
        traffic.judge();
    });
}

/// Lets time pass in which nothing but traffic happens.
pub(crate) fn pass(time: Duration) {
    let start = Instant::now();
    while start.elapsed() < time {
        thread::sleep(time.saturating_sub(start.elapsed()));
    }
}

/// Numbered packets both ways between two containers, and a TCP connection each way.
pub(crate) struct Traffic {
    paced: Paced,
    steady: [Steady; 2],
}

impl Traffic {
    pub(crate) fn between([one, two]: [&Container; 2]) -> Self {
        let steady = |from: &Container, to: &Container| {
            let flow = Flow::new(&from.netns, &to.netns, to.v4());
            Steady::start(&flow).unwrap()
        };
        let paced = Paced::start(&[one.clone(), two.clone()], INTERVAL).unwrap();
        Self { paced, steady: [steady(one, two), steady(two, one)] }
    }

    /// Ends the traffic, prints what became of it, and fails when something was lost.
    pub(crate) fn judge(self) {
        let time = self.paced.elapsed();
        let pairs = self.paced.stop().unwrap();
        let carried = self.steady.map(|steady| steady.stop().unwrap());
        println!("{:.1} s of traffic", time.as_secs_f64());
        for Pair { from, to, sent, received, doubled, lost } in &pairs {
            println!("{from} -> {to}: {sent} sent, {received} received, {doubled} doubled, {} lost", lost.len());
        }
        for carried in carried {
            println!("TCP: {} bytes, {} segments sent again", carried.bytes, carried.retransmitted);
        }
        for pair in &pairs {
            // A busy machine gives the sender less than its due; much less would be another test.
            assert!(f64::from(pair.sent) > time.as_secs_f64() * 4_000.0, "{} sent in {time:?}", pair.sent);
            assert_eq!((pair.lost.len(), pair.doubled), (0, 0), "lost at {:?}", pair.lost);
        }
        assert_eq!(carried.map(|carried| carried.retransmitted), [0, 0], "TCP segments sent again");
    }
}
