//! [`Range`]: the overlay's addresses of one family.

use ipnetwork::IpNetwork;

/// The overlay's addresses of one family, as a node sees them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range<N> {
    /// The overlay network.
    pub network: N,
    /// This node's subnet.
    pub subnet: N,
}

impl<N: Into<IpNetwork>> Range<N> {
    /// The same for those to whom the families are alike.
    pub(crate) fn of_any_family(self) -> Range<IpNetwork> {
        Range { network: self.network.into(), subnet: self.subnet.into() }
    }
}
