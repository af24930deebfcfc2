//! [`Packet`]: what of a packet a firewall's rules are about. Pure.

use ipnetwork::IpNetwork;

use crate::masquerade::Family;

/// The first packet of a connection, as far as it is known.
#[derive(Debug, Clone, Copy)]
pub(super) struct Packet<'a> {
    /// Where it comes in.
    pub(super) interface: &'a str,
    /// Where it may come from; none: anywhere.
    pub(super) source: Option<IpNetwork>,
    /// Where it goes.
    pub(super) destination: IpNetwork,
    /// What it carries.
    pub(super) payload: Payload,
}

impl Packet<'_> {
    pub(super) const fn family(&self) -> Family {
        Family::of(self.destination)
    }
}

/// What a packet carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Payload {
    /// Anything.
    Any,
    /// UDP for this port.
    Udp(u16),
    /// The question which MAC address an IPv6 address has.
    NeighbourSolicitation,
}

/// The type of ICMPv6 that a neighbour solicitation has (RFC 4861, section 4.3).
pub(super) const NEIGHBOUR_SOLICITATION: u64 = 135;

/// A protocol above IP, as far as payloads differ in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    Udp,
    Icmpv6,
    Other,
}

impl Protocol {
    /// By the name or the number that firewalls have for it.
    pub(super) fn named(name: &str) -> Self {
        match name {
            "udp" | "17" => Self::Udp,
            "icmpv6" | "ipv6-icmp" | "58" => Self::Icmpv6,
            _ => Self::Other,
        }
    }
}

impl Payload {
    /// None where it may be any.
    pub(super) const fn protocol(self) -> Option<Protocol> {
        match self {
            Self::Any => None,
            Self::Udp(_) => Some(Protocol::Udp),
            Self::NeighbourSolicitation => Some(Protocol::Icmpv6),
        }
    }

    /// The hop limit of its packet, where that is fixed (RFC 4861, section 4.3).
    pub(super) const fn hop_limit(self) -> Option<u64> {
        match self {
            Self::NeighbourSolicitation => Some(255),
            Self::Any | Self::Udp(_) => None,
        }
    }

    /// What conntrack calls its state.
    pub(super) const fn state(self) -> &'static str {
        match self {
            // Neighbour discovery knows no connections.
            Self::NeighbourSolicitation => "untracked",
            Self::Any | Self::Udp(_) => "new",
        }
    }
}
