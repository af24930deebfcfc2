//! Nodes that are not ours: one that forwards by flannel's kernel VXLAN device, one by a TUN device in user space.

use std::net::Ipv4Addr;

use ipnetwork::IpNetwork;
use overlay_common::Reason;
use overlay_tests::{
    cluster::{Backend, CONFIG_KEY, Cluster, Datastore, NETWORK, Settings},
    kernel_vxlan::{KernelNode, TunnelEnd},
    netns::Netns,
    node::{Container, ContainerNetwork, Node, UNDERLAY_DEVICE},
    process::wait_until,
    sandbox::isolated,
    traffic::{Flow, ping},
    tun_peer::{self, TunPeer},
};

use crate::ground::{LIMIT, dropped, for_either_backend};

/// The peer's subnet: far from any that our node would draw early.
const SUBNET: &str = "10.1.200.0/24";
const LEASE: &str = "/coreos.com/network/subnets/10.1.200.0-24";

/// A node set up without any code of ours but the namespaces.
struct Peer {
    netns: Netns,
    address: Ipv4Addr,
    container: Netns,
    tunnel: Tunnel,
}

enum Tunnel {
    Kernel(KernelNode),
    Proxy(#[expect(dead_code, reason = "it works as long as it is held")] TunPeer),
}

fn peer_address(host: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 1, 200, host)
}

impl Peer {
    /// What flanneld does for its vxlan backend.
    fn vxlan(cluster: &Cluster) -> Self {
        let (netns, address) = cluster.attach("peer", 77).unwrap();
        let node = KernelNode::new(netns.clone(), &[address.into()], &[SUBNET.parse().unwrap()], 1500).unwrap();
        let container = node.container.netns.clone();
        let peer = Self { netns, address, container, tunnel: Tunnel::Kernel(node) };
        peer.learn(cluster);
        peer
    }

    /// What flanneld does for a node it learns of.
    fn learn(&self, cluster: &Cluster) {
        let Tunnel::Kernel(node) = &self.tunnel else { return };
        node.learn(&our_end(cluster)).unwrap();
    }

    fn udp(cluster: &Cluster) -> Self {
        let (netns, address) = cluster.attach("peer", 77).unwrap();
        netns.sysctl("net.ipv4.ip_forward", "1").unwrap();
        let gateway = IpNetwork::new(peer_address(1).into(), 24).unwrap();
        let network = ContainerNetwork { gateways: vec![gateway], mtu: 1472 };
        let container = Container::on_bridge(&netns, network).unwrap().netns;
        let settings = tun_peer::Settings {
            device: "flannel0".to_owned(),
            mtu: 1472,
            underlay: address,
            port: 8285,
            network: NETWORK.parse().unwrap(),
            subnet: SUBNET.parse().unwrap(),
        };
        let tun = TunPeer::start(&netns, &settings).unwrap();
        let node = &cluster.nodes()[0];
        // As a NIC, unlike a veth, would: checksums are filled in and super-packets cut up before they leave.
        node.netns().offload(UNDERLAY_DEVICE, &["tx"], false).unwrap();
        tun.set_route(format!("{}/24", node.subnet().subnet()).parse().unwrap(), node.address());
        Self { netns, address, container, tunnel: Tunnel::Proxy(tun) }
    }

    /// The lease as flanneld prints it.
    fn lease(&self) -> String {
        match &self.tunnel {
            Tunnel::Kernel(node) => node.lease().unwrap(),
            Tunnel::Proxy(_) => format!(r#"{{"PublicIP":"{}","PublicIPv6":null}}"#, self.address),
        }
    }
}

/// Our node as its lease describes it.
fn our_end(cluster: &Cluster) -> TunnelEnd {
    let leases = cluster.etcd().list(&CONFIG_KEY.replace("config", "subnets/")).unwrap();
    let (key, value) = leases.into_iter().find(|(key, _)| key != LEASE).unwrap();
    TunnelEnd::of_lease(&key, &value).unwrap()[0]
}

/// Runs `test` on one node of ours and a peer whose lease it knows.
fn with_peer(backend: Backend, test: impl FnOnce(&mut Cluster, &Peer) + Send) {
    isolated(|| {
        let settings = Settings { nodes: 1, backend, datastore: Datastore::Etcd, ..Settings::default() };
        let mut cluster = Cluster::start(&settings).unwrap();
        let peer = match backend {
            Backend::Udp => Peer::udp(&cluster),
            Backend::Vxlan => Peer::vxlan(&cluster),
        };
        cluster.etcd().put(LEASE, &peer.lease()).unwrap();
        wait_until("the peer's route", LIMIT, || knows_peer(&cluster.nodes()[0])).unwrap();
        test(&mut cluster, &peer);
    });
}

fn knows_peer(node: &Node) -> bool {
    node.counters().routes().unwrap().contains_key(&peer_address(0))
}

/// Every way in which one of ours can talk to one of theirs, and back.
fn flows(node: &Node, peer: &Peer) -> Vec<(&'static str, Flow)> {
    let (ours, container) = (node.subnet(), node.container());
    vec![
        ("container to container", Flow::new(&container.netns, &peer.container, peer_address(2))),
        ("container to node's overlay address", Flow::new(&container.netns, &peer.netns, peer_address(0))),
        ("container to gateway", Flow::new(&container.netns, &peer.netns, peer_address(1))),
        ("node to container", Flow::new(node.netns(), &peer.container, peer_address(2))),
        ("node to gateway", Flow::new(node.netns(), &peer.netns, peer_address(1))),
        ("peer's container to container", Flow::new(&peer.container, &container.netns, container.v4())),
        ("peer's container to node's overlay address", Flow::new(&peer.container, node.netns(), ours.subnet())),
        ("peer's container to gateway", Flow::new(&peer.container, node.netns(), ours.gateway())),
        ("peer to container", Flow::new(&peer.netns, &container.netns, container.v4())),
        ("peer to gateway", Flow::new(&peer.netns, node.netns(), ours.gateway())),
    ]
}

for_either_backend! {
    fn everybody_talks_with_a_flannel_peer_both_ways(backend) {
        with_peer(backend, |cluster, peer| {
            let node = &cluster.nodes()[0];
            let mtu = usize::try_from(node.subnet().mtu).unwrap();
            for (name, flow) in flows(node, peer) {
                assert_eq!(ping(&flow.from, flow.address, 1).unwrap().received, 1, "ping, {name}");
                for size in [1, mtu - 28, 8000] {
                    assert_eq!(flow.udp_echo(2, size).unwrap(), 2, "{size} bytes, {name}");
                }
                flow.tcp_transfer(4 << 20).unwrap_or_else(|error| panic!("{name}: {error:#}"));
            }
            // As over NICs that segment in software and fill in checksums.
            for netns in [node.netns(), &peer.netns] {
                netns.offload(UNDERLAY_DEVICE, &["tx"], false).unwrap();
            }
            for (name, flow) in flows(node, peer) {
                flow.tcp_transfer(1 << 20).unwrap_or_else(|error| panic!("{name}, without offloads: {error:#}"));
            }
            assert_eq!(node.counters().drops().unwrap(), []);
        });
    }

    fn a_peer_without_a_lease_is_heard_no_more_and_sent_nothing(backend) {
        with_peer(backend, |cluster, peer| {
            assert_eq!(cluster.etcd().delete(LEASE).unwrap(), 1);
            let node = &cluster.nodes()[0];
            wait_until("the route to be gone", LIMIT, || !knows_peer(node)).unwrap();
            assert_eq!(ping(&node.container().netns, peer_address(2), 1).unwrap().received, 0);
            assert_eq!(dropped(node, Reason::NoRoute), 1);
            assert_eq!(ping(&peer.container, node.container().v4(), 1).unwrap().received, 0);
            assert_eq!(dropped(node, Reason::UnknownNode), 1);
        });
    }
}

#[test]
fn a_peers_new_mac_address_is_used_at_once() {
    with_peer(Backend::Vxlan, |cluster, peer| {
        // As after a reboot of the peer.
        peer.netns.ip("link set dev flannel.1 down").unwrap();
        peer.netns.ip("link set dev flannel.1 address 02:00:00:00:00:77").unwrap();
        peer.netns.ip("link set dev flannel.1 up").unwrap();
        peer.learn(cluster);
        let node = cluster.nodes()[0].container().netns.clone();
        assert_eq!(ping(&node, peer_address(2), 1).unwrap().received, 0, "to the old address");
        cluster.etcd().put(LEASE, &peer.lease()).unwrap();
        let counters = cluster.nodes()[0].counters();
        let known = || counters.routes().unwrap()[&peer_address(0)].vtep_mac() == [2, 0, 0, 0, 0, 0x77];
        wait_until("the new address", LIMIT, known).unwrap();
        assert_eq!(ping(&node, peer_address(2), 1).unwrap().received, 1);
    });
}
