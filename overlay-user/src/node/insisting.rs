//! [`Insisting`]: the nodes that insist on UDP checksums over IPv6.

use std::{collections::BTreeMap, net::IpAddr};

use ipnetwork::IpNetwork;
use overlay_common::Route;
use rtnetlink::Handle;

use crate::{
    link::{self, LinkError, OverlayLink},
    mac::Mac,
};

/// The routes to nodes that insist on UDP checksums over IPv6. Our programs send the checksum 0 there, so what is for these is
/// left to the kernel's VXLAN device, which must know them.
#[derive(Debug, Default)]
pub(super) struct Insisting {
    routes: BTreeMap<IpNetwork, Route>,
}

impl Insisting {
    /// Those among all routes.
    pub(super) fn among(routes: &BTreeMap<IpNetwork, Route>) -> Self {
        let insisting = routes.iter().filter(|(_, route)| route.wants_checksum());
        Self { routes: insisting.map(|(&subnet, &route)| (subnet, route)).collect() }
    }

    /// Takes note of where packets for `subnet` go from now on. Returns whether the device must be told.
    pub(super) fn note(&mut self, subnet: IpNetwork, route: Option<Route>) -> bool {
        match route.filter(Route::wants_checksum) {
            Some(route) => self.routes.insert(subnet, route) != Some(route),
            None => self.routes.remove(&subnet).is_some(),
        }
    }

    /// Tells the device over IPv6 where these nodes are.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(super) async fn tell(&self, handle: &Handle, device: &OverlayLink) -> Result<(), LinkError> {
        let node = |route: &Route| match route.next_hop().ip() {
            IpAddr::V6(node) => Some((Mac(route.vtep_mac()), node)),
            IpAddr::V4(_) => None,
        };
        link::forward_to(handle, device, &self.routes.values().filter_map(node).collect()).await
    }
}
