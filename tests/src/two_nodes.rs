//! Two nodes with a container each: the ground of the tests that look at packets.

use std::time::Duration;

use ipnetwork::IpNetwork;
use overlay_common::Reason;

use crate::{
    cluster::{Backend, Cluster, Datastore, Settings},
    families::Families,
    node::{BRIDGE, CONTAINER_DEVICE, Node, VETH},
    sandbox::isolated,
    traffic::Flow,
};

/// How long something that must happen may take.
pub const LIMIT: Duration = Duration::from_secs(5);

/// How packets travel: what kind of them, and over what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Way {
    /// How they cross the underlay.
    pub backend: Backend,
    /// The families of the containers' addresses. Where there are both, IPv4 is what travels.
    pub overlay: Families,
    /// The family of the nodes' addresses.
    pub underlay: Families,
}

impl Way {
    /// An overlay of IPv4 alone is flannel's, which wants it outside as well: this one has IPv6 beside it.
    pub const IPV4_OVER_IPV6: Self = Self::vxlan(Families::Dual, Families::V6);
    /// IPv6 over an underlay of IPv4.
    pub const IPV6_OVER_IPV4: Self = Self::vxlan(Families::V6, Families::V4);
    /// IPv6 over an underlay of IPv6.
    pub const IPV6_OVER_IPV6: Self = Self::vxlan(Families::V6, Families::V6);

    /// Packets of one family over nodes of one.
    #[must_use]
    pub const fn vxlan(overlay: Families, underlay: Families) -> Self {
        Self { backend: Backend::Vxlan, overlay, underlay }
    }

    /// The overlay device.
    #[must_use]
    pub const fn device(self) -> &'static str {
        match (self.backend, self.underlay.has_v6()) {
            (Backend::Udp, _) => "overlay.0",
            (Backend::Vxlan, false) => "overlay.1",
            (Backend::Vxlan, true) => "overlay-v6.1",
        }
    }

    /// The least bytes of an IP header inside.
    #[must_use]
    pub const fn inner_header(self) -> u32 {
        if self.overlay.has_v4() { 20 } else { 40 }
    }

    /// What encap adds, in bytes.
    #[must_use]
    pub const fn overhead(self) -> u32 {
        let ip = if self.underlay.has_v6() { 40 } else { 20 };
        match self.backend {
            Backend::Udp => ip + 8,
            Backend::Vxlan => ip + 8 + 8 + 14,
        }
    }
}

impl From<Backend> for Way {
    /// IPv4 over IPv4.
    fn from(backend: Backend) -> Self {
        Self { backend, overlay: Families::V4, underlay: Families::V4 }
    }
}

/// Two nodes, and their leases in files: etcd takes no part in what these tests look at.
#[must_use]
pub fn settings(way: impl Into<Way>) -> Settings {
    let Way { backend, overlay, underlay } = way.into();
    Settings { backend, overlay, underlay, datastore: Datastore::File, ..Settings::default() }
}

/// Runs `test` on two nodes with a container each.
///
/// # Panics
///
/// When the cluster does not come up, or `test` panics.
pub fn on_two_nodes(settings: &Settings, test: impl FnOnce(&mut Cluster) + Send) {
    isolated(|| test(&mut Cluster::start(settings).expect("start a cluster")));
}

/// The two nodes of a cluster.
///
/// # Panics
///
/// When it has more or fewer.
#[must_use]
pub fn two(cluster: &Cluster) -> [&Node; 2] {
    let [one, two] = cluster.nodes() else { panic!("not two nodes") };
    [one, two]
}

/// From the container of `from` to that of `to`.
#[must_use]
pub fn flow(from: &Node, to: &Node) -> Flow {
    let (from, to) = (from.container(), to.container());
    Flow::new(&from.netns, &to.netns, to.address())
}

/// What the bridge of a node has for its containers: its address, and the length of their subnet.
#[must_use]
pub fn gateway(node: &Node) -> IpNetwork {
    node.subnet().subnets[0].gateway
}

/// What a node has dropped of what others have sent. Where it forwards IPv6, its own kernel tells of its devices' multicast
/// groups, which nobody is to hear.
///
/// # Panics
///
/// When the maps cannot be read.
#[must_use]
pub fn drops(node: &Node) -> Vec<(Reason, u64)> {
    let drops = node.counters().drops().expect("read DROPS");
    drops.into_iter().filter(|(reason, _)| *reason != Reason::NotUnicast).collect()
}

/// How many packets a node has dropped for `reason`.
///
/// # Panics
///
/// When the maps cannot be read.
#[must_use]
pub fn dropped(node: &Node, reason: Reason) -> u64 {
    let drops = node.counters().drops().expect("read DROPS");
    drops.iter().find(|(counted, _)| *counted == reason).map_or(0, |(_, packets)| *packets)
}

/// Lets the container of a node send larger packets than the overlay carries.
///
/// # Panics
///
/// When `ip` fails.
pub fn raise_container_mtu(node: &Node) {
    for device in [VETH, BRIDGE] {
        node.netns().ip(&format!("link set dev {device} mtu 9000")).expect("raise the MTU on the node's side");
    }
    let raise = format!("link set dev {CONTAINER_DEVICE} mtu 9000");
    node.container().netns.ip(&raise).expect("raise the MTU in the container");
}

/// Writes a test for either `Backend`, which has to be in scope, that calls a function with it.
#[macro_export]
macro_rules! for_either_backend {
    ($($(#[$attribute:meta])* fn $name:ident($backend:ident) $body:block)*) => {$(
        $crate::for_cases! {
            $(#[$attribute])* fn $name($backend: Backend) $body
            udp => Backend::Udp,
            vxlan => Backend::Vxlan,
        }
    )*};
}

/// Writes a test for each family inside and outside that calls a function with the [`Way`]: IPv4 with either backend, and IPv6.
#[macro_export]
macro_rules! for_each_family {
    ($($(#[$attribute:meta])* fn $name:ident($way:ident) $body:block)*) => {$(
        $crate::for_cases! {
            $(#[$attribute])* fn $name($way: $crate::two_nodes::Way) $body
            udp => $crate::cluster::Backend::Udp.into(),
            vxlan => $crate::cluster::Backend::Vxlan.into(),
            ipv6 => $crate::two_nodes::Way::IPV6_OVER_IPV6,
        }
    )*};
}

/// Writes a test for every [`Way`] that calls a function with it: IPv4 with either backend, and every other pair of families.
#[macro_export]
macro_rules! for_every_way {
    ($($(#[$attribute:meta])* fn $name:ident($way:ident) $body:block)*) => {$(
        $crate::for_cases! {
            $(#[$attribute])* fn $name($way: $crate::two_nodes::Way) $body
            udp => $crate::cluster::Backend::Udp.into(),
            vxlan => $crate::cluster::Backend::Vxlan.into(),
            ipv4_over_ipv6 => $crate::two_nodes::Way::IPV4_OVER_IPV6,
            ipv6_over_ipv4 => $crate::two_nodes::Way::IPV6_OVER_IPV4,
            ipv6_over_ipv6 => $crate::two_nodes::Way::IPV6_OVER_IPV6,
        }
    )*};
}

/// What the macros above write: a module with the function, and a test for each case that calls it.
#[doc(hidden)]
#[macro_export]
macro_rules! for_cases {
    ($(#[$attribute:meta])* fn $name:ident($case:ident: $kind:ty) $body:block $($test:ident => $value:expr,)*) => {
        mod $name {
            use super::*;

            $(#[$attribute])*
            fn check($case: $kind) $body

            $(
                #[test]
                fn $test() {
                    check($value);
                }
            )*
        }
    };
}
