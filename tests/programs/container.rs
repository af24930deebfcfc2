//! `from_container`: what a container sends, at its own door.

use std::net::Ipv4Addr;

use overlay_common::{Encapsulation, Endpoint, Reason};
use overlay_tests::{
    packets::{ETHER_ARP, ETHER_IPV4, ETHER_IPV6, ethernet},
    programs::{Context, Programs},
};

use crate::{Hook, LOCAL, REMOTE, TO_OVERLAY, inner};

const FROM_CONTAINER: Hook = Hook { program: "from_container", ..TO_OVERLAY };
/// The interface that the kernel runs single packets on: the loopback's.
pub(crate) const HERE: u32 = 1;
/// A container here whose interface is another one.
const NEIGHBOUR: Ipv4Addr = Ipv4Addr::new(10, 1, 15, 3);
/// The node's own address in the subnet.
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 1, 15, 1);
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(8, 8, 8, 8);
pub(crate) const MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];

fn programs() -> Programs {
    let mut programs = Programs::load(Encapsulation::Vxlan).expect("load the programs");
    for (address, endpoint) in
        [(LOCAL, Endpoint::new(HERE, MAC)), (NEIGHBOUR, Endpoint::new(HERE + 1, MAC)), (GATEWAY, Endpoint::NODE)]
    {
        programs.set_endpoint(address.octets(), endpoint).expect("enter an endpoint");
    }
    programs
}

fn ip(source: Ipv4Addr, destination: Ipv4Addr) -> Vec<u8> {
    ethernet([2; 6], MAC, ETHER_IPV4, &inner(source, destination).bytes())
}

fn arp(sender: Ipv4Addr) -> Vec<u8> {
    let mut request = vec![0, 1, 8, 0, 6, 4, 0, 1];
    request.extend(MAC);
    request.extend(sender.octets());
    request.extend([0; 6]);
    request.extend(GATEWAY.octets());
    ethernet([255; 6], MAC, ETHER_ARP, &request)
}

#[test]
fn a_container_sends_with_its_own_address_alone() {
    let unknown = Ipv4Addr::new(10, 1, 15, 77);
    let rows = [
        ("its own address, to another node", ip(LOCAL, REMOTE), None),
        ("its own address, to a neighbour", ip(LOCAL, NEIGHBOUR), None),
        ("its own address, to the outside", ip(LOCAL, OUTSIDE), None),
        ("its own address in ARP", arp(LOCAL), None),
        ("an address that the agent has not read yet", ip(unknown, REMOTE), None),
        ("a foreign address that is none of ours", ip(OUTSIDE, REMOTE), None),
        ("ARP without an address, as a probe for duplicates", arp(Ipv4Addr::UNSPECIFIED), None),
        ("IPv6", ethernet([2; 6], MAC, ETHER_IPV6, &[0x60; 60]), None),
        ("a neighbour's address", ip(NEIGHBOUR, REMOTE), Some(Reason::SpoofedNeighbour)),
        ("a neighbour's address in ARP", arp(NEIGHBOUR), Some(Reason::SpoofedNeighbour)),
        ("the gateway's address", ip(GATEWAY, NEIGHBOUR), Some(Reason::SpoofedNeighbour)),
        ("the gateway's address in ARP", arp(GATEWAY), Some(Reason::SpoofedNeighbour)),
        ("an address of another node's subnet", ip(REMOTE, NEIGHBOUR), Some(Reason::SourceNotOurs)),
    ];
    let mut programs = programs();
    for (name, packet, reason) in rows {
        let outcome = programs.run(FROM_CONTAINER.program, &packet, Context::default()).expect("run the program");
        let verdict = if reason.is_some() { FROM_CONTAINER.drop } else { FROM_CONTAINER.next };
        assert_eq!((outcome.verdict, outcome.counted), (verdict, reason), "{name}");
        assert_eq!(outcome.packet, packet, "{name}: changed");
    }
}
