//! The nodes that the programs believe to run on.

use std::{collections::BTreeMap, net::Ipv4Addr};

use anyhow::Result;
use ipnetwork::Ipv4Network;
use overlay_common::{Encapsulation, LocalNode, Route, Vtep};
use overlay_tests::{
    model::{Facts, Hop, Node},
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

/// Every world: an ordinary one, one whose numbers use all their bits, one that the agent has not described yet.
pub(crate) fn all(encapsulation: Encapsulation) -> [World; WORLDS] {
    let vni = |vni| if encapsulation == Encapsulation::Vxlan { vni } else { 0 };
    let ordinary = Node {
        vtep: Vtep { vni: vni(VTEP.vni), ..VTEP },
        network: network(NETWORK.0, NETWORK.1),
        subnet: network(SUBNET.0, SUBNET.1),
    };
    let odd = Node {
        vtep: Vtep {
            address: Ipv4Addr::new(172, 31, 255, 254),
            mac: [0xfe, 0xdc, 0xba, 0x98, 0x76, 0x54],
            port: 0xfedc,
            vni: vni(0xab_cdef),
        },
        network: network([10, 0, 0, 0].into(), 8),
        subnet: network([10, 1, 0, 0].into(), 20),
    };
    [
        World { name: "ordinary", facts: facts(encapsulation, Some(ordinary)), node: ordinary },
        World { name: "odd numbers", facts: facts(encapsulation, Some(odd)), node: odd },
        World { name: "unwritten LOCAL_NODE", facts: facts(encapsulation, None), node: ordinary },
    ]
}

impl World {
    /// The programs in this world.
    pub(crate) fn load(&self) -> Result<Programs> {
        let mut programs = Programs::load(self.facts.encapsulation)?;
        let written = self.facts.node.map(|node| {
            let prefix = |network: Ipv4Network| (network.network(), network.prefix());
            LocalNode::new(&node.vtep, prefix(node.network), prefix(node.subnet), 1, (1, 1450))
        });
        programs.set_node(written.unwrap_or_else(unwritten))?;
        for (subnet, hop) in &self.facts.routes {
            let route = Route::new(hop.address, hop.mac);
            let route = if hop.direct { route.direct() } else { route };
            programs.set_route_to(subnet.network().octets(), route)?;
        }
        Ok(programs)
    }
}

/// What an array map holds before anybody writes to it.
fn unwritten() -> LocalNode {
    let nobody = Vtep { address: Ipv4Addr::UNSPECIFIED, mac: [0; 6], port: 0, vni: 0 };
    LocalNode::new(&nobody, (Ipv4Addr::UNSPECIFIED, 0), (Ipv4Addr::UNSPECIFIED, 0), 0, (0, 0))
}

fn facts(encapsulation: Encapsulation, node: Option<Node>) -> Facts {
    let prefix = node.map_or(SUBNET.1, |node| node.subnet.prefix());
    let hop = |last| Hop { address: [192, 168, 50, last].into(), mac: [2, 0, 0, 0, 0, last], direct: false };
    let routes = BTreeMap::from([
        (network(REMOTE_SUBNET.into(), prefix), Hop { address: REMOTE_NODE, mac: REMOTE_MAC, direct: false }),
        (network([10, 1, 64, 0].into(), prefix), Hop { direct: true, ..hop(3) }),
        (network([10, 1, 240, 0].into(), prefix), hop(4)),
        // A node may hold two subnets: an old one until its lease runs out.
        (network([10, 1, 32, 0].into(), prefix), hop(4)),
    ]);
    Facts { encapsulation, node, routes }
}

fn network(address: Ipv4Addr, prefix: u8) -> Ipv4Network {
    Ipv4Network::new(address, prefix).expect("a prefix of at most 32 bits")
}
