//! Containers with IPv6, beside IPv4 or alone, by the plugins that a runtime has for them.

use std::net::{IpAddr, SocketAddr, TcpListener};

use overlay_common::Reason;
use overlay_tests::{
    cluster::{Backend, Settings},
    families::{Families, v6_among},
    netns::Netns,
    node::Node,
    packet_socket::{PacketSocket, mac},
    packets::{ETHER_IPV6, Ipv6, PROTO_UDP, checksummed, ethernet, udp},
    process::wait_until,
    two_nodes::dropped,
    underlay::Underlay,
};
use serde_json::json;

use crate::{
    networks::{Delegate, WRITERS, runtime},
    pods::{LIMIT, assert_talk, on_nodes, talk},
    runtime::{INTERFACE, Pod},
    state::State,
};

const HOST_PORT: u16 = 8080;
const PORT: u16 = 80;

/// The host number of a machine outside of the overlay network.
const OUTSIDER: u8 = 200;

/// Containers on two nodes, connected by `delegate`, through their whole life.
fn whole_life(overlay: Families, delegate: Delegate) {
    let settings = Settings {
        backend: Backend::Vxlan,
        overlay,
        underlay: overlay,
        agent_arguments: vec!["--ip-masq".to_owned()],
        ..Settings::default()
    };
    on_nodes(&settings, |cluster| {
        let (outside, _) = cluster.attach("outside", OUTSIDER).unwrap();
        let [one, two] = cluster.nodes() else { panic!("two nodes") };
        for writer in WRITERS {
            let runtimes = [one, two].map(|node| runtime(node, writer, delegate));
            let ports = json!([{"hostPort": HOST_PORT, "containerPort": PORT, "protocol": "tcp"}]);
            let before = runtimes.each_ref().map(|runtime| State::after_first(runtime, &ports));
            let pods = runtimes.each_ref().map(|runtime| runtime.pod("pod", ports.clone()));
            let neighbour = runtimes[0].pod("neighbour", json!([]));
            for (runtime, pod) in runtimes.iter().zip(&pods) {
                let subnets: Vec<_> = runtime.node.subnet().networks().collect();
                let addresses = pod.addresses();
                assert_eq!(addresses.len(), subnets.len(), "{addresses:?}");
                assert!(
                    subnets.iter().zip(&addresses).all(|(subnet, address)| subnet.contains(*address)),
                    "{addresses:?}"
                );
            }
            let [here, there] = &pods;
            assert_talk((&runtimes[0], here), (&runtimes[1], there));
            for subnet in two.subnet().networks() {
                let traffic = one.counters().traffic(subnet.network()).unwrap();
                assert!(traffic.encap_fast_packets > 0, "{subnet}: the fast path was not taken: {traffic:?}");
            }
            assert_published_and_masqueraded(here, &outside);
            assert_guarded(one, here, &neighbour, there);

            for (runtime, pod) in [(&runtimes[0], here), (&runtimes[0], &neighbour), (&runtimes[1], there)] {
                runtime.check(&Pod { ports: json!([]), ..pod.clone() }).unwrap();
                runtime.del(pod).unwrap();
                runtime.del(pod).expect("a second DEL finds nothing to do");
            }
            for (runtime, before) in runtimes.iter().zip(&before) {
                before.wait(runtime.node, &format!("{writer:?}"));
            }
        }
    });
}

/// `pod`, on the first node, is reached at that node's port, and reaches `outside` under its address, over each family.
fn assert_published_and_masqueraded(pod: &Pod, outside: &Netns) {
    for address in pod.addresses() {
        let of = |host| if address.is_ipv4() { IpAddr::from(Underlay::v4(host)) } else { Underlay::v6(host).into() };
        let (its_node, outsider) = (of(1), of(OUTSIDER));
        let listener = pod.netns().run(|| TcpListener::bind((address, PORT))).unwrap();
        assert_eq!(talk(outside, SocketAddr::from((its_node, HOST_PORT)), &listener).ip(), outsider);
        let server = outside.run(|| TcpListener::bind((outsider, PORT))).unwrap();
        assert_eq!(talk(pod.netns(), SocketAddr::from((outsider, PORT)), &server).ip(), its_node);
    }
}

/// `pod` cannot send with the IPv6 address of its `neighbour`.
fn assert_guarded(node: &Node, pod: &Pod, neighbour: &Pod, remote: &Pod) {
    let [own, neighbour, remote] = [pod, neighbour, remote].map(|pod| v6_among(&pod.addresses()).unwrap());
    let spoofed = || dropped(node, Reason::SpoofedNeighbour);
    let before = spoofed();
    let socket = PacketSocket::sender(pod.netns(), INTERFACE).unwrap();
    let own_mac = mac(pod.netns(), INTERFACE).unwrap();
    let send = |source| {
        let datagram = checksummed(source, remote, PROTO_UDP, udp(1, 2, b"whose?"));
        let packet = Ipv6::new(source, remote, PROTO_UDP, datagram);
        socket.send(&ethernet([2; 6], own_mac, ETHER_IPV6, &packet.bytes())).unwrap();
    };
    send(own);
    send(neighbour);
    wait_until("the drop of the forged packet", LIMIT, || spoofed() == before + 1).unwrap();
}

#[test]
fn dual_stack_containers_on_bridges_live_and_leave_nothing() {
    whole_life(Families::Dual, Delegate::Bridge);
}

#[test]
fn dual_stack_containers_behind_host_routes_live_and_leave_nothing() {
    whole_life(Families::Dual, Delegate::Ptp);
}

#[test]
fn ipv6_containers_on_bridges_live_and_leave_nothing() {
    whole_life(Families::V6, Delegate::Bridge);
}

#[test]
fn ipv6_containers_behind_host_routes_live_and_leave_nothing() {
    whole_life(Families::V6, Delegate::Ptp);
}
