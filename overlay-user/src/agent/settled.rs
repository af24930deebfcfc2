//! [`Settled`]: what a node has settled on before it asks for a subnet, and what it has found for that.

use std::net::{Ipv4Addr, Ipv6Addr};

use anyhow::{Context as _, Result};
use rtnetlink::Handle;

use crate::{
    allocate::Previous,
    config::AgentConfig,
    holder::Claim,
    link::{self, LinkError},
    listener::Listener,
    mac::Mac,
    maps::Capacities,
    network::{Backend, NetworkConfig, Ranges},
    node::{self, Macs, Plan},
    subnet_file::PreviousSubnetFile,
    underlay::Underlay,
};

/// Makes sure that nobody else has the tunnel's port. For `udp` the socket is kept; for VXLAN the kernel's device
/// will own the port, unless it does so already.
pub(crate) async fn claim_port(backend: &Backend, underlay: &Underlay, adopted: &Adopted) -> Result<Option<Listener>> {
    match backend {
        Backend::Udp { port } => {
            let end = underlay.ends().next().context("the udp backend needs an underlay address")?;
            Ok(Some(Listener::bind(end.address, *port).await?))
        }
        Backend::Vxlan { port, .. } => {
            if underlay.ipv4.is_some() && adopted.v4.1.is_none() {
                drop(Listener::bind(Ipv4Addr::UNSPECIFIED, *port).await?);
            }
            if underlay.ipv6.is_some() && adopted.v6.1.is_none() {
                drop(Listener::bind(Ipv6Addr::UNSPECIFIED, *port).await?);
            }
            Ok(None)
        }
    }
}

/// The overlay devices that an earlier agent has left, by name and MAC address.
#[derive(Debug, Clone)]
pub(crate) struct Adopted {
    v4: (String, Option<[u8; 6]>),
    v6: (String, Option<[u8; 6]>),
}

impl Adopted {
    /// Looks for those of this backend.
    ///
    /// # Errors
    /// When the kernel does not say which interfaces there are.
    pub(crate) async fn find(handle: &Handle, backend: &Backend) -> Result<Self, LinkError> {
        let mut adopted = Self::none(backend);
        for (name, mac) in [&mut adopted.v4, &mut adopted.v6] {
            *mac = link::mac_of(handle, name).await?;
        }
        Ok(adopted)
    }

    /// None is there, as far as anybody knows.
    pub(crate) fn none(backend: &Backend) -> Self {
        let (v4, v6) = (link::device_name(backend.vni()), link::ipv6_device_name(backend.vni()));
        Self { v4: (v4, None), v6: (v6, None) }
    }

    /// The names of those that are there.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        [&self.v4, &self.v6].into_iter().filter(|(_, mac)| mac.is_some()).map(|(name, _)| name.as_str())
    }

    /// Their MAC addresses, which other nodes know; new ones for those that are not there.
    pub(crate) fn macs(&self) -> Macs {
        let mac = |mac: Option<[u8; 6]>| mac.unwrap_or_else(|| Mac::random().0);
        Macs { v4: mac(self.v4.1), v6: mac(self.v6.1) }
    }
}

/// What this node has settled on before it asks for a subnet.
#[derive(Debug, Clone)]
pub(crate) struct Settled {
    /// The network config.
    pub(crate) network: NetworkConfig,
    /// The underlay interface.
    pub(crate) underlay: Underlay,
    /// MTU of the overlay devices in bytes.
    pub(crate) mtu: u32,
    /// The MAC addresses of the overlay devices.
    pub(crate) macs: Macs,
}

impl Settled {
    /// Who claims subnets, and which ones this node had before.
    pub(crate) fn claim(&self, config: &AgentConfig) -> Claim {
        let node = node::presented(&self.network.backend, &self.underlay, self.macs);
        let previous = PreviousSubnetFile::read(&config.subnet_file);
        Claim {
            previous: Previous { v4: previous.subnet, v6: previous.ipv6_subnet },
            renew_margin: config.renew_margin,
            ..Claim::new(node)
        }
    }

    /// What the overlay on this node has to be once it owns the subnets in `ranges`.
    pub(crate) fn plan(self, config: &AgentConfig, ranges: Ranges) -> Plan {
        Plan {
            backend: self.network.backend,
            ranges,
            underlay: self.underlay,
            macs: self.macs,
            mtu: self.mtu,
            decap: config.decap,
            flow_ttl: config.flow_ttl,
            log_drops: config.log_drops,
            clsact: config.clsact,
            capacities: Capacities { ipv6: ranges.ipv6.is_some(), ..config.capacities },
        }
    }
}
