//! [`Underlay`]: the nodes' network, a bridge in a namespace of its own.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::Result;
use ipnetwork::IpNetwork;

use crate::{families::Families, netns::Netns, node::UNDERLAY_DEVICE};

/// The bridge that everybody is attached to.
const BRIDGE: &str = "underlay";

/// The nodes' network.
#[derive(Debug)]
pub struct Underlay {
    netns: Netns,
    families: Families,
    mtu: u32,
}

impl Underlay {
    /// A network with addresses of these families, links of this MTU in bytes, and nobody on it.
    ///
    /// # Errors
    ///
    /// When the namespace or the bridge cannot be made, as without root.
    pub fn new(families: Families, mtu: u32) -> Result<Self> {
        let netns = Netns::new()?;
        netns.bridge(BRIDGE)?;
        Ok(Self { netns, families, mtu })
    }

    /// The namespace with the bridge, whose ports are named after those who are attached.
    #[must_use]
    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    /// The MTU of its links, in bytes.
    #[must_use]
    pub fn mtu(&self) -> u32 {
        self.mtu
    }

    /// The IPv4 address of `host`.
    #[must_use]
    pub const fn v4(host: u8) -> Ipv4Addr {
        Ipv4Addr::new(192, 168, 50, host)
    }

    /// The IPv6 address of `host`.
    #[must_use]
    pub const fn v6(host: u8) -> Ipv6Addr {
        Ipv6Addr::new(0xfd50, 0, 0, 0, 0, 0, 0, host as u16)
    }

    /// The addresses of `host` on this network.
    #[must_use]
    pub fn addresses(&self, host: u8) -> Vec<IpAddr> {
        self.families.of(Self::v4(host).into(), Self::v6(host).into())
    }

    /// Makes a namespace on this network that has the addresses of `host`: its device is [`UNDERLAY_DEVICE`], the
    /// bridge's port is called `port`.
    ///
    /// # Errors
    ///
    /// When `ip` fails, for example because somebody has that name.
    pub fn attach(&self, port: &str, host: u8) -> Result<Netns> {
        let netns = Netns::new()?;
        self.netns.veth(port, &netns, UNDERLAY_DEVICE, self.mtu)?;
        self.netns.ip(&format!("link set dev {port} master {BRIDGE}"))?;
        for address in self.addresses(host) {
            let length = if address.is_ipv4() { 24 } else { 64 };
            netns.add_address(UNDERLAY_DEVICE, IpNetwork::new(address, length)?)?;
        }
        Ok(netns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_reach_each_other_over_the_families_that_the_network_has_and_no_other() {
        for families in Families::ALL {
            let underlay = Underlay::new(families, 1500).unwrap();
            let one = underlay.attach("one", 1).unwrap();
            let _two = underlay.attach("two", 2).unwrap();
            for (address, has) in
                [(IpAddr::from(Underlay::v4(2)), families.has_v4()), (Underlay::v6(2).into(), families.has_v6())]
            {
                let answered =
                    one.command("ping").args(["-q", "-n", "-c1", "-W5", &address.to_string()]).output().unwrap();
                assert_eq!(answered.status.success(), has, "{address} with {families:?}: {answered:?}");
            }
        }
    }
}
