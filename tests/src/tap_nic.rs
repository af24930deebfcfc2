//! [`TapNic`]: an underlay interface whose driver runs XDP natively and is no veth, as a NIC's does.
//!
//! A TAP device stands for the NIC, a second one in the underlay's namespace for the port of the switch. One thread is
//! the cable between them.

use std::{
    io::{self, PipeWriter},
    os::fd::AsFd,
    thread::{self, JoinHandle},
};

use anyhow::{Context, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tun_rs::{DeviceBuilder, Layer, SyncDevice};

use crate::{
    cluster::Cluster,
    netns::Netns,
    node::{Node, UNDERLAY_DEVICE},
};

/// The longest frame: what a TAP without offloads hands out at an MTU of 1500, with a VLAN tag.
const MAX_FRAME: usize = 1518;

/// The cable between a node's TAP and the underlay's. Both devices go when it is dropped.
#[derive(Debug)]
pub struct TapNic {
    /// Closed to end the thread; `None` while that happens.
    stop: Option<PipeWriter>,
    thread: Option<JoinHandle<()>>,
}

impl TapNic {
    /// Puts a TAP in place of the veth that is `node`'s underlay interface, with the same name and address.
    ///
    /// # Errors
    ///
    /// When the devices cannot be made.
    pub fn replace_underlay_of(node: &Node, cluster: &Cluster) -> Result<Self> {
        let port = node.name();
        cluster.underlay().ip(&format!("link del dev {port}"))?;
        let mut ends = [open(node.netns(), UNDERLAY_DEVICE)?, open(cluster.underlay(), port)?];
        cluster.underlay().ip(&format!("link set dev {port} master underlay"))?;
        node.netns().ip(&format!("address add {}/24 dev {UNDERLAY_DEVICE}", node.address()))?;
        let (stopped, stop) = io::pipe().context("make a pipe")?;
        let work = move || {
            if let Err(error) = carry(&mut ends, stopped) {
                eprintln!("the cable of a TAP ended: {error:#}");
            }
        };
        let thread = thread::Builder::new().name("tap-nic".to_owned()).spawn(work).context("start a thread")?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for TapNic {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            eprintln!("the cable of a TAP has panicked");
        }
    }
}

fn open(netns: &Netns, name: &str) -> Result<SyncDevice> {
    let device = netns.run(|| DeviceBuilder::new().name(name).layer(Layer::L2).mtu(1500).build_sync());
    let device = device.with_context(|| format!("open the TAP {name}"))?;
    device.set_nonblocking(true)?;
    netns.ip(&format!("link set dev {name} up"))?;
    Ok(device)
}

/// Carries frames both ways until the other end of `stopped` is closed.
fn carry(ends: &mut [SyncDevice; 2], stopped: impl AsFd) -> Result<()> {
    let mut frame = [0; MAX_FRAME];
    loop {
        let mut fds = [
            PollFd::new(stopped.as_fd(), PollFlags::POLLIN),
            PollFd::new(ends[0].as_fd(), PollFlags::POLLIN),
            PollFd::new(ends[1].as_fd(), PollFlags::POLLIN),
        ];
        poll(&mut fds, PollTimeout::NONE).context("poll")?;
        if fds[0].any() != Some(false) {
            return Ok(());
        }
        for (from, to) in [(&ends[0], &ends[1]), (&ends[1], &ends[0])] {
            match from.recv(&mut frame) {
                // A full queue: frames are lost, as on any cable.
                Ok(length) => drop(to.send(&frame[..length])),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error).context("read a TAP"),
            }
        }
    }
}
