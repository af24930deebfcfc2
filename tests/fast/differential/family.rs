//! What scripts call things in a world of one family: addresses, and nftables' words.

use std::net::{IpAddr, SocketAddr};

use overlay_tests::two_nodes::Way;

/// A family inside the overlay and on the underlay.
#[derive(Debug)]
pub(super) struct Family {
    /// The family of tables, and the header that their rules look into.
    pub(super) ip: &'static str,
    /// The type of a set of addresses.
    pub(super) addresses: &'static str,
    /// The protocol that brings errors.
    pub(super) icmp: &'static str,
    /// The subnets of the nodes, the same in every world.
    pub(super) subnets: [&'static str; 2],
    /// The same as keys of leases.
    pub(super) leases: [&'static str; 2],
    /// Addresses of containers.
    pub(super) here: &'static str,
    pub(super) here2: &'static str,
    pub(super) there: &'static str,
    /// The bridges' addresses.
    pub(super) gateways: [&'static str; 2],
    /// The first node's underlay address.
    pub(super) node_one: &'static str,
    /// A service's address, outside the overlay network.
    pub(super) service: &'static str,
    /// Another address that the first node has in its subnet.
    pub(super) hidden: &'static str,
}

static IPV4: Family = Family {
    ip: "ip",
    addresses: "ipv4_addr",
    icmp: "icmp",
    subnets: ["10.1.10.0/24", "10.1.20.0/24"],
    leases: ["10.1.10.0-24", "10.1.20.0-24"],
    here: "10.1.10.2",
    here2: "10.1.10.3",
    there: "10.1.20.2",
    gateways: ["10.1.10.1", "10.1.20.1"],
    node_one: "192.168.50.1",
    service: "172.30.0.1",
    hidden: "10.1.10.0",
};

static IPV6: Family = Family {
    ip: "ip6",
    addresses: "ipv6_addr",
    icmp: "ipv6-icmp",
    subnets: ["fd00:10:1:10::/64", "fd00:10:1:20::/64"],
    leases: ["0.0.0.0-0&fd00:10:1:10::-64", "0.0.0.0-0&fd00:10:1:20::-64"],
    here: "fd00:10:1:10::2",
    here2: "fd00:10:1:10::3",
    there: "fd00:10:1:20::2",
    gateways: ["fd00:10:1:10::1", "fd00:10:1:20::1"],
    node_one: "fd50::1",
    service: "fd99::1",
    hidden: "fd00:10:1:10::",
};

impl Family {
    pub(super) fn of(way: Way) -> &'static Self {
        if way.overlay.has_v4() { &IPV4 } else { &IPV6 }
    }

    /// The network address of the subnet of the first or the second node.
    pub(super) fn subnet(&self, number: usize) -> IpAddr {
        self.subnets[number].split('/').next().and_then(|address| address.parse().ok()).expect("a subnet's address")
    }
}

/// A socket's address as rules of nftables and sockets have it.
pub(super) fn socket_address((address, port): (&str, u16)) -> SocketAddr {
    SocketAddr::new(address.parse().expect("an address"), port)
}
