//! [`TunPeer`]: a node that speaks the udp format from user space, built after flannel's proxy.
//!
//! One thread copies packets between a TUN device and one UDP socket, one packet at a time and without offloads. The
//! inner IPv4 packet is the whole payload, the port is the same on both ends, and each direction takes one from the
//! inner TTL. That makes it two things: a peer written without our code, and the measure of what a TUN costs.
//!
//! Unlike flannel's proxy it says nothing about a packet that has no route.

use std::{
    io::{self, PipeWriter},
    net::{Ipv4Addr, SocketAddrV4, UdpSocket},
    os::fd::AsFd,
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
};

use anyhow::{Context, Result};
use bytes::BytesMut;
use ipnetwork::Ipv4Network;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tun_rs::{DeviceBuilder, Layer, SyncDevice};

use crate::netns::Netns;

/// Length in bytes of an IPv4 header without options.
const IPV4_HEADER: usize = 20;

/// What a [`TunPeer`] is made of.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Name of the TUN device; flannel's is `flannel0`.
    pub device: String,
    /// MTU of the TUN device in bytes: the underlay's less 28.
    pub mtu: u16,
    /// The node's underlay address.
    pub underlay: Ipv4Addr,
    /// The UDP port of every node.
    pub port: u16,
    /// The overlay network, which is routed to the TUN device.
    pub network: Ipv4Network,
    /// The node's subnet, whose network address the TUN device gets.
    pub subnet: Ipv4Network,
}

/// Remote subnets and the nodes they are on, in the order in which they are tried.
type Table = Arc<Mutex<Vec<(Ipv4Network, SocketAddrV4)>>>;

/// A user-space node that speaks the udp format. Ends, and takes its TUN device along, when dropped.
#[derive(Debug)]
pub struct TunPeer {
    port: u16,
    table: Table,
    /// Closed to end the thread; `None` while that happens.
    stop: Option<PipeWriter>,
    thread: Option<JoinHandle<()>>,
}

impl TunPeer {
    /// Makes the TUN device in `netns`, routes the overlay network to it, and starts to copy packets.
    ///
    /// # Errors
    ///
    /// When the device, its route or the socket cannot be had.
    pub fn start(netns: &Netns, settings: &Settings) -> Result<Self> {
        let device = netns.run(|| open(settings)).with_context(|| format!("open the TUN {}", settings.device))?;
        netns.ip(&format!("route add {} dev {}", settings.network, settings.device))?;
        let address = SocketAddrV4::new(settings.underlay, settings.port);
        let socket = netns.run(|| UdpSocket::bind(address)).with_context(|| format!("bind {address}/udp"))?;
        socket.set_nonblocking(true)?;
        let (stopped, stop) = io::pipe().context("make a pipe")?;
        let table = Table::default();
        let buffer = BytesMut::zeroed(settings.mtu.into());
        let mut proxy = Proxy { device, socket, table: Arc::clone(&table), buffer };
        let work = move || {
            if let Err(error) = proxy.run(stopped) {
                eprintln!("the TUN peer at {address} ended: {error:#}");
            }
        };
        let thread = thread::Builder::new().name("tun-peer".to_owned()).spawn(work).context("start a thread")?;
        Ok(Self { port: settings.port, table, stop: Some(stop), thread: Some(thread) })
    }

    /// Sends packets for `subnet` to the node at underlay address `node` from now on.
    pub fn set_route(&self, subnet: Ipv4Network, node: Ipv4Addr) {
        self.remove_route(subnet);
        self.table().push((subnet, SocketAddrV4::new(node, self.port)));
    }

    /// Drops packets for `subnet` from now on.
    pub fn remove_route(&self, subnet: Ipv4Network) {
        self.table().retain(|(known, _)| *known != subnet);
    }

    fn table(&self) -> std::sync::MutexGuard<'_, Vec<(Ipv4Network, SocketAddrV4)>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for TunPeer {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            eprintln!("the TUN peer has panicked");
        }
    }
}

fn open(settings: &Settings) -> io::Result<SyncDevice> {
    let device = DeviceBuilder::new()
        .name(&settings.device)
        .layer(Layer::L3)
        .mtu(settings.mtu)
        .ipv4(settings.subnet.network(), 32, None)
        .build_sync()?;
    device.set_nonblocking(true)?;
    Ok(device)
}

/// What the thread works on.
struct Proxy {
    device: SyncDevice,
    socket: UdpSocket,
    table: Table,
    /// One packet, for both directions.
    buffer: BytesMut,
}

impl Proxy {
    /// Copies packets until the other end of `stopped` is closed.
    fn run(&mut self, stopped: impl AsFd) -> Result<()> {
        loop {
            let mut fds = [
                PollFd::new(stopped.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.device.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.socket.as_fd(), PollFlags::POLLIN),
            ];
            poll(&mut fds, PollTimeout::NONE).context("poll")?;
            if fds[0].any() != Some(false) {
                return Ok(());
            }
            // While either has packets there is no need to ask which.
            while self.send_one()? | self.receive_one()? {}
        }
    }

    /// Sends one packet of the TUN device to its node. Says whether there was one.
    fn send_one(&mut self) -> Result<bool> {
        let Some(length) = unless_idle(self.device.recv(&mut self.buffer)).context("read the TUN")? else {
            return Ok(false);
        };
        let packet = &mut self.buffer[..length];
        if let Some(node) = destination(packet).and_then(|to| find(&self.table, to))
            && decrement_ttl(packet)
        {
            // A full socket buffer, an unreachable node: packets are lost, as on any network.
            self.socket.send_to(packet, node).ok();
        }
        Ok(true)
    }

    /// Writes one packet from the socket into the TUN device. Says whether there was one.
    fn receive_one(&mut self) -> Result<bool> {
        let received = match self.socket.recv(&mut self.buffer) {
            // An ICMP error about something sent earlier.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => return Ok(true),
            received => unless_idle(received).context("receive")?,
        };
        let Some(length) = received else { return Ok(false) };
        let packet = &mut self.buffer[..length];
        if length >= IPV4_HEADER && decrement_ttl(packet) {
            // The kernel refuses what is no IPv4 packet.
            self.device.send(packet).ok();
        }
        Ok(true)
    }
}

/// `None` when there is nothing to read.
fn unless_idle(result: io::Result<usize>) -> io::Result<Option<usize>> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        result => result.map(Some),
    }
}

fn destination(packet: &[u8]) -> Option<Ipv4Addr> {
    let [.., a, b, c, d] = *packet.first_chunk::<IPV4_HEADER>()?;
    Some(Ipv4Addr::new(a, b, c, d))
}

/// The node that has `address`, by a linear search; what was found is moved to the front.
fn find(table: &Table, address: Ipv4Addr) -> Option<SocketAddrV4> {
    let mut table = table.lock().unwrap_or_else(PoisonError::into_inner);
    let found = table.iter().position(|(subnet, _)| subnet.contains(address))?;
    table.swap(0, found);
    Some(table[0].1)
}

/// Takes one from the TTL and corrects the header checksum (RFC 1141). `false` when the packet's life is over.
fn decrement_ttl(packet: &mut [u8]) -> bool {
    if packet[8] <= 1 {
        return false;
    }
    packet[8] -= 1;
    let checksum = u16::from_be_bytes([packet[10], packet[11]]);
    let (sum, carry) = checksum.overflowing_add(0x0100);
    packet[10..12].copy_from_slice(&(sum + u16::from(carry)).to_be_bytes());
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packets::{Ipv4, PROTO_UDP, internet_checksum};

    #[test]
    fn the_header_checksum_follows_the_ttl() {
        for id in 0..=u16::MAX {
            let ip = Ipv4 { id, ..Ipv4::new([10, 1, 2, 3].into(), [10, 1, 4, 5].into(), PROTO_UDP, Vec::new()) };
            let mut packet = ip.bytes();
            assert!(decrement_ttl(&mut packet));
            assert_eq!((packet[8], internet_checksum(&packet)), (ip.ttl - 1, 0), "id {id}");
        }
    }

    #[test]
    fn a_packet_at_the_end_of_its_life_goes_no_further() {
        for ttl in [0, 1] {
            let ip = Ipv4 { ttl, ..Ipv4::new([10, 1, 2, 3].into(), [10, 1, 4, 5].into(), PROTO_UDP, Vec::new()) };
            assert!(!decrement_ttl(&mut ip.bytes()));
        }
    }
}
