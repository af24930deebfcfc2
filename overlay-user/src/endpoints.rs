//! Local containers, found by netlink: whose interface is whose address.
//!
//! A container's interface is a veth whose other side is in another network namespace, and that is a port of a bridge with
//! an address of our subnets (`docker0`, `cni0`) or that a host route inside our subnets leads to (CNI's `ptp`). The
//! addresses of a port are read inside the container's namespace, through the kernel's number for it, so nobody has to
//! tell us. Where a host route leads to the veth, the route says the address: only what is routed there comes back.
//!
//! ```text
//! kernel -> [Listener] -> Fact -> [Interfaces] -> Endpoints -> agent
//!                                   |      ^
//!                                Question  Fact
//!                                   v      |
//!                                  [Asker] -> kernel
//! ```
//!
//! The kernel's notices, also those from inside the containers, are folded into what is known; nothing is read again that
//! a notice has said. A container's addresses and MAC address are asked for once, when its interface is first heard of.
//! A lost notice leads to a reading of everything, which changes only what differs.
//!
//! A user namespace in which we have no rights, or a kernel without `NETLINK_LISTEN_ALL_NSID`, keeps a container's notices
//! from us: then its addresses are those that it had when its interface was last changed on the node's side.

mod ask;
mod counts;
mod fact;
mod interfaces;
mod listener;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
};

use ipnetwork::IpNetwork;
use tokio::sync::mpsc;

pub use self::counts::{ContainerCounts, container_counts};
use self::{
    ask::Asker,
    fact::Fact,
    interfaces::{Interfaces, Question},
    listener::{Listener, Notice},
};

/// A container's interface on this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// Name of the veth on the node's side.
    pub name: String,
    /// MAC address of the container's side; zero as long as it could not be read.
    pub mac: [u8; 6],
    /// The container's addresses in our subnets.
    pub addresses: BTreeSet<IpAddr>,
}

/// All local containers, and the addresses that are the node's own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Endpoints {
    /// By index of the veth on the node's side.
    pub containers: BTreeMap<u32, Container>,
    /// Addresses of our subnets that the node itself has: the bridge's, the overlay device's.
    pub node: BTreeSet<IpAddr>,
    /// The smallest MTU, in bytes, of the containers' bridges and of the veths on the node's side; none without containers.
    pub mtu: Option<u32>,
}

/// The containers could not be read or watched.
#[derive(Debug, thiserror::Error)]
pub enum EndpointsError {
    /// No socket, or it has failed.
    #[error("listen to the kernel's notices of interfaces: {0}")]
    Socket(io::Error),
    /// The kernel did not answer.
    #[error("read {what}: {source}")]
    Read {
        /// What was read.
        what: &'static str,
        /// Why not.
        source: rtnetlink::Error,
    },
}

/// Watches the local containers of this node's subnets.
pub struct Watch {
    subnets: Vec<IpNetwork>,
    listener: Listener,
    asker: Asker,
}

impl Watch {
    /// Starts to watch the containers of `subnets`, one of each address family that the overlay has. Must be called in the
    /// node's network namespace and in a tokio runtime.
    ///
    /// # Errors
    /// [`EndpointsError::Socket`].
    pub fn new(subnets: Vec<IpNetwork>) -> Result<Self, EndpointsError> {
        Ok(Self {
            listener: Listener::new(&subnets).map_err(EndpointsError::Socket)?,
            asker: Asker::new(&subnets).map_err(EndpointsError::Socket)?,
            subnets,
        })
    }

    /// Sends the containers to `changes`, at first and whenever they differ from what was sent before, for as long as
    /// somebody receives.
    ///
    /// # Errors
    /// When the kernel does not answer any more; the watch is then of no further use.
    pub async fn run(mut self, changes: mpsc::Sender<Endpoints>) -> Result<(), EndpointsError> {
        let mut interfaces = self.read_everything().await?;
        let mut sent = None;
        loop {
            if let Some(found) = interfaces.changed()
                && sent.as_ref() != Some(&found)
            {
                if changes.send(found.clone()).await.is_err() {
                    return Ok(());
                }
                sent = Some(found);
            }
            if let Some(question) = interfaces.question() {
                self.answer(&mut interfaces, question).await?;
                continue;
            }
            match self.listener.next().await.map_err(EndpointsError::Socket)? {
                Notice::Told { namespace, message } => {
                    Fact::of(&message).into_iter().for_each(|fact| interfaces.fold(namespace, fact));
                }
                Notice::Lost => interfaces = self.read_everything().await?,
            }
        }
    }

    /// What there is, with the inside of every container: nothing is to look gone only because it was not read yet.
    async fn read_everything(&mut self) -> Result<Interfaces, EndpointsError> {
        let mut interfaces = Interfaces::new(self.subnets.clone());
        for fact in self.asker.everything().await? {
            interfaces.fold(None, fact);
        }
        while let Some(question) = interfaces.question() {
            self.answer(&mut interfaces, question).await?;
        }
        Ok(interfaces)
    }

    async fn answer(&mut self, interfaces: &mut Interfaces, question: Question) -> Result<(), EndpointsError> {
        match question {
            Question::Link(ifindex) => interfaces.fold(None, self.asker.link(ifindex).await?),
            Question::Inside { veth, namespace, ifindex } => {
                interfaces.learn(veth, self.asker.inside(namespace, ifindex).await?);
            }
        }
        Ok(())
    }
}
