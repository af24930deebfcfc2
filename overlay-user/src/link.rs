//! The overlay device `overlay.N` (over an IPv6 underlay `overlay-v6.N`): where the kernel sends what is for other nodes, and
//! where packets from them come up.
//!
//! Routing knows one route of each address family, `NETWORK dev overlay.N`. What the kernel routes there meets the program at
//! the device's egress, which encapsulates it and redirects it to the underlay; what a program decapsulates without delivering
//! it itself is redirected to the device's ingress and goes up the stack from there. The device must do this while no
//! agent runs, and must not send anything by itself (no ARP, no multicast, no IPv6 link-local address).
//!
//! For VXLAN it is a **kernel VXLAN device**, which also decapsulates what the programs leave alone, and encapsulates what is for
//! nodes that want UDP checksums over IPv6.
//!
//! For UDP encapsulation it is a **persistent TAP device**. A TAP that no process has open has no carrier, which looks
//! as if it could not work; it does (tried on Linux 6.18): the route is shown as `linkdown` and still used, since
//! `ignore_routes_with_linkdown` is off (it is set to off on this device, whatever the default); the egress hook runs
//! before the queueing discipline that would drop the packet; and a redirect to the ingress asks only whether the
//! device is up. Forwarding goes on across an agent's exit, the forced one included. The alternatives are worse: a
//! VXLAN device used for its Ethernet face alone would open a UDP port that anyone can send to, a veth is two devices,
//! and dummy or ifb are modules that may be missing. The agent has the TAP open only to write packets into it that the
//! kernel had to reassemble (`listener`), and to notice a second agent, which cannot open it.

mod address;
mod error;
mod forwarding;
mod message;
mod parameters;
mod tap;
mod vxlan;
mod watch;
mod xdp_features;

use std::net::Ipv4Addr;

use futures::TryStreamExt;
use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};
use nix::errno::Errno;
use overlay_common::Encapsulation;
use rtnetlink::packet_route::link::{InfoKind, LinkMessage};
use rtnetlink::{Handle, LinkUnspec};

use crate::network::Range;

use error::{errno, netlink};
use message::{by_name, data, foreign, kind, mac, name};

pub use error::LinkError;
pub use forwarding::forward_to;
pub use parameters::{keep_advertised_routes, would_keep_advertised_routes};
pub use tap::Tap;
pub use vxlan::{VxlanConfig, set_local};
pub use watch::{LinkEvent, LinkWatch};
pub use xdp_features::{XdpFeaturesError, has_native_xdp};

/// What the names of overlay devices begin with, over an IPv4 underlay; a number follows.
pub const NAME_PREFIX: &str = "overlay.";

/// The same over an IPv6 underlay. There are two devices as flannel has two: a VXLAN device has one local address.
const IPV6_NAME_PREFIX: &str = "overlay-v6.";

/// How many characters the kernel allows in the name of an interface.
pub(crate) const MAX_NAME: usize = 15;

/// The name of the overlay device of the network with this VNI; 0 for UDP encapsulation.
#[must_use]
pub fn device_name(vni: u32) -> String {
    format!("{NAME_PREFIX}{vni}")
}

/// The same over an IPv6 underlay.
#[must_use]
pub fn ipv6_device_name(vni: u32) -> String {
    format!("{IPV6_NAME_PREFIX}{vni}")
}

/// The name of the overlay that `device` belongs to: that of its device over IPv4, be there one or not.
#[must_use]
pub fn overlay_of(device: &str) -> String {
    device.strip_prefix(IPV6_NAME_PREFIX).map_or_else(|| device.to_owned(), |vni| format!("{NAME_PREFIX}{vni}"))
}

/// The devices that the overlay `name` may have on this node, by its name for itself.
pub(crate) fn devices_of(name: &str) -> impl Iterator<Item = String> {
    let over_ipv6 = name.strip_prefix(NAME_PREFIX).map(|vni| format!("{IPV6_NAME_PREFIX}{vni}"));
    // With a long VNI there can be none over IPv6.
    std::iter::once(name.to_owned()).chain(over_ipv6.filter(|name| name.len() <= MAX_NAME))
}

/// What the overlay device has to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkConfig {
    /// The kind of device.
    pub kind: LinkKind,
    /// The IPv4 addresses that it is for, if any: the network is the destination of the one route, the network address of
    /// our subnet becomes the address of the device.
    pub ipv4: Option<Range<Ipv4Network>>,
    /// The IPv6 addresses that it is for, if any.
    pub ipv6: Option<Range<Ipv6Network>>,
    /// The IPv4 address of a device that IPv4 is not routed to but may come in by: from nodes that have no other way. Where
    /// a device has none, the kernel takes all IPv4 for misrouted that other devices lead back to, also with loose checks.
    pub ipv4_to_receive: Option<Ipv4Addr>,
    /// MTU in bytes: the underlay's less the overhead.
    pub mtu: u32,
    /// Ethernet address to set. None: an existing device keeps its own, a new one gets a random one.
    pub mac: Option<[u8; 6]>,
}

/// The kind of overlay device, by encapsulation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkKind {
    /// A persistent TAP device.
    Udp,
    /// A kernel VXLAN device.
    Vxlan(VxlanConfig),
}

/// The overlay device, set up.
#[derive(Debug)]
pub struct OverlayLink {
    /// Its name.
    pub name: String,
    /// Its interface index.
    pub ifindex: u32,
    /// Its Ethernet address.
    pub mac: [u8; 6],
    /// Its MTU in bytes.
    pub mtu: u32,
    /// Whether it was there already and has been taken over as it was.
    pub adopted: bool,
    /// For UDP encapsulation: the open TAP. No other process can open it as long as this lives.
    pub tap: Option<Tap>,
}

/// A device that is there, and whether this set-up has created it.
struct Device {
    ifindex: u32,
    mac: Option<[u8; 6]>,
    created: bool,
    tap: Option<Tap>,
}

impl LinkConfig {
    /// The name of the device: `overlay.` or, over an IPv6 underlay, `overlay-v6.` and the VNI, or 0 for UDP encapsulation.
    #[must_use]
    pub fn name(&self) -> String {
        match &self.kind {
            LinkKind::Udp => device_name(0),
            LinkKind::Vxlan(vxlan) if self.is_over_ipv6() => ipv6_device_name(vxlan.vni),
            LinkKind::Vxlan(vxlan) => device_name(vxlan.vni),
        }
    }

    /// Whether the device's tunnels are over IPv6.
    #[must_use]
    pub const fn is_over_ipv6(&self) -> bool {
        matches!(&self.kind, LinkKind::Vxlan(vxlan) if vxlan.local.is_ipv6())
    }

    /// The encapsulation that the device is for.
    #[must_use]
    pub fn encapsulation(&self) -> Encapsulation {
        match &self.kind {
            LinkKind::Udp => Encapsulation::Udp,
            LinkKind::Vxlan(_) => Encapsulation::Vxlan,
        }
    }

    /// The addresses that the device is for, by family.
    pub(crate) fn ranges(&self) -> impl Iterator<Item = Range<IpNetwork>> {
        self.ipv4.map(Range::of_any_family).into_iter().chain(self.ipv6.map(Range::of_any_family))
    }
}

/// Creates the overlay device, or takes over one that is there, and gives it address, route and parameters.
///
/// Doing it again changes nothing. When it fails half way, a device that it has created is gone again.
///
/// # Errors
/// [`LinkError`]
pub async fn set_up(handle: &Handle, config: &LinkConfig) -> Result<OverlayLink, LinkError> {
    let links = links(handle).await?;
    refuse(handle, config, &links).await?;
    let device = match &config.kind {
        LinkKind::Udp => tap::open(handle, &config.name(), &links).await?,
        LinkKind::Vxlan(vxlan) => vxlan::create(handle, config, vxlan, &links).await?,
    };
    match configure(handle, config, &device).await {
        Ok(mac) => Ok(OverlayLink {
            name: config.name(),
            ifindex: device.ifindex,
            mac,
            mtu: config.mtu,
            adopted: !device.created,
            tap: device.tap,
        }),
        Err(error) if device.created => Err(match delete(handle, &config.name(), device.ifindex).await {
            Ok(()) => error,
            Err(undo) => LinkError::NotUndone { error: Box::new(error), undo: Box::new(undo) },
        }),
        Err(error) => Err(error),
    }
}

/// Refuses what [`set_up`] would refuse, as far as that shows without trying. Changes nothing.
///
/// # Errors
/// [`LinkError`]
pub async fn preview(handle: &Handle, config: &LinkConfig) -> Result<(), LinkError> {
    refuse(handle, config, &links(handle).await?).await
}

/// Refuses devices and routes of others in the place of ours.
async fn refuse(handle: &Handle, config: &LinkConfig, links: &[LinkMessage]) -> Result<(), LinkError> {
    match &config.kind {
        LinkKind::Udp => tap::refuse(&config.name(), links)?,
        LinkKind::Vxlan(vxlan) => vxlan::refuse(&config.name(), vxlan, links)?,
    }
    address::refuse(handle, config, links).await
}

/// Removes the overlay device `name`; its address and routes go with it. Says whether there was one.
///
/// # Errors
/// [`LinkError::Foreign`] when the device of that name cannot be ours, [`LinkError::Netlink`].
pub async fn remove(handle: &Handle, name: &str) -> Result<bool, LinkError> {
    let links = links(handle).await?;
    let Some(link) = by_name(&links, name) else { return Ok(false) };
    match kind(link) {
        Some(InfoKind::Tun | InfoKind::Vxlan) => delete(handle, name, link.header.index).await.map(|()| true),
        _ => Err(foreign(link)),
    }
}

/// The Ethernet address of device `name`, if there is such a device.
///
/// # Errors
/// [`LinkError::Netlink`].
pub async fn mac_of(handle: &Handle, name: &str) -> Result<Option<[u8; 6]>, LinkError> {
    Ok(by_name(&links(handle).await?, name).and_then(mac))
}

/// Whether interface `ifindex` is one end of a veth.
///
/// # Errors
/// [`LinkError::Netlink`].
pub async fn is_veth(handle: &Handle, ifindex: u32) -> Result<bool, LinkError> {
    let links = links(handle).await?;
    let link = links.iter().find(|link| link.header.index == ifindex);
    Ok(link.and_then(kind) == Some(&InfoKind::Veth))
}

/// The names of all overlay devices of this node.
///
/// # Errors
/// [`LinkError::Netlink`].
pub async fn list(handle: &Handle) -> Result<Vec<String>, LinkError> {
    let links = links(handle).await?;
    Ok(links.iter().filter(|link| is_overlay_device(link)).map(|link| name(link).to_owned()).collect())
}

/// Whether `link` is an overlay device, by name and kind.
pub(crate) fn is_overlay_device(link: &LinkMessage) -> bool {
    let number = |prefix| name(link).strip_prefix(prefix)?.parse::<u32>().ok();
    number(NAME_PREFIX).or_else(|| number(IPV6_NAME_PREFIX)).is_some()
        && matches!(kind(link), Some(InfoKind::Tun | InfoKind::Vxlan))
}

/// Gives the overlay device `ifindex` another MTU, in bytes.
///
/// # Errors
/// [`LinkError::Netlink`].
pub async fn set_mtu(handle: &Handle, ifindex: u32, mtu: u32) -> Result<(), LinkError> {
    let message = LinkUnspec::new_with_index(ifindex).mtu(mtu).build();
    handle.link().set(message).execute().await.map_err(netlink(format!("set MTU of interface {ifindex} to {mtu}")))
}

/// Everything after the device exists. Returns its MAC address.
async fn configure(handle: &Handle, config: &LinkConfig, device: &Device) -> Result<[u8; 6], LinkError> {
    let name = config.name();
    parameters::silence(&name)?;
    // A MAC that was set is left alone by systemd's MACAddressPolicy; one that the kernel drew is not.
    let new_mac = config.mac.or_else(|| device.created.then(|| device.mac.unwrap_or_else(random_mac)));
    let mut message = LinkUnspec::new_with_index(device.ifindex).mtu(config.mtu).arp(false).multicast(false);
    if let Some(mac) = new_mac.filter(|mac| Some(*mac) != device.mac || device.created) {
        message = message.address(mac.to_vec());
    }
    if matches!(config.kind, LinkKind::Udp) {
        // What the program at egress leaves alone would wait for somebody to read it from the TAP; nobody does.
        message = message.txqueuelen(1);
    }
    handle.link().set(message.build()).execute().await.map_err(netlink(format!("configure {name}")))?;
    let mac = new_mac.or(device.mac).ok_or_else(|| LinkError::Vanished(name.clone()))?;

    parameters::set(&name, config)?;
    address::assign(handle, config, device.ifindex).await?;
    bring_up(handle, config, device.ifindex).await?;
    address::route(handle, config, device.ifindex).await?;
    parameters::forward(config)?;
    Ok(mac)
}

async fn bring_up(handle: &Handle, config: &LinkConfig, ifindex: u32) -> Result<(), LinkError> {
    let name = config.name();
    let up = handle.link().set(LinkUnspec::new_with_index(ifindex).up().build()).execute().await;
    up.map_err(|error| match (&config.kind, errno(&error)) {
        (LinkKind::Vxlan(vxlan), Some(Errno::EADDRINUSE)) => LinkError::PortInUse { name, port: vxlan.port },
        _ => netlink(format!("bring up {name}"))(error),
    })
}

async fn links(handle: &Handle) -> Result<Vec<LinkMessage>, LinkError> {
    handle.link().get().execute().try_collect().await.map_err(netlink("list interfaces".to_owned()))
}

async fn delete(handle: &Handle, name: &str, ifindex: u32) -> Result<(), LinkError> {
    handle.link().del(ifindex).execute().await.map_err(netlink(format!("remove {name}")))
}

fn random_mac() -> [u8; 6] {
    let mut mac: [u8; 6] = rand::random();
    // Locally administered, and not a group address.
    mac[0] = mac[0] & 0xfe | 0x02;
    mac
}
