//! Takes a subnet for this node and keeps its lease.
//!
//! A lease belongs to a PublicIP. Nothing here ever overwrites one that carries another, and losing ours is no reason to
//! stop: the data path goes on, and the subnet is taken back when it is free.
//!
//! # Two nodes with one PublicIP
//!
//! A lease with our PublicIP is not always ours: machines cloned from one image often have one address on the interface
//! that the agent picks (Vagrant's 10.0.2.15). It cannot be seen from the lease: after a reboot our own holds an old VTEP
//! MAC, and `subnet.env`, in `/run`, is gone. So:
//!
//! - A lease is **known to be ours** if the previous `subnet.env` names its subnet, or if it holds our VTEP MAC, which was
//!   drawn at random. It is renewed at once, as flannel would.
//! - A lease of another backend than ours has **no holder**: reservations made by hand, and what is left of before the
//!   network config changed. It is taken at once.
//! - Otherwise its holder is **asked**: we add a field to the lease's value, which all readers ignore. A living agent
//!   restores its value within milliseconds, since it keeps it byte for byte; then we refuse to start. If nothing
//!   happens for [`Claim::answer_wait`] the lease is our own from before the reboot, or of a node that is gone (or of a
//!   flanneld, which does not answer), and is taken over as flannel does.

mod acquire;
mod ask;
mod keep;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;

pub use self::acquire::{AcquireError, Origin, acquire, preview};
use crate::allocate::Previous;
use crate::datastore::{Datastore, Lifetime, Revision};
use crate::lease::{Lease, Node};

/// flannel's default for how long before a lease expires it is renewed.
pub const RENEW_MARGIN: Duration = Duration::from_secs(60 * 60);

/// Who claims a subnet, and how.
#[derive(Debug, Clone)]
pub struct Claim {
    /// This node as its lease is to present it.
    pub node: Node,
    /// What an earlier `subnet.env` says.
    pub previous: Previous,
    /// How long before its expiry the lease is renewed.
    pub renew_margin: Duration,
    /// How long another holder of our PublicIP has to answer.
    pub answer_wait: Duration,
}

impl Claim {
    /// A claim by a node without a past.
    #[must_use]
    pub const fn new(node: Node) -> Self {
        let previous = Previous { v4: None, v6: None };
        Self { node, previous, renew_margin: RENEW_MARGIN, answer_wait: Duration::from_secs(3) }
    }
}

/// What happens to the lease that this node holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HoldEvent {
    /// The lease is ours: at first, after every renewal, and when trouble is over.
    Held {
        /// The lease.
        lease: Lease,
        /// When it expires if nobody renews it; `None` for a reservation.
        expires: Option<SystemTime>,
    },
    /// The lease is ours or nobody's, but something is wrong with it. The data path goes on.
    Degraded {
        /// What is wrong, in one line.
        reason: String,
    },
    /// Another node holds our subnet now. The data path should stop claiming it; it is taken back when it is free.
    Lost {
        /// The node.
        to: Node,
    },
    /// The lease was gone, and is ours again.
    Retaken {
        /// The lease.
        lease: Lease,
        /// When it expires if nobody renews it.
        expires: Option<SystemTime>,
    },
}

/// A subnet that this node has taken. [`keep`](Self::keep) it, soon: it also answers others who have our PublicIP.
#[derive(Debug)]
pub struct Holder {
    store: Arc<dyn Datastore>,
    lease: Lease,
    origin: Origin,
    revision: Revision,
    lifetime: Lifetime,
    expires: Option<SystemTime>,
    renew_margin: Duration,
    /// This node as the lease is to present it.
    node: watch::Sender<Node>,
}

impl Holder {
    /// The lease.
    #[must_use]
    pub const fn lease(&self) -> &Lease {
        &self.lease
    }

    /// Where the subnet comes from.
    #[must_use]
    pub const fn origin(&self) -> Origin {
        self.origin
    }

    /// Where to say that this node has other addresses or tunnel ends. [`keep`](Self::keep) then writes them into the lease,
    /// in place: this node keeps its subnet.
    #[must_use]
    pub fn node(&self) -> watch::Sender<Node> {
        self.node.clone()
    }

    /// When it expires if nobody renews it; `None` for a reservation.
    #[must_use]
    pub const fn expires(&self) -> Option<SystemTime> {
        self.expires
    }

    /// Notes that the datastore holds our lease at `revision`, and has started its lifetime anew.
    fn holds(&mut self, revision: Revision, lifetime: Lifetime) {
        self.revision = revision;
        self.lifetime = lifetime;
        self.expires = (lifetime == Lifetime::Ttl).then(|| SystemTime::now() + self.store.ttl());
    }

    /// How long a fresh lease is left alone.
    fn renew_after(&self) -> Duration {
        let ttl = self.store.ttl();
        ttl.checked_sub(self.renew_margin).filter(|wait| !wait.is_zero()).unwrap_or(ttl / 2)
    }
}
