//! The persistent TAP device of UDP encapsulation.

use std::io;
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use rtnetlink::Handle;
use rtnetlink::packet_route::link::{InfoKind, LinkMessage};
use tun_rs::{AsyncDevice, DeviceBuilder, Layer};

use super::{Device, LinkError, by_name, foreign, kind, links, mac};

/// An open TAP device. What is written into it comes up the stack as if it had been received.
pub struct Tap(AsyncDevice);

impl Tap {
    /// Writes one packet, Ethernet header included.
    ///
    /// # Errors
    /// The kernel refuses packets while the device is down.
    pub async fn send(&self, packet: &[u8]) -> io::Result<()> {
        self.0.send(packet).await.map(drop)
    }
}

impl std::fmt::Debug for Tap {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_tuple("Tap").field(&self.0.as_raw_fd()).finish()
    }
}

/// Refuses a device `name` that cannot be our TAP.
pub(super) fn refuse(name: &str, before: &[LinkMessage]) -> Result<(), LinkError> {
    match by_name(before, name) {
        Some(link) if kind(link) != Some(&InfoKind::Tun) => Err(foreign(link)),
        _ => Ok(()),
    }
}

/// Opens the persistent TAP device `name`, creating it when it is not there.
pub(super) async fn open(handle: &Handle, name: &str, before: &[LinkMessage]) -> Result<Device, LinkError> {
    let existing = by_name(before, name);
    let failed = |source: io::Error| match (source.raw_os_error().map(Errno::from_raw), existing) {
        (Some(Errno::EBUSY), _) => LinkError::Busy(name.to_owned()),
        // A TUN device, or one with other queues than ours.
        (Some(Errno::EINVAL), Some(link)) => foreign(link),
        _ => LinkError::Tap { name: name.to_owned(), source },
    };
    // Not brought up here: it would send before it has been told not to.
    let builder = DeviceBuilder::new().name(name).layer(Layer::L2).inherit_enable_state();
    let device = builder.build_async().map_err(failed)?;
    offload(&device).map_err(failed)?;
    device.persist().map_err(failed)?;
    let after = links(handle).await?;
    let link = by_name(&after, name).ok_or_else(|| LinkError::Vanished(name.to_owned()))?;
    let (mac, created) = match existing {
        Some(link) => (mac(link), false),
        None => (None, true),
    };
    Ok(Device { ifindex: link.header.index, mac, created, tap: Some(Tap(device)) })
}

/// Lets the node's own sockets hand over large packets with checksums left to do, as containers' veths do.
fn offload(device: &AsyncDevice) -> io::Result<()> {
    let offloads = libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6;
    // SAFETY: TUNSETOFFLOAD takes its flags by value and touches no memory of ours; the descriptor lives as long as
    // `device`, which is borrowed here.
    match unsafe { libc::ioctl(device.as_raw_fd(), libc::TUNSETOFFLOAD, libc::c_ulong::from(offloads)) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}
