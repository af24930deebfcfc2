//! [`Reason`]: why a packet left the overlay path.

mod advice;

pub use self::advice::Advice;

/// Why a packet was dropped. The error of the programs, the index of its counter in `DROPS`, and its text.
///
/// The numbers are part of the contract with whoever reads the pinned map: a new reason goes to the end.
#[repr(u32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Encap: something other than IPv4 or, where the overlay has it, IPv6 was sent into the overlay device. The name is older
    /// than IPv6 here.
    NotIpv4 = 0,
    /// The packet ends inside a header.
    Truncated = 1,
    /// A length field contradicts the packet.
    BadLength = 2,
    /// An IP header that no IP stack accepts: wrong version, or shorter than it must be.
    BadHeader = 3,
    /// Encap: broadcast, multicast, loopback, link-local or reserved destination.
    NotUnicast = 4,
    /// Encap: the destination is not in the overlay network.
    OutsideNetwork = 5,
    /// Encap: the destination is in our own subnet, where no container has it.
    OwnSubnet = 6,
    /// Encap: nobody leases the destination's subnet.
    NoRoute = 7,
    /// Encap, and already where a container sends: the source is in the overlay network, but not in our own subnet.
    SourceNotOurs = 8,
    /// Encap: the kernel refused to make room (a packet that is encapsulated already, or a kind of GSO that
    /// cannot be).
    EncapRefused = 9,
    /// Decap: the outer source is not the underlay address of a node that holds a lease.
    UnknownNode = 10,
    /// Decap: the node is known, but the inner source is not in its subnet.
    SourceNotTheirs = 11,
    /// Decap: the inner destination is not in our subnet.
    DestinationNotOurs = 12,
    /// Decap: a VXLAN network number that is not ours.
    WrongVni = 13,
    /// Decap: VXLAN flags other than "VNI present" alone.
    BadVxlanFlags = 14,
    /// Decap: the tunnel carries something other than IPv4 or, where the overlay has it, IPv6.
    InnerNotIpv4 = 15,
    /// Decap: a packet from an overlay address came in on the underlay without being encapsulated.
    NotEncapsulated = 16,
    /// Decap: congestion was marked on the way and the transport cannot be told (RFC 6040).
    CeOnNotEct = 17,
    /// Decap: the kernel refused to strip the outer headers.
    DecapRefused = 18,
    /// Decap: the inner frame is addressed to a MAC address that is not our VTEP's.
    WrongVtepMac = 19,
    /// Decap: the kernel has decapsulated a packet that did not come by the underlay interface to our VTEP.
    NotAccepted = 20,
    /// A container sends with the address of another container or of the node, in an IP packet, ARP or neighbour discovery,
    /// speaks as a router, or hides something of that where the kernel would still find it.
    SpoofedNeighbour = 21,
}

impl Reason {
    /// Every reason, in the order of the counters.
    pub const ALL: [Self; 22] = [
        Self::NotIpv4,
        Self::Truncated,
        Self::BadLength,
        Self::BadHeader,
        Self::NotUnicast,
        Self::OutsideNetwork,
        Self::OwnSubnet,
        Self::NoRoute,
        Self::SourceNotOurs,
        Self::EncapRefused,
        Self::UnknownNode,
        Self::SourceNotTheirs,
        Self::DestinationNotOurs,
        Self::WrongVni,
        Self::BadVxlanFlags,
        Self::InnerNotIpv4,
        Self::NotEncapsulated,
        Self::CeOnNotEct,
        Self::DecapRefused,
        Self::WrongVtepMac,
        Self::NotAccepted,
        Self::SpoofedNeighbour,
    ];

    /// How many reasons there are: the length of `DROPS`.
    pub const COUNT: u32 = Self::ALL.len() as u32;

    /// The index of this reason's counter.
    #[must_use]
    #[inline(always)]
    pub const fn index(self) -> u32 {
        self as u32
    }

    /// The reason in words, for people.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::NotIpv4 => "not of the overlay's IP families",
            Self::Truncated => "ends inside a header",
            Self::BadLength => "length field contradicts the packet",
            Self::BadHeader => "malformed IP header",
            Self::NotUnicast => "destination is not unicast",
            Self::OutsideNetwork => "destination outside the overlay network",
            Self::OwnSubnet => "no container has the address",
            Self::NoRoute => "nobody leases the destination's subnet",
            Self::SourceNotOurs => "source outside our subnet",
            Self::EncapRefused => "kernel refused to encapsulate",
            Self::UnknownNode => "outer source is no known node",
            Self::SourceNotTheirs => "inner source outside the node's subnet",
            Self::DestinationNotOurs => "inner destination outside our subnet",
            Self::WrongVni => "wrong VNI",
            Self::BadVxlanFlags => "unknown VXLAN flags",
            Self::InnerNotIpv4 => "inner packet not of the overlay's IP families",
            Self::NotEncapsulated => "overlay source on a bare underlay packet",
            Self::CeOnNotEct => "congestion mark on a packet without ECN",
            Self::DecapRefused => "kernel refused to decapsulate",
            Self::WrongVtepMac => "inner frame for another VTEP's MAC",
            Self::NotAccepted => "tunnel packet past the underlay interface",
            Self::SpoofedNeighbour => "a neighbour's source address",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_list_is_in_counter_order_and_complete() {
        for (index, reason) in (0..).zip(Reason::ALL) {
            assert_eq!(reason.index(), index);
        }
    }

    #[test]
    fn no_two_reasons_read_alike() {
        let different =
            |words: fn(&Reason) -> &'static str| Reason::ALL.iter().map(words).collect::<BTreeSet<_>>().len();
        assert_eq!(different(|reason| reason.text()), Reason::ALL.len());
        assert_eq!(different(|reason| reason.advice().meaning), Reason::ALL.len());
    }
}
