//! [`Plan`]: what the overlay on this node has to be, and what follows from it.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::Result;
use ipnetwork::Ipv4Network;
use overlay_common::{LocalNode, Ticks, Vtep};
use rtnetlink::Handle;

use crate::{
    cli::Decap,
    direct::DirectRoutes,
    lease,
    link::{self, LinkConfig, LinkKind, OverlayLink, VxlanConfig},
    loader::Constants,
    mac::Mac,
    maps::{Capacities, Family},
    network::{Backend, Range, Ranges},
    sysctl::SysctlError,
    underlay::{MIN_OVERLAY_MTU, MIN_OVERLAY_MTU_FOR_IPV6, Underlay, UnderlayError},
};

/// The MAC addresses of the overlay devices, by the family of the underlay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Macs {
    /// Of `overlay.N`.
    pub v4: [u8; 6],
    /// Of `overlay-v6.N`.
    pub v6: [u8; 6],
}

/// What the overlay on this node has to be, as config, datastore and interfaces say.
#[derive(Debug, Clone)]
pub struct Plan {
    /// How packets travel.
    pub backend: Backend,
    /// The overlay networks, and the subnets that this node owns.
    pub ranges: Ranges,
    /// The underlay interface.
    pub underlay: Underlay,
    /// The MAC addresses of the overlay devices, as the lease says them.
    pub macs: Macs,
    /// MTU of the overlay devices in bytes.
    pub mtu: u32,
    /// Where outer packets are to be decapsulated.
    pub decap: Decap,
    /// How long netfilter's approval of a flow lasts; 0: no fast path.
    pub flow_ttl: Ticks,
    /// Whether to log each dropped packet.
    pub log_drops: bool,
    /// Whether to attach by clsact also where the kernel has tcx.
    pub clsact: bool,
    /// How many entries maps have.
    pub capacities: Capacities,
}

impl Plan {
    pub(crate) const fn constants(&self) -> Constants {
        let encapsulation = self.backend.encapsulation();
        let Self { flow_ttl, log_drops, clsact, capacities, .. } = *self;
        Constants { encapsulation, flow_ttl, log_drops, clsact, capacities }
    }

    /// The overlay devices: one for each family of the underlay. Inner packets of a family leave by the device of the same
    /// family as a rule, so that has their addresses and their route; where there is one device, it has all.
    pub(crate) fn links(&self) -> Vec<LinkConfig> {
        let Ranges { ipv4, ipv6 } = self.ranges;
        let Backend::Vxlan { vni, port, .. } = self.backend else {
            let (kind, mac) = (LinkKind::Udp, Some(self.macs.v4));
            return vec![LinkConfig { kind, ipv4, ipv6, ipv4_to_receive: None, mtu: self.mtu, mac }];
        };
        let link = |local: IpAddr, mac, ipv4: Option<Range<Ipv4Network>>, ipv6| {
            let kind = LinkKind::Vxlan(VxlanConfig { vni, port, local });
            let ipv4_to_receive = self.ranges.ipv4.filter(|_| ipv4.is_none()).map(|range| range.subnet.network());
            LinkConfig { kind, ipv4, ipv6, ipv4_to_receive, mtu: self.mtu, mac: Some(mac) }
        };
        let Underlay { ipv4: end4, ipv6: end6, .. } = self.underlay;
        let has_both = end4.is_some() && end6.is_some();
        let over_ipv4 = end4.map(|end| link(end.address.into(), self.macs.v4, ipv4, ipv6.filter(|_| !has_both)));
        let over_ipv6 = end6.map(|end| link(end.address.into(), self.macs.v6, ipv4.filter(|_| !has_both), ipv6));
        over_ipv4.into_iter().chain(over_ipv6).collect()
    }

    /// Sees to it that the underlay does not lose its routes when the node forwards IPv6.
    pub(super) fn keep_advertised_routes(&self) -> Result<(), SysctlError> {
        if self.ranges.ipv6.is_some() { link::keep_advertised_routes(&self.underlay.name) } else { Ok(()) }
    }

    pub(super) fn direct_routes(&self, handle: &Handle) -> DirectRoutes {
        let networks = self.ranges.networks().collect();
        DirectRoutes::new(handle.clone(), networks, self.underlay.ifindex, self.backend.direct_routing())
    }

    /// This node as its lease is to present it.
    #[must_use]
    pub fn presented(&self) -> lease::Node {
        presented(&self.backend, &self.underlay, self.macs)
    }

    /// This node as the programs see it, with the overlay devices `links`; `claimed`: whether our subnets are ours to forward
    /// for; `fast_mtu`, in bytes: what the fast path carries.
    pub(super) fn local_node(&self, links: &[OverlayLink], claimed: bool, fast_mtu: u32) -> LocalNode {
        let (port, vni) = (self.backend.port(), self.backend.vni());
        let mut node = LocalNode::new(self.underlay.ifindex);
        for (config, &OverlayLink { ifindex, mac, .. }) in self.links().iter().zip(links) {
            let local = match &config.kind {
                LinkKind::Udp => self.underlay.ends().map(|end| end.address).next(),
                LinkKind::Vxlan(vxlan) => Some(vxlan.local),
            };
            node = match local {
                Some(IpAddr::V4(address)) => node.over::<[u8; 4]>(&Vtep { address, mac, port, vni }, ifindex),
                Some(IpAddr::V6(address)) => node.over::<[u8; 16]>(&Vtep { address, mac, port, vni }, ifindex),
                None => node,
            };
        }
        let mtu = u16::try_from(fast_mtu).unwrap_or(u16::MAX);
        if let Some(range) = self.ranges.ipv4 {
            node = node.with::<[u8; 4]>(as_programs_see(range, claimed), mtu);
        }
        if let Some(range) = self.ranges.ipv6 {
            node = node.with::<[u8; 16]>(as_programs_see(range, claimed), mtu);
        }
        node
    }
}

/// A node as its lease is to present it.
pub(crate) fn presented(backend: &Backend, underlay: &Underlay, macs: Macs) -> lease::Node {
    let over_ipv4 = |vni, mac| lease::Vtep { vni, mac: Mac(mac), takes_no_checksum: false };
    let over_ipv6 = |vni, mac| lease::Vtep { takes_no_checksum: true, ..over_ipv4(vni, mac) };
    let (ipv4, ipv6) = (underlay.ipv4.map(|end| end.public_ip), underlay.ipv6.map(|end| end.public_ip));
    let backend = match *backend {
        Backend::Udp { .. } => lease::Backend::Udp,
        Backend::Vxlan { vni, .. } => lease::Backend::Vxlan {
            v4: ipv4.map(|_| over_ipv4(vni, macs.v4)),
            v6: ipv6.map(|_| over_ipv6(vni, macs.v6)),
        },
    };
    lease::Node { public_ip: ipv4.unwrap_or(Ipv4Addr::UNSPECIFIED), public_ipv6: ipv6, backend }
}

fn as_programs_see<A: Family>(range: Range<A::Network>, claimed: bool) -> overlay_common::Range<A> {
    let parts = |network: A::Network| (A::first(network).ip(), network.into().prefix());
    let (first, length) = parts(range.subnet);
    // No address lies in a subnet that begins at 0.0.0.0 or ::, as long as it is not ours.
    let first = if claimed { first } else { A::default().ip() };
    overlay_common::Range::new(parts(range.network), (first, length))
}

/// How many bytes encap adds at most, over whichever family.
#[must_use]
pub fn overhead(underlay: &Underlay, backend: &Backend) -> u32 {
    let encapsulation = backend.encapsulation();
    match underlay.ipv6 {
        Some(_) => encapsulation.overhead::<[u8; 16]>().into(),
        None => encapsulation.overhead::<[u8; 4]>().into(),
    }
}

/// The smallest MTU that an overlay may have, with IPv6 in it or without.
pub(crate) const fn least_mtu(has_ipv6: bool) -> u32 {
    if has_ipv6 { MIN_OVERLAY_MTU_FOR_IPV6 } else { MIN_OVERLAY_MTU }
}

/// The overlay's MTU in bytes: what encap, over whichever family, leaves of the backend's MTU or, if it has none, of the
/// underlay's. `has_ipv6`: whether there is IPv6 in the overlay.
///
/// # Errors
/// When too little is left, or the backend's is more than the underlay's: the kernel makes no such device.
pub fn overlay_mtu(underlay: &Underlay, backend: &Backend, has_ipv6: bool) -> Result<u32> {
    let configured = match backend {
        Backend::Vxlan { mtu, .. } => mtu.map(u32::from),
        Backend::Udp { .. } => None,
    };
    if let Some(configured) = configured.filter(|&configured| configured > underlay.mtu) {
        let (name, mtu) = (underlay.name.clone(), underlay.mtu);
        return Err(UnderlayError::MtuBelowConfigured { name, mtu, configured }.into());
    }
    let underlay = Underlay { mtu: configured.unwrap_or(underlay.mtu), ..underlay.clone() };
    Ok(underlay.overlay_mtu(overhead(&underlay, backend), least_mtu(has_ipv6))?)
}
