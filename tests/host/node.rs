//! A node with one underlay interface, and what the tests ask of it.

use overlay_tests::netns::Netns;
use overlay_user::link::{LinkConfig, LinkKind, VxlanConfig};
use overlay_user::network::Range;
use rtnetlink::Handle;

/// The port of flannel's vxlan backend.
pub(crate) const VXLAN_PORT: u16 = 8472;

/// A namespace whose `eth0`, 192.168.50.1/24, leads to `peer`'s `eth0`, 192.168.50.2/24.
pub(crate) struct Node {
    pub(crate) netns: Netns,
    pub(crate) peer: Netns,
}

impl Node {
    /// Makes both namespaces. There is a default route.
    pub(crate) fn new() -> Self {
        let (netns, peer) = (Netns::new().unwrap(), Netns::new().unwrap());
        netns.veth("eth0", &peer, "eth0", 1500).unwrap();
        netns.ip("address add 192.168.50.1/24 dev eth0").unwrap();
        netns.ip("route add default via 192.168.50.2").unwrap();
        peer.ip("address add 192.168.50.2/24 dev eth0").unwrap();
        Self { netns, peer }
    }

    /// Runs `task` in the namespace with a netlink connection.
    pub(crate) fn run<T: Send>(&self, task: impl AsyncFnOnce(&Handle) -> T + Send) -> T {
        self.netns.run(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let (connection, handle, _) = rtnetlink::new_connection().unwrap();
                tokio::spawn(connection);
                task(&handle).await
            })
        })
    }

    /// Reads a file of `/proc` as the namespace has it, without the newline.
    pub(crate) fn read(&self, path: &str) -> String {
        self.netns.run(|| std::fs::read_to_string(path)).unwrap().trim_end().to_owned()
    }

    /// Everything that a set-up may leave behind: devices, addresses, routes.
    pub(crate) fn state(&self) -> String {
        ["-br link", "-br address", "route show table all"].map(|show| self.netns.ip(show).unwrap()).concat()
    }
}

/// An overlay device for UDP encapsulation.
pub(crate) fn udp() -> LinkConfig {
    LinkConfig {
        kind: LinkKind::Udp,
        ipv4: Some(Range { network: "10.1.0.0/16".parse().unwrap(), subnet: "10.1.15.0/24".parse().unwrap() }),
        ipv6: None,
        ipv4_to_receive: None,
        mtu: 1472,
        mac: None,
    }
}

/// An overlay device for VXLAN.
pub(crate) fn vxlan() -> LinkConfig {
    let vxlan = VxlanConfig { vni: 1, port: VXLAN_PORT, local: "192.168.50.1".parse().unwrap() };
    LinkConfig { kind: LinkKind::Vxlan(vxlan), mtu: 1450, ..udp() }
}

/// An overlay device for VXLAN over an IPv6 underlay, with IPv6 inside.
pub(crate) fn vxlan_over_ipv6() -> LinkConfig {
    let vxlan = VxlanConfig { vni: 1, port: VXLAN_PORT, local: "fd00:50::1".parse().unwrap() };
    let ipv6 = Range { network: "fd00:1::/48".parse().unwrap(), subnet: "fd00:1:0:15::/64".parse().unwrap() };
    LinkConfig { kind: LinkKind::Vxlan(vxlan), ipv4: None, ipv6: Some(ipv6), mtu: 1430, ..udp() }
}
