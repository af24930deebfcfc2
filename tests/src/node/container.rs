//! [`Container`]: a network namespace on the bridge of a node.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context, Result};
use ipnetwork::IpNetwork;

use crate::{
    families::{v4_among, v6_among},
    netns::Netns,
    subnet_env::SubnetEnv,
};

/// The name of a container's interface.
pub const CONTAINER_DEVICE: &str = "eth0";

/// The bridge that the container of a node is attached to.
pub const BRIDGE: &str = "br0";

/// The node's side of its container's interface.
pub const VETH: &str = "container";

/// What containers of a node are told of their network.
#[derive(Debug, Clone)]
pub struct ContainerNetwork {
    /// The bridge's addresses, one of each family that there is, with the lengths of their subnets.
    pub gateways: Vec<IpNetwork>,
    /// MTU of the bridge and of the containers' interfaces, in bytes.
    pub mtu: u32,
}

impl From<&SubnetEnv> for ContainerNetwork {
    fn from(subnet: &SubnetEnv) -> Self {
        Self { gateways: subnet.subnets.iter().map(|subnet| subnet.gateway).collect(), mtu: subnet.mtu }
    }
}

/// A container: a network namespace with one interface, [`CONTAINER_DEVICE`], on the bridge of a node.
#[derive(Debug, Clone)]
pub struct Container {
    /// The namespace the container is.
    pub netns: Netns,
    /// Its addresses in the overlay network, one of each family that there is.
    pub addresses: Vec<IpAddr>,
}

impl Container {
    /// Makes a bridge in the namespace `node`, and a container on it with the second address of each subnet.
    ///
    /// # Errors
    ///
    /// When `ip` fails.
    pub fn on_bridge(node: &Netns, network: impl Into<ContainerNetwork>) -> Result<Self> {
        Self::on_bridge_of(node, network, BRIDGE, VETH)
    }

    /// The same with a `bridge` of that name, such as that of another overlay; `veth` is the container's name on the node.
    ///
    /// # Errors
    ///
    /// When `ip` fails.
    pub fn on_bridge_of(node: &Netns, network: impl Into<ContainerNetwork>, bridge: &str, veth: &str) -> Result<Self> {
        let network = network.into();
        node.bridge(bridge)?;
        node.ip(&format!("link set dev {bridge} mtu {}", network.mtu))?;
        for gateway in &network.gateways {
            node.add_address(bridge, *gateway)?;
        }
        let container = Self::join_bridge(node, &network, bridge, veth, 2)?;
        if network.gateways.iter().any(IpNetwork::is_ipv6) {
            // Its link is up since it has a port.
            node.wait_link_local(bridge)?;
        }
        Ok(container)
    }

    /// Makes a container with the address `host` of each subnet on the bridge that is there; `veth` is its name on the
    /// node.
    ///
    /// # Errors
    ///
    /// When `ip` fails.
    pub fn join(node: &Netns, network: impl Into<ContainerNetwork>, veth: &str, host: u32) -> Result<Self> {
        Self::join_bridge(node, &network.into(), BRIDGE, veth, host)
    }

    fn join_bridge(node: &Netns, network: &ContainerNetwork, bridge: &str, veth: &str, host: u32) -> Result<Self> {
        let netns = Netns::new()?;
        node.veth(veth, &netns, CONTAINER_DEVICE, network.mtu)?;
        node.ip(&format!("link set dev {veth} master {bridge}"))?;
        let mut addresses = Vec::new();
        for gateway in &network.gateways {
            let address = address_in(*gateway, host).with_context(|| format!("find address {host} of {gateway}"))?;
            netns.add_address(CONTAINER_DEVICE, IpNetwork::new(address, gateway.prefix())?)?;
            netns.add_default_route(gateway.ip())?;
            addresses.push(address);
        }
        Ok(Self { netns, addresses })
    }

    /// Its address, the IPv4 one if it has both.
    ///
    /// # Panics
    ///
    /// When it has none.
    #[must_use]
    pub fn address(&self) -> IpAddr {
        *self.addresses.first().expect("the container has an address")
    }

    /// Its IPv4 address.
    ///
    /// # Panics
    ///
    /// When it has none.
    #[must_use]
    pub fn v4(&self) -> Ipv4Addr {
        v4_among(&self.addresses).expect("the container has an IPv4 address")
    }

    /// Its IPv6 address.
    ///
    /// # Panics
    ///
    /// When it has none.
    #[must_use]
    pub fn v6(&self) -> Ipv6Addr {
        v6_among(&self.addresses).expect("the container has an IPv6 address")
    }
}

/// The address `number` places after the network address of `network`; `None` when that is outside of it.
fn address_in(network: IpNetwork, number: u32) -> Option<IpAddr> {
    match network {
        IpNetwork::V4(network) => network.nth(number).map(IpAddr::V4),
        IpNetwork::V6(network) => network.nth(number.into()).map(IpAddr::V6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{families::Families, traffic::ping};

    #[test]
    fn containers_have_addresses_of_the_families_of_their_subnets_and_reach_each_other_and_the_gateway() {
        let [v4, v6] = ["10.1.7.1/24", "fd00:10:1:7::1/64"].map(|gateway| gateway.parse::<IpNetwork>().unwrap());
        for families in Families::ALL {
            let node = Netns::new().unwrap();
            let network = ContainerNetwork { gateways: families.of(v4, v6), mtu: 1400 };
            let one = Container::on_bridge(&node, network.clone()).unwrap();
            let two = Container::join(&node, network.clone(), "two", 3).unwrap();
            let expected = families.of(IpAddr::from([10, 1, 7, 3]), "fd00:10:1:7::3".parse().unwrap());
            assert_eq!(two.addresses, expected);
            let gateways = network.gateways.iter().map(IpNetwork::ip);
            for address in two.addresses.iter().copied().chain(gateways) {
                assert_eq!(ping(&one.netns, address, 1).unwrap().received, 1, "{address}");
            }
        }
    }
}
