//! [`Flood`]: packets of very many flows between two containers, past their IP stacks.

use std::net::Ipv4Addr;

use anyhow::{Context as _, Result};

use crate::{
    node::{CONTAINER_DEVICE, Container},
    packet_socket::PacketSocket,
    packets::{ETHER_IPV4, Ipv4, PROTO_UDP, ethernet, udp},
};

/// Where the UDP header stands in a frame.
const PORTS: usize = 14 + 20;

/// The first port of a flow on either side; those below are left to others.
const FIRST_PORT: u16 = 2000;

/// How many destination ports each source port calls.
const PORTS_CALLED: u32 = 20_000;

/// The two ends of a flood of UDP flows, one packet of each.
#[derive(Debug)]
pub struct Flood {
    there: End,
    back: End,
}

/// One end, and what it sends but for the ports.
#[derive(Debug)]
struct End {
    socket: PacketSocket,
    frame: Vec<u8>,
}

impl Flood {
    /// Between two containers of different nodes.
    ///
    /// # Errors
    ///
    /// When one of them has no way to its gateway.
    pub fn between(from: &Container, to: &Container) -> Result<Self> {
        Ok(Self { there: End::new(from, to.v4())?, back: End::new(to, from.v4())? })
    }

    /// Sends one packet of each of `flows` flows; nobody answers.
    ///
    /// # Errors
    ///
    /// When the kernel does not take one.
    pub fn scan(mut self, flows: u32) -> Result<()> {
        (0..flows).map(ports).try_for_each(|[near, far]| self.there.send(near, far))
    }

    /// Sends one packet of each of `flows` flows, and one back.
    ///
    /// # Errors
    ///
    /// When the kernel does not take one.
    pub fn exchange(mut self, flows: u32) -> Result<()> {
        (0..flows).map(ports).try_for_each(|[near, far]| {
            self.there.send(near, far)?;
            self.back.send(far, near)
        })
    }
}

/// The ports of a flow on the near and on the far side.
fn ports(flow: u32) -> [u16; 2] {
    [flow / PORTS_CALLED, flow % PORTS_CALLED].map(|port| FIRST_PORT + port as u16)
}

impl End {
    fn new(from: &Container, to: Ipv4Addr) -> Result<Self> {
        let gateway = from.netns.ip("route get 192.0.2.1")?;
        let gateway = gateway.split_ascii_whitespace().skip_while(|word| *word != "via").nth(1);
        let gateway = gateway.with_context(|| format!("{} has no gateway", from.v4()))?;
        let mac = |shown: &str| {
            let mac = shown.split_ascii_whitespace().find(|word| word.matches(':').count() == 5)?;
            let bytes: Vec<u8> = mac.split(':').filter_map(|byte| u8::from_str_radix(byte, 16).ok()).collect();
            <[u8; 6]>::try_from(bytes).ok()
        };
        let own = mac(&from.netns.ip(&format!("link show dev {CONTAINER_DEVICE}"))?).context("no MAC address")?;
        let neighbour = from.netns.ip(&format!("neighbour show {gateway}"))?;
        let next = mac(&neighbour).with_context(|| format!("{gateway} is not resolved: {neighbour:?}"))?;
        let packet = Ipv4::new(from.v4(), to, PROTO_UDP, udp(0, 0, &[0; 18])).bytes();
        let frame = ethernet(next, own, ETHER_IPV4, &packet);
        Ok(Self { socket: PacketSocket::sender(&from.netns, CONTAINER_DEVICE)?, frame })
    }

    fn send(&mut self, source: u16, destination: u16) -> Result<()> {
        self.frame[PORTS..PORTS + 2].copy_from_slice(&source.to_be_bytes());
        self.frame[PORTS + 2..PORTS + 4].copy_from_slice(&destination.to_be_bytes());
        self.socket.send(&self.frame)
    }
}
