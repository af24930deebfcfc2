//! Outer packets that a router on the underlay had to fragment.

use overlay_tests::{
    cluster::Cluster, netns::Netns, node::UNDERLAY_DEVICE, packet_socket::PacketSocket, packets::Ipv4, traffic::ping,
};

use crate::ground::{Backend, flow, for_either_backend, on_two_nodes, settings, two};

/// What the router lets through, in bytes.
const ROUTER_MTU: u32 = 1400;

/// Puts a router between the nodes that forwards packets of at most [`ROUTER_MTU`] bytes whole.
fn insert_router(cluster: &Cluster) -> Netns {
    let (router, address) = cluster.attach("router", 99).unwrap();
    for (name, value) in [("ip_forward", "1"), ("conf.all.send_redirects", "0"), ("conf.eth0.send_redirects", "0")] {
        router.sysctl(&format!("net.ipv4.{name}"), value).unwrap();
    }
    let [one, two] = two(cluster);
    for (node, other) in [(one, two), (two, one)] {
        router.ip(&format!("route add {} dev {UNDERLAY_DEVICE} mtu lock {ROUTER_MTU}", node.address())).unwrap();
        node.netns().ip(&format!("route add {} via {address} dev {UNDERLAY_DEVICE}", other.address())).unwrap();
    }
    router
}

for_either_backend! {
    fn outer_fragments_are_reassembled_and_arrive(backend) {
        on_two_nodes(&settings(backend), |cluster| {
            let _router = insert_router(cluster);
            let [one, two] = two(cluster);
            for (from, to) in [(one, two), (two, one)] {
                let sees = PacketSocket::open(to.netns(), UNDERLAY_DEVICE).unwrap();
                let largest = usize::try_from(from.subnet().mtu).unwrap() - 28;
                assert_eq!(ping(&from.container().netns, to.container().v4(), 1).unwrap().received, 1);
                for size in [largest, 65_507] {
                    assert_eq!(flow(from, to).udp_echo(2, size).unwrap(), 2, "{size} bytes");
                }
                flow(from, to).tcp_transfer(1 << 20).unwrap();
                let offset = |packet: &Ipv4| packet.flags_and_offset & 0x1fff != 0 && packet.destination == to.address();
                let fragments = sees.drain(|frame| Ipv4::in_frame(&frame.bytes).filter(offset)).unwrap();
                assert!(fragments.len() > 1, "no outer fragment was seen at {}", to.name());
            }
            assert_eq!((one.counters().drops().unwrap(), two.counters().drops().unwrap()), (vec![], vec![]));
        });
    }
}
