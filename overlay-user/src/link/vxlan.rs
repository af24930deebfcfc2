//! The kernel VXLAN device of VXLAN encapsulation.

use std::net::Ipv4Addr;

use nix::errno::Errno;
use rtnetlink::packet_route::link::{InfoData, InfoKind, InfoVxlan, LinkMessage};
use rtnetlink::{Handle, LinkVxlan};

use super::{Device, LinkConfig, LinkError, by_name, data, delete, errno, foreign, kind, links, mac, name, netlink};

/// The shape of a VXLAN device. A device of another shape is not adopted but replaced.
///
/// It is bound to no underlay interface: such a device would go with the interface, and packets for other nodes would leave
/// by the default route. Nothing is sent by it, since a program at its egress redirects all packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VxlanConfig {
    /// VXLAN network number, 24 bits.
    pub vni: u32,
    /// UDP port of all nodes.
    pub port: u16,
    /// Outer source address.
    pub local: Ipv4Addr,
}

/// Refuses what stands in the way of the VXLAN device `own_name`.
pub(super) fn refuse(own_name: &str, wanted: &VxlanConfig, before: &[LinkMessage]) -> Result<(), LinkError> {
    match by_name(before, own_name) {
        Some(link) if kind(link) != Some(&InfoKind::Vxlan) => return Err(foreign(link)),
        Some(link) if has_shape(link, wanted) => return Ok(()),
        _ => {}
    }
    if let Some(holder) = before.iter().find(|link| name(link) != own_name && clashes(link, wanted)) {
        let VxlanConfig { vni, port, .. } = *wanted;
        return Err(LinkError::VniTaken { name: own_name.to_owned(), holder: name(holder).to_owned(), vni, port });
    }
    Ok(())
}

/// Creates the VXLAN device, or adopts one of the right shape. Nothing is in its way: see [`refuse`].
pub(super) async fn create(
    handle: &Handle,
    config: &LinkConfig,
    wanted: &VxlanConfig,
    before: &[LinkMessage],
) -> Result<Device, LinkError> {
    let own_name = config.name();
    let mut keep_mac = None;
    if let Some(link) = by_name(before, &own_name) {
        let mac = mac(link);
        if has_shape(link, wanted) {
            if !vxlan_data(link).contains(&InfoVxlan::Local(wanted.local)) {
                set_local(handle, &own_name, wanted).await?;
            }
            return Ok(Device { ifindex: link.header.index, mac, created: false, tap: None });
        }
        tracing::info!(device = own_name, "replaced, as it has another shape than the configuration");
        keep_mac = mac;
        delete(handle, &own_name, link.header.index).await?;
    }
    add(handle, &own_name, wanted).await?;
    let after = links(handle).await?;
    let link = by_name(&after, &own_name).ok_or(LinkError::Vanished(own_name))?;
    Ok(Device { ifindex: link.header.index, mac: keep_mac, created: true, tap: None })
}

async fn add(handle: &Handle, name: &str, wanted: &VxlanConfig) -> Result<(), LinkError> {
    let message = LinkVxlan::new(name, wanted.vni).local(wanted.local).port(wanted.port).learning(false).build();
    handle.link().add(message).execute().await.map_err(|error| match errno(&error) {
        Some(Errno::EOPNOTSUPP) => netlink(format!("create {name}: is the kernel module vxlan there?"))(error),
        _ => netlink(format!("create VXLAN device {name}"))(error),
    })
}

/// Gives the VXLAN device `name` the outer source address that `wanted` says.
///
/// # Errors
/// [`LinkError::Netlink`].
pub async fn set_local(handle: &Handle, name: &str, wanted: &VxlanConfig) -> Result<(), LinkError> {
    let message = LinkVxlan::new(name, wanted.vni).local(wanted.local).build();
    let changed = handle.link().change(message).execute().await;
    changed.map_err(netlink(format!("set the local address of {name} to {}", wanted.local)))
}

fn vxlan_data(link: &LinkMessage) -> &[InfoVxlan] {
    match data(link) {
        Some(InfoData::Vxlan(infos)) => infos,
        _ => &[],
    }
}

/// Whether `link` is what [`add`] would create: every attribute that matters is there, none that would change it.
fn has_shape(link: &LinkMessage, wanted: &VxlanConfig) -> bool {
    let infos = vxlan_data(link);
    let required = [InfoVxlan::Id(wanted.vni), InfoVxlan::Port(wanted.port), InfoVxlan::Learning(false)];
    let changed = |info: &InfoVxlan| {
        matches!(
            info,
            InfoVxlan::Link(_)
                | InfoVxlan::Group(_)
                | InfoVxlan::Group6(_)
                | InfoVxlan::Gbp
                | InfoVxlan::Gpe
                | InfoVxlan::CollectMetadata(true)
                | InfoVxlan::Vnifilter(true)
                | InfoVxlan::Proxy(true)
                | InfoVxlan::Rsc(true)
                | InfoVxlan::L2Miss(true)
                | InfoVxlan::L3Miss(true)
        )
    };
    required.iter().all(|info| infos.contains(info)) && !infos.iter().any(changed)
}

/// Whether the kernel would refuse ours beside `link`, or could not tell their packets apart.
fn clashes(link: &LinkMessage, wanted: &VxlanConfig) -> bool {
    let infos = vxlan_data(link);
    infos.contains(&InfoVxlan::Id(wanted.vni)) && infos.contains(&InfoVxlan::Port(wanted.port))
}
