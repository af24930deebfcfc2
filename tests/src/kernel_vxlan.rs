//! [`KernelNode`] and [`KernelVxlan`]: nodes that are not ours, set up as flannel sets up its own for vxlan.
//!
//! Each family has a VXLAN device of its own, which carries that family over an underlay of the same: `flannel.1` IPv4
//! over IPv4, `flannel-v6.1` IPv6 over IPv6. They learn nothing from packets: three entries, all permanent, say who has a
//! remote subnet. The kernel fills in the outer UDP checksums, and over IPv6 it insists on receiving them.

use std::net::IpAddr;

use anyhow::{Context as _, Result, bail};
use ipnetwork::IpNetwork;
use overlay_user::{
    lease::{Backend, Lease},
    mac::Mac,
};
use serde_json::{Map, Value, json};

use crate::{
    netns::Netns,
    node::{Container, ContainerNetwork, UNDERLAY_DEVICE},
    packet_socket::mac,
    process::output,
};

/// The network number that flannel takes.
pub const VNI: u32 = 1;

/// The UDP port that flannel leaves the kernel to choose.
const PORT: u16 = 8472;

/// What flannel takes from the underlay's MTU, in bytes: too little for IPv6, where the kernel takes 20 more.
const OVERHEAD: u32 = 50;

/// What others must know of a node to reach its subnet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TunnelEnd {
    /// The subnet.
    pub subnet: IpNetwork,
    /// The node's underlay address.
    pub address: IpAddr,
    /// The address of its VXLAN device.
    pub mac: Mac,
}

impl TunnelEnd {
    /// The tunnel ends of a node by its lease at `key` in the datastore: one for each of its subnets, over the same family.
    ///
    /// # Errors
    ///
    /// When it is no lease for vxlan, or has no end over a subnet's family.
    pub fn of_lease(key: &str, value: &str) -> Result<Vec<Self>> {
        let key = key.rsplit('/').next().unwrap_or_default();
        let Lease { subnet, node } = Lease::parse(key, value.as_bytes())?;
        let Backend::Vxlan { v4, v6 } = node.backend else { bail!("{value} is no lease for vxlan") };
        let (ipv4, ipv6) = (v4.map(|vtep| (node.public_ip.into(), vtep)), node.public_ipv6.map(IpAddr::from).zip(v6));
        let end = |subnet: IpNetwork| {
            let end = if subnet.is_ipv4() { ipv4 } else { ipv6 };
            let (address, vtep) = end.with_context(|| format!("find an end over the family of {subnet} in {value}"))?;
            Ok(Self { subnet, address, mac: vtep.mac })
        };
        subnet.subnets().map(end).collect()
    }
}

/// The VXLAN device of one family.
#[derive(Debug)]
pub struct KernelVxlan {
    netns: Netns,
    device: String,
    subnet: IpNetwork,
    address: IpAddr,
}

impl KernelVxlan {
    /// Makes the device of the family of `subnet` on a node with the underlay address `address`, which flannel has of the
    /// same.
    ///
    /// # Errors
    ///
    /// When `ip` fails.
    pub fn new(netns: &Netns, address: IpAddr, subnet: IpNetwork, underlay_mtu: u32) -> Result<Self> {
        let (name, single) = if subnet.is_ipv4() { ("flannel", 32) } else { ("flannel-v6", 128) };
        let device = format!("{name}.{VNI}");
        netns.ip(&format!(
            "link add name {device} mtu {} type vxlan id {VNI} dev {UNDERLAY_DEVICE} local {address} dstport {PORT} nolearning",
            underlay_mtu - OVERHEAD
        ))?;
        netns.add_address(&device, IpNetwork::new(subnet.network(), single)?)?;
        netns.ip(&format!("link set dev {device} up"))?;
        Ok(Self { netns: netns.clone(), device, subnet, address })
    }

    /// The name of the device.
    #[must_use]
    pub fn device(&self) -> &str {
        &self.device
    }

    /// This end, as the others are to know it.
    ///
    /// # Errors
    ///
    /// When the device is gone.
    pub fn end(&self) -> Result<TunnelEnd> {
        let mac = Mac(mac(&self.netns, &self.device)?);
        Ok(TunnelEnd { subnet: self.subnet, address: self.address, mac })
    }

    /// Makes the three entries for a remote subnet: who its network address is, where that one is, and the route to it.
    ///
    /// # Errors
    ///
    /// When `ip` or `bridge` fails.
    pub fn learn(&self, remote: &TunnelEnd) -> Result<()> {
        let (device, via) = (&self.device, remote.subnet.network());
        let TunnelEnd { subnet, address, mac } = remote;
        self.netns.ip(&format!("neighbour replace {via} lladdr {mac} dev {device} nud permanent"))?;
        let fdb = format!("fdb replace {mac} dev {device} dst {address} self permanent");
        output(self.netns.command("bridge").args(fdb.split(' ')))?;
        self.netns.ip(&format!("route replace {via}/{} via {via} dev {device} onlink", subnet.prefix())).map(drop)
    }
}

/// A node with a VXLAN device of each family, and a container.
#[derive(Debug)]
pub struct KernelNode {
    /// The namespace the node is.
    pub netns: Netns,
    /// A container on its bridge.
    pub container: Container,
    tunnels: Vec<KernelVxlan>,
}

impl KernelNode {
    /// Sets up the node in `netns`, which has `addresses` on the underlay: for each of them it owns one of `subnets`, in
    /// the same order.
    ///
    /// # Errors
    ///
    /// When the kernel or `ip` refuses.
    pub fn new(netns: Netns, addresses: &[IpAddr], subnets: &[IpNetwork], underlay_mtu: u32) -> Result<Self> {
        let tunnel = |(address, subnet): (&IpAddr, &IpNetwork)| {
            netns.forward_family_of(*address)?;
            KernelVxlan::new(&netns, *address, *subnet, underlay_mtu)
        };
        let tunnels = addresses.iter().zip(subnets).map(tunnel).collect::<Result<_>>()?;
        let gateway = |subnet: &IpNetwork| {
            let first = subnet.iter().nth(1).with_context(|| format!("find a gateway in {subnet}"))?;
            Ok(IpNetwork::new(first, subnet.prefix())?)
        };
        let gateways = subnets.iter().map(gateway).collect::<Result<_>>()?;
        let container = Container::on_bridge(&netns, ContainerNetwork { gateways, mtu: underlay_mtu - OVERHEAD })?;
        Ok(Self { netns, container, tunnels })
    }

    /// The tunnel ends, in the order of the subnets.
    ///
    /// # Errors
    ///
    /// When a device is gone.
    pub fn ends(&self) -> Result<Vec<TunnelEnd>> {
        self.tunnels.iter().map(KernelVxlan::end).collect()
    }

    /// Learns of a remote subnet.
    ///
    /// # Errors
    ///
    /// When there is no device for its family, or it cannot be told.
    pub fn learn(&self, remote: &TunnelEnd) -> Result<()> {
        let same = |tunnel: &&KernelVxlan| tunnel.subnet.is_ipv4() == remote.subnet.is_ipv4();
        let tunnel = self.tunnels.iter().find(same);
        tunnel.with_context(|| format!("no VXLAN device for the family of {}", remote.subnet))?.learn(remote)
    }

    /// The value of the node's lease, as flanneld prints it.
    ///
    /// # Errors
    ///
    /// When a device is gone.
    pub fn lease(&self) -> Result<String> {
        let ends = self.ends()?;
        let find = |is_ipv4: bool| ends.iter().find(|end| end.subnet.is_ipv4() == is_ipv4);
        let data = |end: &TunnelEnd| json!({"VNI": VNI, "VtepMAC": end.mac.to_string()});
        let (v4, v6) = (find(true), find(false));
        let public_ip = v4.map_or_else(|| "0.0.0.0".to_owned(), |end| end.address.to_string());
        let mut lease = Map::from_iter([
            ("PublicIP".to_owned(), json!(public_ip)),
            ("PublicIPv6".to_owned(), json!(v6.map(|end| end.address.to_string()))),
            ("BackendType".to_owned(), json!("vxlan")),
        ]);
        lease.extend(v4.map(|end| ("BackendData".to_owned(), data(end))));
        lease.extend(v6.map(|end| ("BackendV6Data".to_owned(), data(end))));
        Ok(Value::Object(lease).to_string())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        families::Families,
        packet_socket::PacketSocket,
        traffic::{Flow, ping},
        underlay::Underlay,
    };

    fn subnets(families: Families, number: u8) -> Vec<IpNetwork> {
        let subnet = |text: String| text.parse().unwrap();
        families.of(subnet(format!("10.1.{number}.0/24")), subnet(format!("fd00:10:1:{number}::/64")))
    }

    fn two_nodes(underlay: &Underlay, families: Families) -> [KernelNode; 2] {
        let node = |number: u8| {
            let netns = underlay.attach(&format!("node{number}"), number).unwrap();
            KernelNode::new(netns, &underlay.addresses(number), &subnets(families, number), underlay.mtu()).unwrap()
        };
        let nodes = [node(1), node(2)];
        for (from, to) in [(0, 1), (1, 0)] {
            nodes[to].ends().unwrap().iter().for_each(|end| nodes[from].learn(end).unwrap());
        }
        nodes
    }

    #[test]
    fn containers_of_two_kernel_nodes_talk_over_each_family_that_there_is() {
        for families in Families::ALL {
            let underlay = Underlay::new(families, 1500).unwrap();
            let [one, two] = two_nodes(&underlay, families);
            for address in &two.container.addresses {
                let flow = Flow::new(&one.container.netns, &two.container.netns, *address);
                assert_eq!(ping(&flow.from, *address, 1).unwrap().received, 1, "{address} with {families:?}");
                flow.tcp_transfer(4 << 20).unwrap_or_else(|error| panic!("{address}: {error:#}"));
                // flannel tells containers of an MTU that is too large for IPv6. TCP has found out at this end; the other
                // does so by an answer that gets lost.
                flow.udp_echo(1, 8000).unwrap();
                let largest = if address.is_ipv4() { 1500 - 50 - 28 } else { 1500 - 70 - 48 };
                for size in [1, largest, 8000] {
                    assert_eq!(flow.udp_echo(2, size).unwrap(), 2, "{size} bytes to {address}");
                }
            }
        }
    }

    #[test]
    fn each_family_crosses_the_underlay_in_packets_of_its_own_with_a_checksum() {
        let underlay = Underlay::new(Families::Dual, 1500).unwrap();
        let [one, two] = two_nodes(&underlay, Families::Dual);
        for (address, ether_type, udp) in
            [(two.container.v4().into(), [0x08, 0x00], 34), (IpAddr::from(two.container.v6()), [0x86, 0xdd], 54)]
        {
            let socket = PacketSocket::open(underlay.netns(), "node2").unwrap();
            assert_eq!(ping(&one.container.netns, address, 1).unwrap().received, 1);
            let outer = socket.find("an outer packet", Duration::from_secs(5), |frame| {
                let bytes = &frame.bytes;
                let to_vxlan = bytes.get(udp + 2..udp + 4) == Some(&PORT.to_be_bytes());
                (bytes[12..14] == ether_type && to_vxlan).then(|| bytes.clone())
            });
            assert_ne!(outer.unwrap()[udp + 6..udp + 8], [0, 0], "the UDP checksum of the packet with {address} in it");
        }
    }

    #[test]
    fn a_lease_is_what_flanneld_would_print() {
        let lease = |families| {
            let underlay = Underlay::new(families, 1500).unwrap();
            let [one, _] = two_nodes(&underlay, families);
            for (number, tunnel) in one.tunnels.iter().enumerate() {
                one.netns.ip(&format!("link set dev {} address 02:00:00:00:00:0{number}", tunnel.device())).unwrap();
            }
            one.lease().unwrap()
        };
        assert_eq!(
            lease(Families::V4),
            r#"{"PublicIP":"192.168.50.1","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"02:00:00:00:00:00"}}"#
        );
        assert_eq!(
            lease(Families::V6),
            r#"{"PublicIP":"0.0.0.0","PublicIPv6":"fd50::1","BackendType":"vxlan","BackendV6Data":{"VNI":1,"VtepMAC":"02:00:00:00:00:00"}}"#
        );
        assert_eq!(
            lease(Families::Dual),
            r#"{"PublicIP":"192.168.50.1","PublicIPv6":"fd50::1","BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"02:00:00:00:00:00"},"BackendV6Data":{"VNI":1,"VtepMAC":"02:00:00:00:00:01"}}"#
        );
    }
}
