//! Rates as tests want them.

use std::net::Ipv4Addr;

use ipnetwork::Ipv4Network;

use super::{
    model::Model,
    reading::{ContainerRate, Rates},
};
use crate::status::{Counts, NodeStatus, Peer, Status};

/// For each of `peers`, which have a number and bytes sent and received a second, that peer and a container with the
/// same rates. No agent answers.
pub(super) fn rates(peers: &[(u8, u64, u64)]) -> Rates {
    let peer = |&(number, encap_bytes, decap_bytes): &(u8, u64, u64)| {
        let rate = Counts { encap_packets: 1, encap_bytes, decap_packets: 1, decap_bytes, fast_packets: 1 };
        Peer {
            subnet: network([10, 1, number, 0], 24).into(),
            node: Ipv4Addr::new(192, 168, 50, number).into(),
            state: "active",
            direct: false,
            total: rate,
            rate,
        }
    };
    let containers = (2..).zip(peers).map(|(number, &(_, sent_bytes, received_bytes))| ContainerRate {
        address: Ipv4Addr::new(10, 1, 9, number).into(),
        interface: format!("veth{number}"),
        sent_bytes,
        received_bytes,
        packets: 2,
    });
    let node = NodeStatus {
        address: Some(Ipv4Addr::new(192, 168, 50, 9)),
        ipv6_address: None,
        underlay: Some("eth0".to_owned()),
        overlay: Some("overlay.1".to_owned()),
        ipv6_overlay: None,
        network: Some(network([10, 1, 0, 0], 16)),
        subnet: Some(network([10, 1, 9, 0], 24)),
        ipv6_network: None,
        ipv6_subnet: None,
        port: 8472,
        vni: 1,
        containers: peers.len(),
    };
    let problems = vec!["no agent runs".to_owned()];
    let peers_status = peers.iter().map(peer).collect();
    let status = Status { problems, agent: None, node, peers: peers_status, drops: Vec::new(), interval: 1.0 };
    Rates { status, containers: containers.collect() }
}

/// What is shown to be sent to each peer, in order.
pub(super) fn sent(model: &Model) -> Vec<u64> {
    model.peers().iter().map(|row| row.sent_bytes).collect()
}

fn network(address: [u8; 4], length: u8) -> Ipv4Network {
    Ipv4Network::new(address.into(), length).expect("a network")
}
