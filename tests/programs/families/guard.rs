//! `from_container`: what a container may send of IPv6, neighbour discovery included.

use std::net::Ipv6Addr;

use overlay_common::{Endpoint, Reason};
use overlay_tests::{
    packets::{Extension, Ip as _, Ipv6, PROTO_ICMPV6, ethernet},
    programs::{Context, Programs},
};

use super::{LOCAL, OUTSIDE, REMOTE, Underlay, extended, icmpv6, to_remote};
use crate::{
    Hook, TO_OVERLAY,
    container::{HERE, MAC},
};

const FROM_CONTAINER: Hook = Hook { program: "from_container", ..TO_OVERLAY };
/// A container here whose interface is another one.
const NEIGHBOUR: Ipv6Addr = Ipv6Addr::new(0xfd00, 1, 0, 15, 0, 0, 0, 3);
/// The node's own address in the subnet.
const GATEWAY: Ipv6Addr = Ipv6Addr::new(0xfd00, 1, 0, 15, 0, 0, 0, 1);
const LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 9);
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

const ROUTER_SOLICITATION: u8 = 133;
const ROUTER_ADVERTISEMENT: u8 = 134;
const NEIGHBOUR_SOLICITATION: u8 = 135;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
const REDIRECT: u8 = 137;

fn programs() -> Programs {
    let mut programs = Underlay::Ipv6.programs(0);
    for (address, endpoint) in
        [(LOCAL, Endpoint::new(HERE, MAC)), (NEIGHBOUR, Endpoint::new(HERE + 1, MAC)), (GATEWAY, Endpoint::NODE)]
    {
        programs.set_endpoint(address.octets(), endpoint).expect("enter an endpoint");
    }
    programs
}

/// A message of neighbour discovery about `target`, with the sender's MAC address.
fn discovery(source: Ipv6Addr, kind: u8, target: Ipv6Addr) -> Ipv6 {
    let rest = [&[0; 4][..], &target.octets(), &[1, 1], &MAC].concat();
    Ipv6 { hop_limit: 255, ..Ipv6::new(source, ALL_NODES, PROTO_ICMPV6, icmpv6(source, ALL_NODES, kind, 0, &rest)) }
}

#[test]
fn a_container_sends_and_announces_its_own_address_alone() {
    let (_, v6) = to_remote();
    let from = |source| Ipv6 { source, ..v6.clone() };
    let says = |kind, target| discovery(LINK_LOCAL, kind, target);
    let hidden = |extension| extended(&says(NEIGHBOUR_ADVERTISEMENT, NEIGHBOUR), Extension::padding(extension));
    let unknown = Ipv6Addr::new(0xfd00, 1, 0, 15, 0, 0, 0, 0x77);
    let router_alert = Extension { kind: Extension::HOP_BY_HOP, body: vec![0, 5, 2, 0, 0, 1, 0] };
    let spoofed = Some(Reason::SpoofedNeighbour);
    let rows = [
        ("its own address, to another node", from(LOCAL), None),
        ("its own address, to a neighbour", Ipv6 { destination: NEIGHBOUR, ..v6.clone() }, None),
        ("an address that the agent has not read yet", from(unknown), None),
        ("a link-local address", from(LINK_LOCAL), None),
        ("a foreign address that is none of ours", from(OUTSIDE), None),
        ("a neighbour's address", from(NEIGHBOUR), spoofed),
        ("the gateway's address", from(GATEWAY), spoofed),
        ("an address of another node's subnet", from(REMOTE), Some(Reason::SourceNotOurs)),
        ("it advertises its own address", says(NEIGHBOUR_ADVERTISEMENT, LOCAL), None),
        ("it advertises its link-local address", says(NEIGHBOUR_ADVERTISEMENT, LINK_LOCAL), None),
        ("it asks for a neighbour", discovery(LOCAL, NEIGHBOUR_SOLICITATION, NEIGHBOUR), None),
        ("it asks for duplicates", discovery(Ipv6Addr::UNSPECIFIED, NEIGHBOUR_SOLICITATION, LOCAL), None),
        ("it asks for routers", says(ROUTER_SOLICITATION, LOCAL), None),
        ("it asks with a neighbour's address", discovery(NEIGHBOUR, NEIGHBOUR_SOLICITATION, GATEWAY), spoofed),
        ("it advertises a neighbour's address", says(NEIGHBOUR_ADVERTISEMENT, NEIGHBOUR), spoofed),
        ("it advertises the gateway's address", says(NEIGHBOUR_ADVERTISEMENT, GATEWAY), spoofed),
        ("it advertises another node's", says(NEIGHBOUR_ADVERTISEMENT, REMOTE), Some(Reason::SourceNotOurs)),
        ("it advertises itself as a router", says(ROUTER_ADVERTISEMENT, LOCAL), spoofed),
        ("it redirects", says(REDIRECT, OUTSIDE), spoofed),
        ("it hides an advertisement behind hop-by-hop options", hidden(Extension::HOP_BY_HOP), spoofed),
        ("it hides an advertisement behind destination options", hidden(Extension::DESTINATION), spoofed),
        ("what has passed a router is no discovery", Ipv6 { hop_limit: 64, ..says(ROUTER_ADVERTISEMENT, LOCAL) }, None),
        ("a multicast report behind a router alert", extended(&v6, router_alert), None),
        ("a ping", Ipv6 { hop_limit: 255, ..discovery(LOCAL, 128, GATEWAY) }, None),
    ];
    let mut programs = programs();
    for (name, ip, reason) in rows {
        let packet = ethernet([2; 6], MAC, Ipv6::ETHER_TYPE, &ip.bytes());
        let outcome = programs.run(FROM_CONTAINER.program, &packet, Context::default()).expect("run the program");
        let verdict = if reason.is_some() { FROM_CONTAINER.drop } else { FROM_CONTAINER.next };
        assert_eq!((outcome.verdict, outcome.counted), (verdict, reason), "{name}");
        assert_eq!(outcome.packet, packet, "{name}: changed");
    }
}
