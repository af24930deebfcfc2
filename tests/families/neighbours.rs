//! Neighbour discovery between containers of one node: honest, and not.

use std::{collections::BTreeMap, net::Ipv6Addr, time::Duration};

use overlay_common::Reason;
use overlay_tests::{
    netns::Netns,
    node::{BRIDGE, CONTAINER_DEVICE, Container, Node},
    packet_socket::{PacketSocket, mac},
    packets::{
        ETHER_IPV6, Ipv6, PROTO_UDP, checksummed, ethernet,
        ndp::{self, Neighbour},
        udp,
    },
    process::wait_until,
    traffic::ping,
    two_nodes::{Way, dropped, gateway, on_two_nodes, settings},
};

const LIMIT: Duration = Duration::from_secs(5);

const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// A link-local address that nobody here has.
const ROUTER: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x66);
/// A network that a false router says is on the link.
const PREFIX: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x66, 0, 0, 0, 0, 0);

/// Whose Ethernet address `netns` believes each neighbour in `of` to have.
fn believed(netns: &Netns, device: &str, of: &[Ipv6Addr]) -> BTreeMap<Ipv6Addr, String> {
    let shown = netns.ip(&format!("-6 neighbour show dev {device}")).unwrap();
    let entry = |line: &str| {
        let mut words = line.split_whitespace();
        let address = words.next()?.parse().ok().filter(|address| of.contains(address))?;
        Some((address, words.skip_while(|word| *word != "lladdr").nth(1)?.to_owned()))
    };
    shown.lines().filter_map(entry).collect()
}

/// How many packets `node` has dropped as a spoofer's.
fn spoofed(node: &Node) -> u64 {
    dropped(node, Reason::SpoofedNeighbour)
}

/// What a spoofer says to draw its neighbours' packets to its own Ethernet address.
fn lies(spoofer: [u8; 6], victim: Ipv6Addr, gateway: Ipv6Addr, far: Ipv6Addr) -> Vec<(&'static str, Ipv6)> {
    let has = |target| Neighbour::Advertisement { target, mac: spoofer }.message();
    let asks = |target| Neighbour::Solicitation { target, mac: spoofer }.message();
    let datagram = checksummed(victim, far, PROTO_UDP, udp(1000, 2000, b"forged"));
    vec![
        ("it is the gateway, to all", ndp::packet(ROUTER, ALL_NODES, has(gateway))),
        ("it is the gateway, to its neighbour", ndp::packet(ROUTER, victim, has(gateway))),
        ("it is its neighbour, to all", ndp::packet(ROUTER, ALL_NODES, has(victim))),
        ("it is its neighbour, to the gateway", ndp::packet(ROUTER, gateway, has(victim))),
        ("it asks as the gateway", ndp::packet(gateway, ndp::solicited_node(victim), asks(victim))),
        ("it asks as its neighbour", ndp::packet(victim, ndp::solicited_node(gateway), asks(gateway))),
        ("it is a router", ndp::packet(ROUTER, ALL_NODES, ndp::router_advertisement(spoofer, PREFIX, 1800))),
        ("it sends as its neighbour", Ipv6::new(victim, far, PROTO_UDP, datagram)),
    ]
}

/// Lets two containers and their node ask for each other anew.
fn meet(node: &Node, victim: &Container, spoofer: &Container) {
    for netns in [&victim.netns, &spoofer.netns] {
        netns.ip(&format!("-6 neighbour flush dev {CONTAINER_DEVICE}")).unwrap();
    }
    node.netns().ip(&format!("-6 neighbour flush dev {BRIDGE}")).unwrap();
    let gateway = gateway(node).ip();
    for (from, to) in [(victim, gateway), (spoofer, gateway), (victim, spoofer.address()), (spoofer, victim.address())]
    {
        assert_eq!(ping(&from.netns, to, 1).unwrap().received, 1, "{:?} to {to}", from.addresses);
    }
}

#[test]
fn a_container_that_speaks_for_its_neighbours_or_as_a_router_is_counted_and_believed_by_nobody() {
    on_two_nodes(&settings(Way::IPV6_OVER_IPV6), |cluster| {
        let [node, other] = cluster.nodes() else { panic!("two nodes") };
        let (victim, far) = (node.container(), other.container());
        let spoofer = Container::join(node.netns(), node.subnet(), "spoofer", 3).unwrap();
        node.wait_endpoint(spoofer.v6()).unwrap();
        meet(node, victim, &spoofer);
        let bridge = gateway(node).ip().to_string().parse().unwrap();
        let known = || {
            let inside = believed(&victim.netns, CONTAINER_DEVICE, &[bridge, spoofer.v6()]);
            (inside, believed(node.netns(), BRIDGE, &[victim.v6(), spoofer.v6()]))
        };
        let (before, own) = (known(), mac(&spoofer.netns, CONTAINER_DEVICE).unwrap());
        assert_eq!([before.0.len(), before.1.len()], [2, 2], "{before:?}");
        let socket = PacketSocket::sender(&spoofer.netns, CONTAINER_DEVICE).unwrap();
        let [victims, bridges] = [mac(&victim.netns, CONTAINER_DEVICE), mac(node.netns(), BRIDGE)].map(Result::unwrap);
        for (name, packet) in lies(own, victim.v6(), bridge, far.v6()) {
            let count = spoofed(node);
            let to = match packet.destination {
                group if group.is_multicast() => ndp::multicast_mac(group),
                neighbour if neighbour == victim.v6() => victims,
                _ => bridges,
            };
            socket.send(&ethernet(to, own, ETHER_IPV6, &packet.bytes())).unwrap();
            wait_until(name, LIMIT, || spoofed(node) == count + 1).unwrap();
        }
        assert_eq!(known(), before);
        let routes = victim.netns.ip("-6 route show default").unwrap();
        assert_eq!((routes.lines().count(), routes.contains(&format!("via {bridge} "))), (1, true), "{routes}");
        let addresses = victim.netns.ip(&format!("-6 address show dev {CONTAINER_DEVICE}")).unwrap();
        assert!(!addresses.contains("2001:db8:66:"), "{addresses}");
        let count = spoofed(node);
        meet(node, victim, &spoofer);
        assert_eq!(known(), before);
        for container in [victim, &spoofer] {
            assert_eq!(ping(&container.netns, far.v6(), 1).unwrap().received, 1, "{:?}", container.addresses);
        }
        assert_eq!(spoofed(node), count, "what is honest");
    });
}
