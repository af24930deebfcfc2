//! A netlink socket that is told of changes, and a way to ask what they have come to.

use std::io;
use std::pin::Pin;

use futures::StreamExt;
use futures::channel::mpsc::UnboundedReceiver;
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::proto::Connection;
use rtnetlink::sys::SocketAddr;
use rtnetlink::{Handle, MulticastGroup};

/// What the kernel has told.
#[derive(Debug)]
pub(crate) enum Notice {
    /// Something has changed.
    Changed(RouteNetlinkMessage),
    /// There were more notices than the socket could hold: anything may have changed.
    Overrun,
}

/// The socket. Drives its own connection while somebody waits on it, so it needs no task.
pub(crate) struct Notices {
    connection: Pin<Box<Connection<RouteNetlinkMessage>>>,
    messages: UnboundedReceiver<(NetlinkMessage<RouteNetlinkMessage>, SocketAddr)>,
}

impl Notices {
    /// Listens to `groups` in the calling thread's network namespace. Must be called in a tokio runtime.
    pub(crate) fn new(groups: &[MulticastGroup]) -> io::Result<Self> {
        let (connection, _, messages) = rtnetlink::new_multicast_connection(groups)?;
        Ok(Self { connection: Box::pin(connection), messages })
    }

    /// Waits for the next notice. Dropping the future loses none.
    pub(crate) async fn next(&mut self) -> io::Result<Notice> {
        loop {
            let message = tokio::select! {
                biased;
                message = self.messages.next() => message.ok_or_else(closed)?.0,
                () = &mut self.connection => return Err(closed()),
            };
            match message.payload {
                NetlinkPayload::InnerMessage(message) => return Ok(Notice::Changed(message)),
                NetlinkPayload::Overrun(_) => return Ok(Notice::Overrun),
                _ => {}
            }
        }
    }
}

/// Asks the kernel something, on a socket of its own.
///
/// The kernel answers one listing at a time on a socket: one that was given up half way would make the next one fail
/// with EBUSY. Here it is closed with its socket.
pub(crate) async fn ask<T>(question: impl AsyncFnOnce(&Handle) -> T) -> io::Result<T> {
    let (connection, handle, _notices) = rtnetlink::new_connection()?;
    tokio::select! {
        answer = question(&handle) => Ok(answer),
        () = connection => Err(closed()),
    }
}

fn closed() -> io::Error {
    io::ErrorKind::BrokenPipe.into()
}
