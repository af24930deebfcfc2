//! [`PacketSocket`]: sees every frame of a device and sends any, past the IP stack.

use std::{
    io,
    mem::{size_of, zeroed},
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use nix::{
    libc,
    net::if_::if_nametoindex,
    sys::socket::{setsockopt, sockopt},
    sys::time::{TimeVal, TimeValLike as _},
};

use crate::{netns::Netns, patience::patient};

/// Room for frames that nobody has read yet.
const BUFFER: usize = 32 << 20;

/// Longer than any super-packet with its headers.
const LONGEST: usize = 1 << 18;

/// A frame that a device has sent or received, Ethernet header included, VLAN tag not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Its bytes; checksums may be left for the hardware to fill in.
    pub bytes: Vec<u8>,
    /// Whether the device has sent it.
    pub outgoing: bool,
}

/// A socket that sees every frame of one device from its making on, as the device gets or gives it: super-packets
/// whole.
#[derive(Debug)]
pub struct PacketSocket {
    fd: OwnedFd,
}

/// The Ethernet address of `device` in `netns`.
///
/// # Errors
///
/// When there is no such device, or it has none.
pub fn mac(netns: &Netns, device: &str) -> Result<[u8; 6]> {
    let text = netns.ip(&format!("-o link show dev {device}"))?;
    let mac = text.split("link/ether ").nth(1).and_then(|rest| rest.split(' ').next());
    let mac = mac.with_context(|| format!("{device} has no Ethernet address"))?;
    let bytes = mac.split(':').map(|byte| u8::from_str_radix(byte, 16)).collect::<Result<Vec<_>, _>>()?;
    bytes.try_into().map_err(|_| anyhow::anyhow!("{mac} is no Ethernet address"))
}

impl PacketSocket {
    /// Opens a socket on `device` of `netns`.
    ///
    /// # Errors
    ///
    /// When the device is missing, or the kernel refuses, as it does without root.
    pub fn open(netns: &Netns, device: &str) -> Result<Self> {
        netns.run(|| bind(device, libc::ETH_P_ALL)).with_context(|| format!("open a packet socket on {device}"))
    }

    /// Opens a socket that only sends: it costs the device's traffic nothing.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub fn sender(netns: &Netns, device: &str) -> Result<Self> {
        netns.run(|| bind(device, 0)).with_context(|| format!("open a packet socket on {device}"))
    }

    /// Sends a frame, Ethernet header included.
    ///
    /// # Errors
    ///
    /// When the device does not take it.
    pub fn send(&self, frame: &[u8]) -> Result<()> {
        // SAFETY: the pointer and the length are those of a slice that outlives the call.
        let sent = unsafe { libc::send(self.fd.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) };
        if sent < 0 {
            return Err(io::Error::last_os_error()).with_context(|| format!("send a frame of {} bytes", frame.len()));
        }
        Ok(())
    }

    /// The first frame, among those not yet read and those to come, that `pick` makes something of.
    ///
    /// # Errors
    ///
    /// When there is none within `limit`: the message names `what` was waited for. When the socket fails.
    pub fn find<T>(&self, what: &str, limit: Duration, mut pick: impl FnMut(&Frame) -> Option<T>) -> Result<T> {
        let limit = patient(limit);
        let end = Instant::now() + limit;
        while let Some(frame) = self.receive(end.saturating_duration_since(Instant::now()))? {
            if let Some(picked) = pick(&frame) {
                return Ok(picked);
            }
        }
        anyhow::bail!("waited {limit:?} in vain for {what}")
    }

    /// What `pick` makes of the frames that have come and were not yet read.
    ///
    /// # Errors
    ///
    /// When the socket fails.
    pub fn drain<T>(&self, mut pick: impl FnMut(&Frame) -> Option<T>) -> Result<Vec<T>> {
        let mut picked = Vec::new();
        while let Some(frame) = self.receive(Duration::ZERO)? {
            picked.extend(pick(&frame));
        }
        Ok(picked)
    }

    /// The next frame; `None` when there is none within `limit`.
    fn receive(&self, limit: Duration) -> Result<Option<Frame>> {
        // A timeout of zero would be none at all.
        let timeout = limit.max(Duration::from_micros(1));
        setsockopt(&self.fd, sockopt::ReceiveTimeout, &TimeVal::microseconds(timeout.as_micros() as i64))?;
        let mut bytes = vec![0; LONGEST];
        // SAFETY: an all-zero sockaddr_ll is a valid one.
        let mut address: libc::sockaddr_ll = unsafe { zeroed() };
        let mut address_len = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        // SAFETY: pointers and lengths are those of a vector and of a sockaddr_ll that outlive the call.
        let length = unsafe {
            let (buffer, address) = (bytes.as_mut_ptr().cast(), (&raw mut address).cast());
            libc::recvfrom(self.fd.as_raw_fd(), buffer, bytes.len(), 0, address, &raw mut address_len)
        };
        match usize::try_from(length) {
            Ok(length) => bytes.truncate(length),
            Err(_) => {
                let error = io::Error::last_os_error();
                return if error.kind() == io::ErrorKind::WouldBlock { Ok(None) } else { Err(error.into()) };
            }
        }
        Ok(Some(Frame { bytes, outgoing: address.sll_pkttype == libc::PACKET_OUTGOING }))
    }
}

/// Opens the socket and binds it to `device`, in the namespace of the calling thread; it sees frames of `protocol`, none if 0.
fn bind(device: &str, protocol: i32) -> Result<PacketSocket> {
    let protocol = (protocol as u16).to_be();
    // Of no protocol at first, so that it sees nothing of other devices before it is bound.
    // SAFETY: no pointers are passed.
    let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error().into());
    }
    // SAFETY: the descriptor was just opened, and nobody else has it.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    setsockopt(&fd, sockopt::RcvBufForce, &BUFFER)?;
    // SAFETY: an all-zero sockaddr_ll is a valid one.
    let mut address: libc::sockaddr_ll = unsafe { zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = protocol;
    address.sll_ifindex = i32::try_from(if_nametoindex(device)?)?;
    let length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: pointer and length are those of a sockaddr_ll that outlives the call.
    match unsafe { libc::bind(fd.as_raw_fd(), (&raw const address).cast(), length) } {
        0 => Ok(PacketSocket { fd }),
        _ => Err(io::Error::last_os_error().into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packets::ethernet;

    const LIMIT: Duration = Duration::from_secs(5);

    #[test]
    fn frames_are_seen_at_both_ends_as_they_were_sent() {
        let (here, there) = (Netns::new().unwrap(), Netns::new().unwrap());
        here.veth("a", &there, "b", 1500).unwrap();
        let (near, far) = (PacketSocket::open(&here, "a").unwrap(), PacketSocket::open(&there, "b").unwrap());
        let observer = PacketSocket::open(&here, "a").unwrap();
        let frame = ethernet([0xff; 6], [2, 0, 0, 0, 0, 1], 0x88b5, b"hello");
        near.send(&frame).unwrap();
        for (socket, outgoing) in [(&observer, true), (&far, false)] {
            let seen = socket.find("the frame", LIMIT, |seen| (seen.bytes == frame).then(|| seen.clone())).unwrap();
            assert_eq!(seen.outgoing, outgoing);
        }
        assert!(far.find("it once more", Duration::ZERO, |seen| (seen.bytes == frame).then_some(())).is_err());
    }
}
