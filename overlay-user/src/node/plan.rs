//! [`Plan`]: what the overlay on this node has to be, and what follows from it.

use std::net::Ipv4Addr;

use anyhow::Result;
use ipnetwork::Ipv4Network;
use overlay_common::{LocalNode, Ticks, Vtep};
use rtnetlink::Handle;

use crate::{
    cli::Decap,
    direct::DirectRoutes,
    link::{LinkConfig, LinkKind, VxlanConfig},
    loader::Constants,
    maps::Capacities,
    network::{Backend, Range},
    underlay::{MIN_OVERLAY_MTU, Underlay, UnderlayError},
};

/// What the overlay on this node has to be, as config, datastore and interfaces say.
#[derive(Debug, Clone)]
pub struct Plan {
    /// How packets travel.
    pub backend: Backend,
    /// The overlay network.
    pub network: Ipv4Network,
    /// The subnet that this node owns.
    pub subnet: Ipv4Network,
    /// The underlay interface.
    pub underlay: Underlay,
    /// MAC address of the overlay device, as the lease says it.
    pub mac: [u8; 6],
    /// MTU of the overlay device in bytes.
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

    pub(crate) fn link(&self) -> LinkConfig {
        let kind = match self.backend {
            Backend::Udp { .. } => LinkKind::Udp,
            Backend::Vxlan { vni, port, .. } => {
                LinkKind::Vxlan(VxlanConfig { vni, port, local: self.underlay.address.into() })
            }
        };
        let ipv4 = Some(Range { network: self.network, subnet: self.subnet });
        LinkConfig { kind, ipv4, ipv6: None, mtu: self.mtu, mac: Some(self.mac) }
    }

    pub(super) fn direct_routes(&self, handle: &Handle) -> DirectRoutes {
        DirectRoutes::new(handle.clone(), self.network, self.underlay.ifindex, self.backend.direct_routing())
    }

    /// This node as the programs see it; `subnet` is ours, and `fast_mtu`, in bytes, what the fast path carries.
    pub(super) fn local_node(&self, subnet: Ipv4Addr, overlay_ifindex: u32, fast_mtu: u32) -> LocalNode {
        let (port, vni) = (self.backend.port(), self.backend.vni());
        let vtep = Vtep { address: self.underlay.address, mac: self.mac, port, vni };
        let network = (self.network.ip(), self.network.prefix());
        let range = overlay_common::Range::new(network, (subnet, self.subnet.prefix()));
        LocalNode::new(self.underlay.ifindex)
            .over::<[u8; 4]>(&vtep, overlay_ifindex)
            .with::<[u8; 4]>(range, u16::try_from(fast_mtu).unwrap_or(u16::MAX))
    }
}

/// The overlay's MTU in bytes: what encap leaves of the backend's MTU or, if it has none, of the underlay's.
///
/// # Errors
/// When too little is left, or the backend's is more than the underlay's: the kernel makes no such device.
pub fn overlay_mtu(underlay: &Underlay, backend: &Backend) -> Result<u32> {
    let configured = match backend {
        Backend::Vxlan { mtu, .. } => mtu.map(u32::from),
        Backend::Udp { .. } => None,
    };
    if let Some(configured) = configured.filter(|&configured| configured > underlay.mtu) {
        let (name, mtu) = (underlay.name.clone(), underlay.mtu);
        return Err(UnderlayError::MtuBelowConfigured { name, mtu, configured }.into());
    }
    let underlay = Underlay { mtu: configured.unwrap_or(underlay.mtu), ..underlay.clone() };
    Ok(underlay.overlay_mtu(backend.encapsulation().overhead::<[u8; 4]>(), MIN_OVERLAY_MTU)?)
}
