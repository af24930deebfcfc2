//! Receives a datagram together with the TOS byte of its IP header.

use std::io::{self, IoSliceMut};
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrIn, recvmsg, setsockopt, sockopt};
use tokio::io::Interest;
use tokio::net::UdpSocket;

/// What is known of a received datagram beside its payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Datagram {
    /// Bytes of payload.
    pub(super) length: usize,
    /// Outer source address.
    pub(super) sender: Ipv4Addr,
    /// TOS byte of the outer header; for a reassembled datagram, marked if any fragment was.
    pub(super) tos: u8,
}

/// Makes the kernel tell the TOS byte of what `socket` receives.
pub(super) fn prepare(socket: &UdpSocket) -> io::Result<()> {
    Ok(setsockopt(socket, sockopt::IpRecvTos, &true)?)
}

/// Receives one datagram into `buffer`. Dropping the future loses none.
pub(super) async fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<Datagram> {
    let mut control = nix::cmsg_space!(u8);
    socket
        .async_io(Interest::READABLE, || {
            let mut slices = [IoSliceMut::new(buffer)];
            let message =
                recvmsg::<SockaddrIn>(socket.as_raw_fd(), &mut slices, Some(&mut control), MsgFlags::empty())?;
            let tos = message.cmsgs()?.find_map(|control| match control {
                ControlMessageOwned::Ipv4Tos(tos) => Some(tos),
                _ => None,
            });
            let sender = message.address.map(|address| address.ip()).ok_or(Errno::EAFNOSUPPORT)?;
            Ok(Datagram { length: message.bytes, sender, tos: tos.unwrap_or(0) })
        })
        .await
}
