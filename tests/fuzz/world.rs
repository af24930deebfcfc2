//! The nodes that the programs believe to run on.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use anyhow::Result;
use ipnetwork::IpNetwork;
use overlay_common::{Encapsulation, LocalNode, Route, Vtep};
use overlay_tests::{
    families::Families,
    model::{End, Facts, Hop, Node, PerFamily, Range},
    programs::{NETWORK, Programs, REMOTE_MAC, REMOTE_NODE, REMOTE_SUBNET, SUBNET, VTEP},
};

/// A node as the model sees it, and as the packets in its neighbourhood are made.
pub(crate) struct World {
    pub(crate) name: &'static str,
    pub(crate) facts: Facts,
    /// The node that packets are made for, written to `LOCAL_NODE` or not.
    pub(crate) node: Node,
}

/// How many worlds there are.
pub(crate) const WORLDS: usize = 3;

/// Every world with these families inside and outside: an ordinary one, one whose numbers use all their bits, one that the
/// agent has not described yet.
pub(crate) fn all(encapsulation: Encapsulation, families: Families) -> [World; WORLDS] {
    // It has IPv4 alone.
    let families = if encapsulation == Encapsulation::Udp { Families::V4 } else { families };
    let vni = |vni| if encapsulation == Encapsulation::Vxlan { vni } else { 0 };
    let ordinary = Node {
        ends: PerFamily {
            v4: families.has_v4().then_some(End { address: VTEP.address.into(), mac: VTEP.mac }),
            v6: families.has_v6().then_some(End { address: underlay_v6(1).into(), mac: [2, 0, 0, 0, 6, 1] }),
        },
        port: VTEP.port,
        vni: vni(VTEP.vni),
        ranges: PerFamily {
            v4: families.has_v4().then_some(range(NETWORK, SUBNET)),
            v6: families.has_v6().then_some(range((overlay_v6(0), 48), (overlay_v6(15), 64))),
        },
    };
    let odd_address = Ipv4Addr::new(172, 31, 255, 254);
    let odd_mac = [0xfe, 0xdc, 0xba, 0x98, 0x76, 0x54];
    let odd = Node {
        ends: PerFamily {
            v4: families.has_v4().then_some(End { address: odd_address.into(), mac: odd_mac }),
            v6: families.has_v6().then_some(End { address: underlay_v6(0xfffe).into(), mac: odd_mac }),
        },
        port: 0xfedc,
        vni: vni(0xab_cdef),
        ranges: PerFamily {
            v4: families.has_v4().then_some(range(([10, 0, 0, 0], 8), ([10, 1, 0, 0], 20))),
            v6: families.has_v6().then_some(range((overlay_v6(0), 16), (overlay_v6(0), 60))),
        },
    };
    let world = |name, written: Option<Node>, node: Node| World {
        name,
        facts: Facts { encapsulation, node: written, routes: routes(&node) },
        node,
    };
    [
        world("ordinary", Some(ordinary), ordinary),
        world("odd numbers", Some(odd), odd),
        world("unwritten LOCAL_NODE", None, ordinary),
    ]
}

impl World {
    /// The programs in this world, whose maps have IPv4 alone.
    pub(crate) fn load(&self) -> Result<Programs> {
        let mut programs = Programs::load(self.facts.encapsulation)?;
        let written = self.facts.node.and_then(|node| {
            let (end, range) = (node.ends.v4?, node.ranges.v4?);
            let vtep = Vtep { address: v4(end.address), mac: end.mac, port: node.port, vni: node.vni };
            let prefix = |network: IpNetwork| (v4(network.network()), network.prefix());
            Some(LocalNode::new(&vtep, prefix(range.network), prefix(range.subnet), 1, (1, 1450)))
        });
        programs.set_node(written.unwrap_or_else(unwritten))?;
        for (subnet, hop) in &self.facts.routes {
            let route = Route::new(v4(hop.address), hop.mac);
            let route = if hop.direct { route.direct() } else { route };
            programs.set_route_to(v4(subnet.network()).octets(), route)?;
        }
        Ok(programs)
    }
}

/// What an array map holds before anybody writes to it.
fn unwritten() -> LocalNode {
    let nobody = Vtep { address: Ipv4Addr::UNSPECIFIED, mac: [0; 6], port: 0, vni: 0 };
    LocalNode::new(&nobody, (Ipv4Addr::UNSPECIFIED, 0), (Ipv4Addr::UNSPECIFIED, 0), 0, (0, 0))
}

/// The address as the programs' maps have it.
pub(crate) fn v4(address: IpAddr) -> Ipv4Addr {
    match address {
        IpAddr::V4(v4) => v4,
        IpAddr::V6(v6) => panic!("the programs' maps have no {v6}"),
    }
}

fn hop_v4(last: u8) -> Hop {
    Hop { address: [192, 168, 50, last].into(), mac: [2, 0, 0, 0, 0, last], direct: false }
}

fn hop_v6(last: u8) -> Hop {
    Hop { address: underlay_v6(last.into()).into(), mac: [2, 0, 0, 0, 6, last], direct: false }
}

/// Who owns which remote subnet: by turns over either family that both ends have.
fn routes(node: &Node) -> BTreeMap<IpNetwork, Hop> {
    let has = (node.ends.v4.is_some(), node.ends.v6.is_some());
    let usual: fn(u8) -> Hop = if has.0 { hop_v4 } else { hop_v6 };
    let other: fn(u8) -> Hop = if has.1 { hop_v6 } else { hop_v4 };
    let mut routes = BTreeMap::new();
    if let Some(range) = node.ranges.v4 {
        let subnet = |octets: [u8; 4]| network_of((octets, range.subnet.prefix()));
        let remote = Hop { address: REMOTE_NODE.into(), mac: REMOTE_MAC, direct: false };
        routes.insert(subnet(REMOTE_SUBNET), if has.0 { remote } else { usual(2) });
        routes.insert(subnet([10, 1, 64, 0]), Hop { direct: true, ..usual(3) });
        routes.insert(subnet([10, 1, 240, 0]), other(4));
        // A node may hold two subnets: an old one until its lease runs out.
        routes.insert(subnet([10, 1, 32, 0]), other(4));
    }
    if let Some(range) = node.ranges.v6 {
        let subnet = |number| network_of((overlay_v6(number), range.subnet.prefix()));
        routes.insert(subnet(0x10), other(2));
        routes.insert(subnet(0x40), Hop { direct: true, ..other(3) });
        routes.insert(subnet(0xf0), usual(4));
        routes.insert(subnet(0x20), usual(4));
    }
    routes
}

/// The first address of a /64 of the overlay.
const fn overlay_v6(subnet: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, 0, 0, subnet, 0, 0, 0, 0)
}

const fn underlay_v6(last: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xfd50, 0, 0, 0, 0, 0, 0, last)
}

fn range<A: Into<IpAddr>>(network: (A, u8), subnet: (A, u8)) -> Range {
    Range { network: network_of(network), subnet: network_of(subnet) }
}

fn network_of((address, prefix): (impl Into<IpAddr>, u8)) -> IpNetwork {
    IpNetwork::new(address.into(), prefix).expect("a prefix no longer than the address")
}
