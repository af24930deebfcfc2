//! [`Ends`]: a node's tunnel ends, as its lease says, and which of them is used.

use std::net::IpAddr;

use overlay_common::Route;

use crate::lease::{Backend, Node, Vtep};

/// A tunnel end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct End {
    /// The underlay address.
    address: IpAddr,
    /// The MAC address behind it, zero with encapsulations that have none.
    mac: [u8; 6],
    /// Whether packets must have a UDP checksum: over IPv4 they need none.
    wants_checksum: bool,
}

/// The tunnel ends of a node, over each family of the underlay that it uses.
///
/// Two nodes use the end of the inner packet's own family where both have one, otherwise the one that both have: so
/// packets go and come over the same family, as both judge alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ends {
    ipv4: Option<End>,
    ipv6: Option<End>,
}

impl Ends {
    /// What the lease of `node` says.
    #[must_use]
    pub fn of(node: &Node) -> Self {
        let ipv4 = Some(node.public_ip).filter(|address| !address.is_unspecified()).map(IpAddr::from);
        let ipv6 = node.public_ipv6.map(IpAddr::from);
        match node.backend {
            Backend::Udp => {
                let end = |address| End { address, mac: [0; 6], wants_checksum: false };
                Self { ipv4: ipv4.map(end), ipv6: None }
            }
            Backend::Vxlan { v4, v6 } => {
                let end = |(address, vtep): (IpAddr, Vtep)| {
                    let wants_checksum = address.is_ipv6() && !vtep.takes_no_checksum;
                    End { address, mac: vtep.mac.0, wants_checksum }
                };
                Self { ipv4: ipv4.zip(v4).map(end), ipv6: ipv6.zip(v6).map(end) }
            }
            Backend::Other(_) => Self { ipv4: None, ipv6: None },
        }
    }

    /// The way from `ours` to this node for inner packets, of IPv4 or of IPv6; none, where the two have no family in common.
    #[must_use]
    pub fn route(&self, ours: &Self, is_ipv4: bool) -> Option<Route> {
        let common = [self.ipv4.filter(|_| ours.ipv4.is_some()), self.ipv6.filter(|_| ours.ipv6.is_some())];
        let [ipv4, ipv6] = common;
        let End { address, mac, wants_checksum } = if is_ipv4 { ipv4.or(ipv6) } else { ipv6.or(ipv4) }?;
        // The device over IPv6 sends, so it must be the one that the kernel routes this family to.
        if wants_checksum && is_ipv4 && ours.ipv4.is_some() {
            return None;
        }
        let route = Route::new(address, mac);
        Some(if wants_checksum { route.with_checksum() } else { route })
    }
}
