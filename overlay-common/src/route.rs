//! [`Route`]: where packets for one remote subnet go.

use crate::UnderlayAddress;

/// Where packets for one remote subnet go, and who may send from it. Value of `ROUTES` and `ROUTES_V6`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    next_hop: UnderlayAddress,
    vtep_mac: [u8; 6],
    direct: u8,
    checksum: u8,
}

const _: () = assert!(size_of::<Route>() == 24 && align_of::<Route>() == 4);

impl Route {
    /// A route to the node at underlay address `next_hop`.
    ///
    /// `vtep_mac` is the MAC address of that node's VTEP, the inner destination of a VXLAN frame; all zero for
    /// encapsulations that carry no inner Ethernet header.
    #[must_use]
    pub fn new(next_hop: impl Into<UnderlayAddress>, vtep_mac: [u8; 6]) -> Self {
        Self { next_hop: next_hop.into(), vtep_mac, direct: 0, checksum: 0 }
    }

    /// The same route to a node on our own link, which also sends and receives without encapsulation.
    #[must_use]
    pub const fn direct(self) -> Self {
        Self { direct: 1, ..self }
    }

    /// The same route to a node that does not take the UDP checksum 0 over IPv6: the kernel's VXLAN device sends what is for it.
    #[must_use]
    pub const fn with_checksum(self) -> Self {
        Self { checksum: 1, ..self }
    }

    /// Whether the node insists on a UDP checksum.
    #[must_use]
    #[inline(always)]
    pub const fn wants_checksum(&self) -> bool {
        self.checksum != 0
    }

    /// Whether packets of the node may come without encapsulation.
    #[must_use]
    #[inline(always)]
    pub const fn is_direct(&self) -> bool {
        self.direct != 0
    }

    /// The underlay address of the remote node.
    #[must_use]
    #[inline(always)]
    pub const fn next_hop(&self) -> UnderlayAddress {
        self.next_hop
    }

    /// The MAC address of the remote VTEP.
    #[must_use]
    #[inline(always)]
    pub const fn vtep_mac(&self) -> [u8; 6] {
        self.vtep_mac
    }
}

#[cfg(feature = "user")]
// SAFETY: `repr(C)`, no padding (24 bytes are the sum of the fields), every bit pattern is valid.
unsafe impl aya::Pod for Route {}
