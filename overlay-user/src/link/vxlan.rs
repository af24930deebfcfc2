//! The kernel VXLAN device of VXLAN encapsulation.

use std::net::IpAddr;

use nix::errno::Errno;
use rtnetlink::packet_route::link::{InfoData, InfoKind, InfoVxlan, LinkMessage};
use rtnetlink::{Handle, LinkMessageBuilder, LinkVxlan};

use super::{Device, LinkConfig, LinkError, by_name, data, delete, errno, foreign, kind, links, mac, name, netlink};

/// The shape of a VXLAN device. A device of another shape is not adopted but replaced.
///
/// It is bound to no underlay interface: such a device would go with the interface, and packets for other nodes would leave
/// by the default route. A program at its egress redirects all packets but those for nodes that want UDP checksums over IPv6,
/// which [`forward_to`](super::forward_to) tells it of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VxlanConfig {
    /// VXLAN network number, 24 bits.
    pub vni: u32,
    /// UDP port of all nodes.
    pub port: u16,
    /// Outer source address, and so the address family of the underlay.
    pub local: IpAddr,
}

impl VxlanConfig {
    /// [`local`](Self::local) as the kernel has it.
    const fn local_info(&self) -> InfoVxlan {
        match self.local {
            IpAddr::V4(local) => InfoVxlan::Local(local),
            IpAddr::V6(local) => InfoVxlan::Local6(local),
        }
    }

    /// What a device must have beside its local address, which can be changed.
    fn required(&self) -> Vec<InfoVxlan> {
        let mut required = vec![InfoVxlan::Id(self.vni), InfoVxlan::Port(self.port), InfoVxlan::Learning(false)];
        if self.local.is_ipv6() {
            // Our own nodes send the checksum 0 over IPv6, which a receiver has to be told to take (RFC 6935). What goes out
            // by the device itself is for nodes that do not take it.
            required.extend([InfoVxlan::UDPZeroCsumTX(false), InfoVxlan::UDPZeroCsumRX(true)]);
        }
        required
    }
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
            if !vxlan_data(link).contains(&wanted.local_info()) {
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
    let over_ipv6 = wanted.local.is_ipv6();
    let message = message(name, wanted).port(wanted.port).learning(false);
    let message = if over_ipv6 { message.udp_zero_csum6_tx(false).udp_zero_csum6_rx(true) } else { message };
    handle.link().add(message.build()).execute().await.map_err(|error| match errno(&error) {
        Some(Errno::EOPNOTSUPP) => netlink(format!("create {name}: is the kernel module vxlan there?"))(error),
        _ => netlink(format!("create VXLAN device {name}"))(error),
    })
}

/// Gives the VXLAN device `name` the outer source address that `wanted` says.
///
/// # Errors
/// [`LinkError::Netlink`].
pub async fn set_local(handle: &Handle, name: &str, wanted: &VxlanConfig) -> Result<(), LinkError> {
    let changed = handle.link().change(message(name, wanted).build()).execute().await;
    changed.map_err(netlink(format!("set the local address of {name} to {}", wanted.local)))
}

/// The VXLAN device `name` with VNI and local address, as far as every request about it goes.
fn message(name: &str, wanted: &VxlanConfig) -> LinkMessageBuilder<LinkVxlan> {
    let message = LinkVxlan::new(name, wanted.vni);
    match wanted.local {
        IpAddr::V4(local) => message.local(local),
        IpAddr::V6(local) => message.local6(local),
    }
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
    wanted.required().iter().all(|info| infos.contains(info))
        && !infos.iter().any(changed)
        && is_over_ipv6(infos) == wanted.local.is_ipv6()
}

/// Whether the kernel would refuse ours beside `link`, or could not tell their packets apart.
fn clashes(link: &LinkMessage, wanted: &VxlanConfig) -> bool {
    let infos = vxlan_data(link);
    infos.contains(&InfoVxlan::Id(wanted.vni))
        && infos.contains(&InfoVxlan::Port(wanted.port))
        && is_over_ipv6(infos) == wanted.local.is_ipv6()
}

/// Over which of the underlay's families a device works: one without addresses takes IPv4.
fn is_over_ipv6(infos: &[InfoVxlan]) -> bool {
    infos.iter().any(|info| matches!(info, InfoVxlan::Local6(_) | InfoVxlan::Group6(_)))
}
