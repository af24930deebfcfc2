//! [`Container`]: a network namespace on the bridge of a node.

use std::net::Ipv4Addr;

use anyhow::Result;

use super::BRIDGE;
use crate::{netns::Netns, subnet_env::SubnetEnv};

/// A container: a network namespace with one interface, `eth0`, on the bridge of a node.
#[derive(Debug, Clone)]
pub struct Container {
    /// The namespace the container is.
    pub netns: Netns,
    /// Its address in the overlay network.
    pub address: Ipv4Addr,
}

impl Container {
    /// Makes a bridge in the namespace `node`, and a container on it with the second address of `subnet`.
    ///
    /// # Errors
    ///
    /// When `ip` fails.
    pub fn on_bridge(node: &Netns, subnet: &SubnetEnv) -> Result<Self> {
        Self::on_bridge_of(node, subnet, BRIDGE, "container")
    }

    /// The same with a `bridge` of that name, such as that of another overlay; `veth` is the container's name on the node.
    ///
    /// # Errors
    ///
    /// When `ip` fails.
    pub fn on_bridge_of(node: &Netns, subnet: &SubnetEnv, bridge: &str, veth: &str) -> Result<Self> {
        node.bridge(bridge)?;
        node.ip(&format!("link set dev {bridge} mtu {}", subnet.mtu))?;
        node.ip(&format!("address add {}/{} dev {bridge}", subnet.gateway, subnet.length))?;
        Self::join_bridge(node, subnet, bridge, veth, 2)
    }

    /// Makes a container with the address `host` of `subnet` on the bridge that is there; `veth` is its name on the node.
    ///
    /// # Errors
    ///
    /// When `ip` fails.
    pub fn join(node: &Netns, subnet: &SubnetEnv, veth: &str, host: u32) -> Result<Self> {
        Self::join_bridge(node, subnet, BRIDGE, veth, host)
    }

    fn join_bridge(node: &Netns, subnet: &SubnetEnv, bridge: &str, veth: &str, host: u32) -> Result<Self> {
        let (gateway, length) = (subnet.gateway, subnet.length);
        let container = Self { netns: Netns::new()?, address: subnet.address(host) };
        node.veth(veth, &container.netns, "eth0", subnet.mtu)?;
        node.ip(&format!("link set dev {veth} master {bridge}"))?;
        container.netns.ip(&format!("address add {}/{length} dev eth0", container.address))?;
        container.netns.ip(&format!("route add default via {gateway}"))?;
        Ok(container)
    }
}
