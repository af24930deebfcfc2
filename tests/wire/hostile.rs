//! What strangers on the underlay, and containers themselves, cannot do.

use std::net::{Ipv4Addr, UdpSocket};

use overlay_common::Reason;
use overlay_tests::{
    cluster::Cluster,
    netns::Netns,
    node::{Node, UNDERLAY_DEVICE},
    packet_socket::{self, Frame, PacketSocket},
    packets::{ETHER_ARP, ETHER_IPV4, ETHER_VLAN, Ipv4, PROTO_UDP, ethernet, udp, vxlan},
    process::wait_until,
    traffic::ping,
};

use crate::ground::{Backend, LIMIT, dropped, for_either_backend, on_two_nodes, settings, two};

/// What no container may ever see.
const PAYLOAD: &[u8] = b"this must not arrive";

/// Nobody's address, and nobody's subnet.
const STRANGER: Ipv4Addr = Ipv4Addr::new(192, 168, 50, 66);
const NOBODY: Ipv4Addr = Ipv4Addr::new(10, 2, 3, 4);

const MORE_FRAGMENTS: u16 = 0x2000;

/// The Ethernet address of `device`.
pub(crate) fn mac(netns: &Netns, device: &str) -> [u8; 6] {
    packet_socket::mac(netns, device).unwrap()
}

/// The port of a backend, and its device's name.
pub(crate) fn port_and_device(backend: Backend) -> (u16, &'static str) {
    match backend {
        Backend::Udp => (8285, "overlay.0"),
        Backend::Vxlan => (8472, "overlay.1"),
    }
}

/// A machine on the underlay that sends what it likes to the first node, and an eye on that node's container.
pub(crate) struct Attacker<'a> {
    victim: &'a Node,
    other: &'a Node,
    backend: Backend,
    socket: PacketSocket,
    sees: PacketSocket,
    underlay_mac: [u8; 6],
    vtep_mac: [u8; 6],
}

impl<'a> Attacker<'a> {
    pub(crate) fn new(cluster: &'a Cluster, backend: Backend) -> Self {
        let (netns, _) = cluster.attach("attacker", 66).unwrap();
        let [victim, other] = two(cluster);
        let (_, device) = port_and_device(backend);
        Self {
            victim,
            other,
            backend,
            socket: PacketSocket::open(&netns, UNDERLAY_DEVICE).unwrap(),
            sees: PacketSocket::open(&victim.container().netns, "eth0").unwrap(),
            underlay_mac: mac(victim.netns(), UNDERLAY_DEVICE),
            vtep_mac: mac(victim.netns(), device),
        }
    }

    /// A packet from the other node's container to the victim's.
    fn inner(&self) -> Ipv4 {
        let (from, to) = (self.other.container().v4(), self.victim.container().v4());
        Ipv4::new(from, to, PROTO_UDP, udp(1234, 4242, PAYLOAD))
    }

    /// The UDP payload that carries `inner`.
    fn payload(&self, inner: &Ipv4) -> Vec<u8> {
        match self.backend {
            Backend::Udp => inner.bytes(),
            Backend::Vxlan => vxlan(8, 1, &ethernet(self.vtep_mac, [2; 6], ETHER_IPV4, &inner.bytes())),
        }
    }

    /// An outer packet that claims to come from the underlay address `source`.
    fn outer(&self, source: Ipv4Addr, payload: &[u8]) -> Ipv4 {
        let (port, _) = port_and_device(self.backend);
        Ipv4::new(source, self.victim.address(), PROTO_UDP, udp(port, port, payload))
    }

    fn inject(&self, packet: &Ipv4) {
        self.socket.send(&ethernet(self.underlay_mac, [2; 6], ETHER_IPV4, &packet.bytes())).unwrap();
    }

    /// Sends an inner packet as it is, addressed to the node's underlay interface.
    pub(crate) fn inject_bare(&self) {
        self.inject(&self.inner());
    }

    pub(crate) fn wait_dropped(&self, reason: Reason, count: u64) {
        wait_until(&format!("drop {count} for {reason:?}"), LIMIT, || dropped(self.victim, reason) >= count)
            .unwrap_or_else(|error| panic!("{error:#}; drops: {:?}", self.victim.counters().drops()));
    }

    /// Fails if anything has reached the container. What was sent before a ping has arrived before its answer.
    pub(crate) fn assert_nothing_came(&self) {
        let pings = ping(&self.other.container().netns, self.victim.container().v4(), 1).unwrap();
        assert_eq!(pings.received, 1, "the ping that shows that the container can be reached");
        let came = self.sees.drain(hostile).unwrap();
        assert_eq!(came, [], "in the container");
    }

    /// Injects each packet and waits until it is dropped for its reason.
    fn check(&self, cases: &[(&str, Reason, Vec<u8>)]) {
        for (name, reason, frame) in cases {
            let before = dropped(self.victim, *reason);
            self.socket.send(frame).unwrap();
            wait_until(&format!("{name} to be dropped for {reason:?}"), LIMIT, || {
                dropped(self.victim, *reason) == before + 1
            })
            .unwrap_or_else(|error| panic!("{error:#}; drops: {:?}", self.victim.counters().drops()));
        }
        self.assert_nothing_came();
    }

    fn frame(&self, packet: &Ipv4) -> Vec<u8> {
        ethernet(self.underlay_mac, [2; 6], ETHER_IPV4, &packet.bytes())
    }
}

fn hostile(frame: &Frame) -> Option<Frame> {
    frame.bytes.windows(PAYLOAD.len()).any(|window| window == PAYLOAD).then(|| frame.clone())
}

/// Packets that are wrong in either encapsulation.
fn common_cases(attacker: &Attacker) -> Vec<(&'static str, Reason, Vec<u8>)> {
    let node = attacker.other.address();
    let inner = || attacker.inner();
    let outer = |source, inner: &Ipv4| attacker.outer(source, &attacker.payload(inner));
    let frame = |packet: &Ipv4| attacker.frame(packet);
    let own = attacker.victim.subnet().address(3);
    let tagged = [&[0, 0][..], &ETHER_IPV4.to_be_bytes(), &outer(STRANGER, &inner()).bytes()].concat();
    let tagged_bare = [&[0, 0][..], &ETHER_IPV4.to_be_bytes(), &inner().bytes()].concat();
    let long = Ipv4 { payload: udp(1, 2, &PAYLOAD.repeat(20)), ..inner() };
    let fragment = |source, bytes: usize| {
        let whole = outer(source, &long);
        Ipv4 { flags_and_offset: MORE_FRAGMENTS, payload: whole.payload[..bytes].to_vec(), ..whole }
    };
    let congested = Ipv4 { tos: 3, ..outer(node, &inner()) };
    vec![
        ("a stranger's packet", Reason::UnknownNode, frame(&outer(STRANGER, &inner()))),
        (
            "a stranger's with a priority tag",
            Reason::UnknownNode,
            ethernet(attacker.underlay_mac, [2; 6], ETHER_VLAN, &tagged),
        ),
        ("a stranger's in fragments", Reason::UnknownNode, frame(&fragment(STRANGER, 200))),
        ("a fragment that hides the inner header", Reason::Truncated, frame(&fragment(node, 8))),
        ("a source in our subnet", Reason::SourceNotTheirs, frame(&outer(node, &Ipv4 { source: own, ..inner() }))),
        ("a source of nobody", Reason::SourceNotTheirs, frame(&outer(node, &Ipv4 { source: NOBODY, ..inner() }))),
        (
            "a packet to relay",
            Reason::DestinationNotOurs,
            frame(&outer(node, &Ipv4 { destination: NOBODY, ..inner() })),
        ),
        (
            "a multicast",
            Reason::DestinationNotOurs,
            frame(&outer(node, &Ipv4 { destination: [224, 0, 0, 1].into(), ..inner() })),
        ),
        ("a bare inner packet", Reason::NotEncapsulated, frame(&inner())),
        (
            "a bare one with a priority tag",
            Reason::NotEncapsulated,
            ethernet(attacker.underlay_mac, [2; 6], ETHER_VLAN, &tagged_bare),
        ),
        (
            "an inner packet shorter than it says",
            Reason::BadLength,
            frame(&outer(node, &Ipv4 { total_length: Some(500), ..inner() })),
        ),
        (
            "an inner packet of version 6",
            Reason::BadHeader,
            frame(&outer(node, &Ipv4 { version_and_length: Some(0x65), ..inner() })),
        ),
        ("a congestion mark that nobody can be told of", Reason::CeOnNotEct, frame(&congested)),
    ]
}

/// Packets that are wrong as VXLAN.
fn vxlan_cases(attacker: &Attacker) -> Vec<(&'static str, Reason, Vec<u8>)> {
    let inner = attacker.inner().bytes();
    let case = |payload: &[u8]| attacker.frame(&attacker.outer(attacker.other.address(), payload));
    let ours = attacker.vtep_mac;
    vec![
        ("another VNI", Reason::WrongVni, case(&vxlan(8, 2, &ethernet(ours, [2; 6], ETHER_IPV4, &inner)))),
        ("unknown flags", Reason::BadVxlanFlags, case(&vxlan(0x88, 1, &ethernet(ours, [2; 6], ETHER_IPV4, &inner)))),
        ("another VTEP's", Reason::WrongVtepMac, case(&vxlan(8, 1, &ethernet([2; 6], [2; 6], ETHER_IPV4, &inner)))),
        ("a broadcast", Reason::WrongVtepMac, case(&vxlan(8, 1, &ethernet([255; 6], [2; 6], ETHER_IPV4, &inner)))),
        ("ARP", Reason::InnerNotIpv4, case(&vxlan(8, 1, &ethernet(ours, [2; 6], ETHER_ARP, &inner)))),
    ]
}

for_either_backend! {
    fn nothing_forged_reaches_a_container_and_each_is_counted_under_its_reason(backend) {
        on_two_nodes(&settings(backend), |cluster| {
            let attacker = Attacker::new(cluster, backend);
            attacker.check(&common_cases(&attacker));
            if backend == Backend::Vxlan {
                attacker.check(&vxlan_cases(&attacker));
            }
        });
    }

    /// The tunnel's port is open on every address of a node, also to its containers.
    fn a_container_cannot_send_tunnel_packets_to_its_own_node(backend) {
        on_two_nodes(&settings(backend), |cluster| {
            let attacker = Attacker::new(cluster, backend);
            let node = attacker.victim;
            let socket = node.container().netns.run(|| UdpSocket::bind((node.container().v4(), 0))).unwrap();
            let (port, _) = port_and_device(backend);
            for address in [node.address(), node.subnet().gateway(), node.subnet().subnet()] {
                socket.send_to(&attacker.payload(&attacker.inner()), (address, port)).unwrap();
            }
            // An ICMP error quotes what was sent.
            let is_udp = |frame: &Frame| Ipv4::in_frame(&frame.bytes).is_some_and(|packet| packet.protocol == PROTO_UDP);
            let came = |frame: &Frame| (!frame.outgoing && is_udp(frame)).then(|| hostile(frame)).flatten();
            let pings = ping(&attacker.other.container().netns, node.container().v4(), 1).unwrap();
            assert_eq!(pings.received, 1);
            assert_eq!(attacker.sees.drain(came).unwrap(), []);
            if backend == Backend::Vxlan {
                assert_eq!(dropped(node, Reason::NotAccepted), 3);
            }
        });
    }

    /// A node's lease names one address; a VXLAN device of the kernel takes packets to all of them.
    fn tunnel_packets_to_another_address_of_the_node_do_not_come_in(backend) {
        on_two_nodes(&settings(backend), |cluster| {
            let attacker = Attacker::new(cluster, backend);
            let other = Ipv4Addr::new(192, 168, 50, 201);
            attacker.victim.netns().ip(&format!("address add {other}/24 dev {UNDERLAY_DEVICE}")).unwrap();
            for source in [STRANGER, attacker.other.address()] {
                let outer = attacker.outer(source, &attacker.payload(&attacker.inner()));
                attacker.inject(&Ipv4 { destination: other, ..outer });
            }
            if backend == Backend::Vxlan {
                attacker.wait_dropped(Reason::NotAccepted, 2);
            }
            attacker.assert_nothing_came();
        });
    }
}
