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

/// Every world with these families inside and outside: an ordinary one, one whose numbers use all their bits, one that the
/// agent has not described yet.
pub(crate) fn all(encapsulation: Encapsulation, families: Families) -> [World; 3] {
    // It has nothing else.
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
    /// The programs in this world.
    pub(crate) fn load(&self) -> Result<Programs> {
        let mut programs = Programs::load(self.facts.encapsulation)?;
        // Or what an array map holds before anybody writes to it.
        programs.set_node(self.facts.node.as_ref().map_or_else(|| LocalNode::new(0), local_node))?;
        for (subnet, hop) in &self.facts.routes {
            let route = Route::new(hop.address, hop.mac);
            let route = if hop.direct { route.direct() } else { route };
            match subnet.network() {
                IpAddr::V4(subnet) => programs.set_route_to(subnet.octets(), route)?,
                IpAddr::V6(subnet) => programs.set_route_to(subnet.octets(), route)?,
            }
        }
        Ok(programs)
    }
}

/// The value of `LOCAL_NODE` for this node.
fn local_node(node: &Node) -> LocalNode {
    let PerFamily { v4, v6 } = node.ends;
    let mut written = LocalNode::new(1);
    for End { address, mac } in v4.into_iter().chain(v6) {
        let (port, vni) = (node.port, node.vni);
        written = match address {
            IpAddr::V4(address) => written.over::<[u8; 4]>(&Vtep { address, mac, port, vni }, 1),
            IpAddr::V6(address) => written.over::<[u8; 16]>(&Vtep { address, mac, port, vni }, 1),
        };
    }
    let PerFamily { v4, v6 } = node.ranges;
    for range in v4.into_iter().chain(v6) {
        written = match (range.network, range.subnet) {
            (IpNetwork::V4(network), IpNetwork::V4(subnet)) => written.with::<[u8; 4]>(
                overlay_common::Range::new((network.network(), network.prefix()), (subnet.network(), subnet.prefix())),
                1450,
            ),
            (IpNetwork::V6(network), IpNetwork::V6(subnet)) => written.with::<[u8; 16]>(
                overlay_common::Range::new((network.network(), network.prefix()), (subnet.network(), subnet.prefix())),
                1430,
            ),
            (network, subnet) => panic!("{subnet} in {network}"),
        };
    }
    written
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
