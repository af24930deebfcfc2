//! Other addresses or tunnel ends for a lease that is kept: written in place.

use super::{End, Keeper, Standing};
use crate::datastore::Replaced;
use crate::lease::Node;

impl Keeper {
    /// This node as the lease is to present it.
    pub(super) fn wanted(&self) -> Node {
        self.node.borrow().clone()
    }

    pub(super) fn become_node(&mut self, node: Node) {
        self.value = node.to_value();
        self.holder.lease.node = node;
    }

    /// Writes what has changed of this node, if anything has, into the lease. As long as that has not been done, the lease is
    /// judged by the old address.
    pub(super) async fn publish(&mut self) -> Result<(), End> {
        let wanted = self.wanted();
        if wanted == self.holder.lease.node {
            return Ok(());
        }
        if self.standing != Standing::Held {
            // There is no lease of ours to write to.
            self.become_node(wanted);
            return Err(End::Again);
        }
        let (key, value, lifetime) = (self.holder.lease.subnet.to_string(), wanted.to_value(), self.holder.lifetime);
        match self.holder.store.replace(&key, self.holder.revision, &value, lifetime).await? {
            Replaced::Yes(revision) => {
                let (public_ip, public_ipv6) = (wanted.public_ip, wanted.public_ipv6.map(tracing::field::display));
                tracing::info!(subnet = key, %public_ip, public_ipv6, "our lease carries our new PublicIP");
                self.become_node(wanted);
                self.holds(revision, lifetime);
                self.tell_held().await
            }
            Replaced::Changed(_) => Err(End::Again),
        }
    }
}
