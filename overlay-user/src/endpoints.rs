//! Local containers, found by netlink: whose interface is whose address.
//!
//! A container's interface is a veth that is a port of the bridge with an address of our subnet (`docker0`, `cni0`), or that
//! a host route inside our subnet leads to (CNI's `ptp`). Its addresses are read in the container's own namespace, through
//! the kernel's number for it, so nobody has to tell us and a container cannot claim another's.
//!
//! The kernel's notices only say when to look. What is known is then compared with what is there, so a lost notice delays a
//! change until the next one and does no other harm.

mod read;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::Ipv4Addr,
    pin::Pin,
    time::Duration,
};

use futures::{StreamExt as _, channel::mpsc::UnboundedReceiver};
use ipnetwork::Ipv4Network;
use rtnetlink::{
    MulticastGroup,
    packet_core::NetlinkMessage,
    packet_route::RouteNetlinkMessage,
    proto::Connection,
    sys::{AsyncSocket as _, SocketAddr},
};
use tokio::sync::mpsc;

/// How long a container whose address is not set yet is looked at again without a notice: a runtime sets it within
/// milliseconds, and its namespace may be one whose notices do not reach us.
const UNSETTLED: Duration = Duration::from_millis(10);
/// How often it is looked at.
const UNSETTLED_LOOKS: u32 = 50;

/// A container's interface on this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// Name of the veth on the node's side.
    pub name: String,
    /// MAC address of the container's side; zero as long as it could not be read.
    pub mac: [u8; 6],
    /// The container's addresses in our subnet.
    pub addresses: BTreeSet<Ipv4Addr>,
}

/// All local containers, and the addresses that are the node's own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Endpoints {
    /// By index of the veth on the node's side.
    pub containers: BTreeMap<u32, Container>,
    /// Addresses of our subnet that the node itself has: the bridge's, the overlay device's.
    pub node: BTreeSet<Ipv4Addr>,
}

/// The containers could not be read or watched.
#[derive(Debug, thiserror::Error)]
pub enum EndpointsError {
    /// No socket.
    #[error("open a netlink socket: {0}")]
    Socket(io::Error),
    /// The kernel did not answer.
    #[error("read {what}: {source}")]
    Read {
        /// What was read.
        what: &'static str,
        /// Why not.
        source: rtnetlink::Error,
    },
    /// The kernel's notices have ended.
    #[error("the kernel's notices of interfaces have ended")]
    Ended,
}

/// Watches the local containers of one subnet.
pub struct Watch {
    connection: Pin<Box<Connection<RouteNetlinkMessage>>>,
    notices: UnboundedReceiver<(NetlinkMessage<RouteNetlinkMessage>, SocketAddr)>,
    reader: read::Reader,
}

impl Watch {
    /// Starts to watch. Must be called in the node's network namespace and in a tokio runtime.
    ///
    /// # Errors
    /// [`EndpointsError::Socket`].
    pub fn new(subnet: Ipv4Network) -> Result<Self, EndpointsError> {
        let groups = [MulticastGroup::Link, MulticastGroup::Ipv4Ifaddr, MulticastGroup::Ipv4Route];
        let (mut connection, _, notices) =
            rtnetlink::new_multicast_connection(&groups).map_err(EndpointsError::Socket)?;
        // Addresses are set inside the containers' namespaces.
        connection.socket_mut().socket_mut().set_listen_all_namespaces(true).map_err(EndpointsError::Socket)?;
        Ok(Self { connection: Box::pin(connection), notices, reader: read::Reader::new(subnet)? })
    }

    /// Sends the containers to `changes`, at first and whenever they differ from what was sent before, for as long as
    /// somebody receives.
    ///
    /// # Errors
    /// When the kernel does not answer any more; the watch is then of no further use.
    pub async fn run(mut self, changes: mpsc::Sender<Endpoints>) -> Result<(), EndpointsError> {
        let mut known = None;
        loop {
            let mut looks = UNSETTLED_LOOKS;
            loop {
                let present = self.reader.read(known.as_ref()).await?;
                let settled = present.containers.values().all(|container| !container.addresses.is_empty());
                if known.as_ref() != Some(&present) {
                    if changes.send(present.clone()).await.is_err() {
                        return Ok(());
                    }
                    known = Some(present);
                }
                looks -= 1;
                if settled || looks == 0 {
                    break;
                }
                tokio::select! {
                    () = tokio::time::sleep(UNSETTLED) => {}
                    heard = wait(&mut self.connection, &mut self.notices) => heard?,
                }
            }
            wait(&mut self.connection, &mut self.notices).await?;
        }
    }
}

/// Waits for a notice and takes all that have come.
async fn wait(
    connection: &mut Pin<Box<Connection<RouteNetlinkMessage>>>,
    notices: &mut UnboundedReceiver<(NetlinkMessage<RouteNetlinkMessage>, SocketAddr)>,
) -> Result<(), EndpointsError> {
    tokio::select! {
        () = connection => return Err(EndpointsError::Ended),
        notice = notices.next() => { notice.ok_or(EndpointsError::Ended)?; }
    }
    while notices.try_recv().is_ok() {}
    Ok(())
}
