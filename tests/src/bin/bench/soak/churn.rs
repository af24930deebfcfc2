//! [`Churn`]: containers that come and go.

use std::net::UdpSocket;

use anyhow::{Context, Result};
use overlay_tests::{
    netns::Netns,
    node::{BRIDGE, Container, Node},
};
use rand::{Rng, rngs::StdRng};
use serde::Serialize;

/// How many containers come and go, all nodes together.
const GUESTS: usize = 12;
/// The last byte of the first one's address: below are the nodes' own containers.
const FIRST_HOST: usize = 10;
/// Nobody listens there; a container that sends packets to it is answered so.
const CLOSED_PORT: u16 = 9;

/// The containers that come and go: each is there or not.
#[derive(Debug, Default)]
pub(crate) struct Churn {
    guests: [Option<Guest>; GUESTS],
    count: ChurnCount,
}

/// How many came and went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct ChurnCount {
    /// How many came.
    pub(crate) came: u32,
    /// How many went.
    pub(crate) went: u32,
}

/// A container that is there, and the node it is on.
#[derive(Debug)]
struct Guest {
    node: Netns,
    container: Container,
}

impl Churn {
    /// Prepares the nodes' bridges: they keep their MAC addresses, whoever comes and goes, as those of Docker and of CNI's
    /// plugins do. The kernel would give them that of one port or another, and containers would know a former one.
    ///
    /// # Errors
    ///
    /// When `ip` fails.
    pub(crate) fn prepare(nodes: &[Node]) -> Result<Self> {
        for (number, node) in (1..).zip(nodes) {
            let mac = [2, 0, 0, 0, 9, number];
            let mac = mac.map(|byte: u8| format!("{byte:02x}")).join(":");
            node.netns().ip(&format!("link set dev {BRIDGE} address {mac}"))?;
        }
        Ok(Self::default())
    }

    /// Lets one container come or go, or none.
    ///
    /// # Errors
    ///
    /// When `ip` fails.
    pub(crate) fn strike(&mut self, rng: &mut StdRng, nodes: &[Node]) -> Result<()> {
        let number = rng.random_range(0..2 * GUESTS);
        let Some(place) = self.guests.get_mut(number) else { return Ok(()) };
        match place.take() {
            Some(guest) => {
                self.count.went += 1;
                guest.go(number)
            }
            None => {
                self.count.came += 1;
                let (node, other) = (&nodes[number % nodes.len()], &nodes[(number + 1) % nodes.len()]);
                place.insert(Guest::come(number, node)?).greet(other)
            }
        }
    }

    /// Lets all go that are there.
    ///
    /// # Errors
    ///
    /// When `ip` fails.
    pub(crate) fn end(&mut self) -> Result<()> {
        for (number, place) in self.guests.iter_mut().enumerate() {
            if let Some(guest) = place.take() {
                self.count.went += 1;
                guest.go(number)?;
            }
        }
        Ok(())
    }

    /// How many came and went.
    pub(crate) fn count(&self) -> ChurnCount {
        self.count
    }
}

impl Guest {
    fn come(number: usize, node: &Node) -> Result<Self> {
        let host = u32::try_from(FIRST_HOST + number)?;
        let container = Container::join(node.netns(), node.subnet(), &veth(number), host)?;
        Ok(Self { node: node.netns().clone(), container })
    }

    /// Sends a packet to the container of another node.
    fn greet(&self, other: &Node) -> Result<()> {
        let to = (other.container().v4(), CLOSED_PORT);
        let sent = self.container.netns.run(|| UdpSocket::bind(("0.0.0.0", 0))?.send_to(b"hello", to));
        sent.map(drop).with_context(|| format!("send from {}", self.container.v4()))
    }

    fn go(self, number: usize) -> Result<()> {
        self.node.ip(&format!("link del {}", veth(number))).map(drop)
    }
}

fn veth(number: usize) -> String {
    format!("guest{number}")
}
