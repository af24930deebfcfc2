//! The kernel's notices, from all namespaces that it has a number for.

use std::{
    io::{self, IoSliceMut},
    os::fd::{AsRawFd as _, BorrowedFd},
};

use ipnetwork::IpNetwork;
use nix::{
    cmsg_space,
    errno::Errno,
    sys::socket::{ControlMessageOwned, MsgFlags, recvmsg, setsockopt, sockopt::RcvBufForce},
};
use rtnetlink::{
    MulticastGroup,
    packet_core::{NetlinkMessage, NetlinkPayload},
    packet_route::RouteNetlinkMessage,
    sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE},
};
use tokio::io::{Interest, unix::AsyncFd};

/// What is listened to: interfaces, namespaces, and the addresses and routes of each family.
const GROUPS: [MulticastGroup; 2] = [MulticastGroup::Link, MulticastGroup::Nsid];
const IPV4_GROUPS: [MulticastGroup; 2] = [MulticastGroup::Ipv4Ifaddr, MulticastGroup::Ipv4Route];
const IPV6_GROUPS: [MulticastGroup; 2] = [MulticastGroup::Ipv6Ifaddr, MulticastGroup::Ipv6Route];

/// Bytes of notices that the kernel keeps for us: a thousand containers that start at once.
const BACKLOG: usize = 8 << 20;

/// More than the longest notice of an interface has.
const LONGEST: usize = 32 << 10;

/// What was heard.
#[derive(Debug)]
pub(super) enum Notice {
    /// Something is so now in a namespace: the node's own, or the one that the kernel has this number for.
    Told { namespace: Option<i32>, message: RouteNetlinkMessage },
    /// Something was not heard: anything may be so.
    Lost,
}

/// A netlink socket.
///
/// Not one of rtnetlink's: they do not say which namespace a notice comes from.
pub(super) struct Listener {
    socket: AsyncFd<Socket>,
    buffer: Vec<u8>,
}

impl Listener {
    /// Listens from now on to what concerns the families of `subnets`. Must be called in the node's network namespace and in
    /// a tokio runtime.
    pub(super) fn new(subnets: &[IpNetwork]) -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.set_non_blocking(true)?;
        // SAFETY: the socket is open for longer than this borrow of its descriptor.
        let descriptor = unsafe { BorrowedFd::borrow_raw(socket.as_raw_fd()) };
        setsockopt(&descriptor, RcvBufForce, &BACKLOG)?;
        if let Err(error) = socket.set_listen_all_namespaces(true) {
            tracing::warn!(%error, "containers' address changes are not heard");
        }
        let of_families = subnets.iter().flat_map(|subnet| if subnet.is_ipv4() { IPV4_GROUPS } else { IPV6_GROUPS });
        let groups = GROUPS.into_iter().chain(of_families).fold(0, |groups, group| groups | 1 << (group as u32 - 1));
        socket.bind(&SocketAddr::new(0, groups))?;
        // SAFETY: the socket owns its descriptor and hands out the same one until it is dropped.
        let socket = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }?;
        Ok(Self { socket, buffer: vec![0; LONGEST] })
    }

    /// Waits for the next notice. Dropping the future loses none.
    pub(super) async fn next(&mut self) -> io::Result<Notice> {
        loop {
            let mut readable = self.socket.readable().await?;
            match readable.try_io(|socket| receive(socket.get_ref(), &mut self.buffer)) {
                Ok(Ok(Some(notice))) => return Ok(notice),
                Ok(Err(error)) => return Err(error),
                // Not for us, or nothing there.
                Ok(Ok(None)) | Err(_) => {}
            }
        }
    }
}

fn receive(socket: &Socket, buffer: &mut [u8]) -> io::Result<Option<Notice>> {
    let mut parts = [IoSliceMut::new(buffer)];
    let mut control = cmsg_space!(i32);
    let received = match recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::empty()) {
        Err(Errno::ENOBUFS) => return Ok(Some(Notice::Lost)),
        Err(Errno::EINTR) => return Ok(None),
        received => received?,
    };
    if received.flags.contains(MsgFlags::MSG_TRUNC) {
        return Ok(Some(Notice::Lost));
    }
    let namespace = received.cmsgs()?.find_map(|message| namespace(&message));
    let length = received.bytes;
    // The kernel sends one notice at a time.
    Ok(match NetlinkMessage::<RouteNetlinkMessage>::deserialize(&buffer[..length]) {
        Ok(NetlinkMessage { payload: NetlinkPayload::InnerMessage(message), .. }) => {
            Some(Notice::Told { namespace, message })
        }
        Ok(_) => None,
        Err(error) => {
            tracing::debug!(%error, "notice not understood");
            Some(Notice::Lost)
        }
    })
}

/// The namespace that a notice comes from; notices of our own have no such control message.
fn namespace(message: &ControlMessageOwned) -> Option<i32> {
    match message {
        ControlMessageOwned::Unknown(message)
            if message.cmsg_header.cmsg_level == libc::SOL_NETLINK
                && message.cmsg_header.cmsg_type == libc::NETLINK_LISTEN_ALL_NSID =>
        {
            message.data_bytes.as_slice().try_into().ok().map(i32::from_ne_bytes)
        }
        _ => None,
    }
}
