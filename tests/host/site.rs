//! A node between a container, a remote container and the outside, and packets that cross it.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::time::Duration;

use nix::net::if_::if_nametoindex;
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::BindToDevice;
use overlay_tests::netns::Netns;
use overlay_tests::process::{output, wait_for};
use overlay_user::masquerade::{Masquerade, RulesConfig, TrafficRules};
use overlay_user::network::Range;

use crate::node::Node;

pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
/// How long to listen for a packet that must not come.
pub(crate) const SILENCE: Duration = Duration::from_millis(300);

/// A node with a container, a remote container behind its overlay device, and the outside behind its underlay.
pub(crate) struct Site {
    pub(crate) node: Node,
    pub(crate) container: Netns,
    pub(crate) remote: Netns,
}

impl Site {
    pub(crate) fn new() -> Self {
        let node = Node::new();
        let (container, remote) = (Netns::new().unwrap(), Netns::new().unwrap());
        let host = &node.netns;
        host.sysctl("net.ipv4.ip_forward", "1").unwrap();
        host.sysctl("net.ipv6.conf.all.forwarding", "1").unwrap();
        host.bridge("docker0").unwrap();
        host.ip("address add 10.1.15.1/24 dev docker0").unwrap();
        host.ip("address add fd00:1:0:15::1/64 dev docker0 nodad").unwrap();
        host.ip("address add fd00:50::1/64 dev eth0 nodad").unwrap();
        node.peer.ip("address add fd00:50::2/64 dev eth0 nodad").unwrap();
        host.veth("container0", &container, "eth0", 1500).unwrap();
        host.ip("link set container0 master docker0").unwrap();
        container.ip("address add 10.1.15.2/24 dev eth0").unwrap();
        container.ip("route add default via 10.1.15.1").unwrap();
        container.ip("address add fd00:1:0:15::2/64 dev eth0 nodad").unwrap();
        container.ip("route add default via fd00:1:0:15::1").unwrap();
        // Any device will do to stand for the overlay: netfilter sees routes and addresses.
        host.veth("overlay.1", &remote, "eth0", 1450).unwrap();
        host.ip("address add 10.1.15.0/32 dev overlay.1").unwrap();
        host.ip("route add 10.1.0.0/16 dev overlay.1 src 10.1.15.0").unwrap();
        remote.ip("address add 10.1.16.2/32 dev eth0").unwrap();
        remote.ip("route add default dev eth0").unwrap();
        host.veth("overlay-v6.1", &remote, "eth1", 1430).unwrap();
        host.ip("address add fd00:1:0:15::/128 dev overlay-v6.1 nodad").unwrap();
        host.ip("route add fd00:1::/48 dev overlay-v6.1 src fd00:1:0:15::").unwrap();
        remote.ip("address add fd00:1:0:16::2/128 dev eth1 nodad").unwrap();
        remote.ip("-6 route add default dev eth1").unwrap();
        // Without ARP both ends send to their own address, so it has to be the same.
        for (device, end) in [("overlay.1", "eth0"), ("overlay-v6.1", "eth1")] {
            host.ip(&format!("link set {device} address 02:00:00:00:00:01 arp off")).unwrap();
            remote.ip(&format!("link set {end} address 02:00:00:00:00:01 arp off")).unwrap();
        }
        // The outside knows a way back, so that an address that is kept can be told from a packet that is lost.
        node.peer.ip("route add 10.1.0.0/16 via 192.168.50.1").unwrap();
        node.peer.ip("route add fd00:1::/48 via fd00:50::1").unwrap();
        Self { node, container, remote }
    }

    /// Sends a datagram and says with which source address it arrives; none when it does not.
    pub(crate) fn seen(&self, packet: &Packet<'_>, patience: Duration) -> Option<IpAddr> {
        let any: IpAddr = match packet.destination {
            IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        // A process that another test is just starting holds a copy of the last receiver until it executes.
        let bind = || Ok(packet.receiver.run(|| UdpSocket::bind((any, packet.port))).ok());
        let receiver = wait_for("the port is free", PATIENCE, bind).unwrap();
        if packet.destination.is_multicast() {
            match packet.destination {
                IpAddr::V4(group) => receiver.join_multicast_v4(&group, &Ipv4Addr::new(192, 168, 50, 2)).unwrap(),
                IpAddr::V6(group) => {
                    let eth0 = packet.receiver.run(|| if_nametoindex("eth0")).unwrap();
                    receiver.join_multicast_v6(&group, eth0).unwrap();
                }
            }
        }
        receiver.set_read_timeout(Some(patience)).unwrap();
        let sender = packet.sender.run(|| UdpSocket::bind((packet.source, 0))).unwrap();
        if packet.destination.is_multicast() {
            // By its source address it would leave through the bridge.
            setsockopt(&sender, BindToDevice, &"eth0".into()).unwrap();
        }
        sender.send_to(b"x", (packet.destination, packet.port)).unwrap();
        loop {
            match receiver.recv_from(&mut [0; 8]) {
                Ok((_, from)) => return Some(from.ip()),
                // The runtime of another test has been told that a child has ended.
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return None,
                Err(error) => panic!("receive: {error}"),
            }
        }
    }

    pub(crate) fn nft(&self, arguments: &str) -> String {
        output(self.node.netns.command("nft").args(arguments.split_whitespace())).unwrap()
    }

    pub(crate) fn iptables(&self, program: &str, rules: &[impl AsRef<str>]) {
        for rule in rules {
            output(self.node.netns.command(program).args(rule.as_ref().split_whitespace())).unwrap();
        }
    }

    pub(crate) fn ensure(&self, config: &RulesConfig) -> bool {
        self.node.run(async |_| TrafficRules::new(config.clone()).ensure().await).unwrap()
    }
}

/// A datagram from one namespace to another.
pub(crate) struct Packet<'a> {
    pub(crate) sender: &'a Netns,
    pub(crate) source: IpAddr,
    pub(crate) receiver: &'a Netns,
    pub(crate) destination: IpAddr,
    pub(crate) port: u16,
}

/// Who is where, in one address family.
pub(crate) struct Addresses {
    pub(crate) container: IpAddr,
    pub(crate) remote: IpAddr,
    pub(crate) outside: IpAddr,
    pub(crate) node: IpAddr,
    pub(crate) node_in_overlay: IpAddr,
    pub(crate) bridge: IpAddr,
    pub(crate) group: IpAddr,
}

pub(crate) const IPV4: Addresses = Addresses {
    container: v4([10, 1, 15, 2]),
    remote: v4([10, 1, 16, 2]),
    outside: v4([192, 168, 50, 2]),
    node: v4([192, 168, 50, 1]),
    node_in_overlay: v4([10, 1, 15, 0]),
    bridge: v4([10, 1, 15, 1]),
    group: v4([224, 1, 1, 1]),
};

pub(crate) const IPV6: Addresses = Addresses {
    container: v6([0xfd00, 1, 0, 0x15, 0, 0, 0, 2]),
    remote: v6([0xfd00, 1, 0, 0x16, 0, 0, 0, 2]),
    outside: v6([0xfd00, 0x50, 0, 0, 0, 0, 0, 2]),
    node: v6([0xfd00, 0x50, 0, 0, 0, 0, 0, 1]),
    node_in_overlay: v6([0xfd00, 1, 0, 0x15, 0, 0, 0, 0]),
    bridge: v6([0xfd00, 1, 0, 0x15, 0, 0, 0, 1]),
    group: v6([0xff05, 0, 0, 0, 0, 0, 1, 1]),
};

const fn v4([a, b, c, d]: [u8; 4]) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(a, b, c, d))
}

const fn v6([a, b, c, d, e, f, g, h]: [u16; 8]) -> IpAddr {
    IpAddr::V6(Ipv6Addr::new(a, b, c, d, e, f, g, h))
}

/// The rules of a dual-stack overlay.
pub(crate) fn config() -> RulesConfig {
    RulesConfig {
        name: "overlay.1".to_owned(),
        ipv4: Some(Range { network: "10.1.0.0/16".parse().unwrap(), subnet: "10.1.15.0/24".parse().unwrap() }),
        ipv6: Some(Range { network: "fd00:1::/48".parse().unwrap(), subnet: "fd00:1:0:15::/64".parse().unwrap() }),
        masquerade: Some(Masquerade { random_fully: true }),
        forward: false,
    }
}
