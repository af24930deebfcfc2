//! [`Flaps`]: underlay interfaces that go down for a moment.

use std::{thread, time::Duration};

use anyhow::{Context, Result};
use overlay_tests::{cluster::Cluster, node::UNDERLAY_DEVICE, paced::Paced};
use rand::{Rng, rngs::StdRng, seq::IndexedRandom};
use serde::Serialize;

/// How long an interface is down, and how long it is until another goes down, in milliseconds.
const DOWN: [u64; 2] = [100, 1500];
const PEACE: [u64; 2] = [10_000, 20_000];

/// What has gone down so far.
#[derive(Debug, Default)]
pub(crate) struct Flaps {
    pub(crate) all: Vec<Flap>,
    next: Duration,
}

/// An underlay interface was down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Flap {
    /// Whose it is, as the place of the node in the cluster.
    pub(crate) node: usize,
    pub(crate) side: Side,
    /// When it went down, since the start of the traffic.
    pub(crate) down: Duration,
    /// When it was up again.
    pub(crate) up: Duration,
}

/// Which end of the cable went down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Side {
    /// The node's own interface: the kernel forgets routes and neighbours.
    Interface,
    /// The port of the switch: the node has no carrier.
    Port,
}

impl Flaps {
    /// Takes an interface down and up again, if it is time to.
    ///
    /// # Errors
    ///
    /// When `ip` fails.
    pub(crate) fn strike(&mut self, rng: &mut StdRng, cluster: &Cluster, paced: &Paced) -> Result<()> {
        if self.next.is_zero() {
            // All is well for a moment at the start.
            self.next = Duration::from_millis(rng.random_range(PEACE[0] / 4..PEACE[0]));
        }
        if paced.elapsed() < self.next {
            return Ok(());
        }
        let number = rng.random_range(0..cluster.nodes().len());
        let side = *[Side::Interface, Side::Port].choose(rng).context("a side")?;
        let node = &cluster.nodes()[number];
        let set = |state: &str| match side {
            Side::Interface => node.netns().ip(&format!("link set dev {UNDERLAY_DEVICE} {state}")),
            Side::Port => cluster.underlay().ip(&format!("link set dev {} {state}", node.name())),
        };
        let down = paced.elapsed();
        set("down")?;
        thread::sleep(Duration::from_millis(rng.random_range(DOWN[0]..DOWN[1])));
        set("up")?;
        let up = paced.elapsed();
        self.next = up + Duration::from_millis(rng.random_range(PEACE[0]..PEACE[1]));
        self.all.push(Flap { node: number, side, down, up });
        Ok(())
    }
}
