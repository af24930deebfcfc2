//! Nodes that are not ours: one that forwards by flannel's kernel VXLAN device, one by a TUN device in user space.

use std::net::Ipv4Addr;

use overlay_common::Reason;
use overlay_tests::{
    cluster::{Backend, CONFIG_KEY, Cluster, Datastore, NETWORK, Settings},
    netns::Netns,
    node::{Node, UNDERLAY_DEVICE},
    process::{output, wait_until},
    sandbox::isolated,
    traffic::{Flow, ping},
    tun_peer::{self, TunPeer},
};

use crate::ground::{LIMIT, dropped, for_either_backend};

/// The peer's subnet: far from any that our node would draw early.
const SUBNET: &str = "10.1.200.0";
const LEASE: &str = "/coreos.com/network/subnets/10.1.200.0-24";

/// A node set up without any code of ours but the namespaces.
struct Peer {
    netns: Netns,
    address: Ipv4Addr,
    container: Netns,
    tun: Option<TunPeer>,
}

fn peer_address(host: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 1, 200, host)
}

impl Peer {
    /// A machine on the underlay with a bridge and a container, as Docker would make them.
    fn new(cluster: &Cluster, overlay_mtu: u32) -> Self {
        let (netns, address) = cluster.attach("peer", 77).unwrap();
        let container = Netns::new().unwrap();
        netns.sysctl("net.ipv4.ip_forward", "1").unwrap();
        netns.bridge("cni0").unwrap();
        netns.ip(&format!("address add {}/24 dev cni0", peer_address(1))).unwrap();
        netns.veth("container", &container, "eth0", overlay_mtu).unwrap();
        netns.ip("link set dev container master cni0").unwrap();
        container.ip(&format!("address add {}/24 dev eth0", peer_address(2))).unwrap();
        container.ip(&format!("route add default via {}", peer_address(1))).unwrap();
        Self { netns, address, container, tun: None }
    }

    /// What flanneld does for its vxlan backend, command by command.
    fn vxlan(cluster: &mut Cluster) -> Self {
        let peer = Self::new(cluster, 1450);
        for command in [
            format!(
                "link add flannel.1 type vxlan id 1 dev {UNDERLAY_DEVICE} local {} dstport 8472 nolearning",
                peer.address
            ),
            format!("address add {SUBNET}/32 dev flannel.1"),
            "link set dev flannel.1 mtu 1450 up".to_owned(),
        ] {
            peer.netns.ip(&command).unwrap();
        }
        peer.learn(cluster);
        peer
    }

    /// What flanneld does for a node it learns of: neighbour, FDB entry, route.
    fn learn(&self, cluster: &mut Cluster) {
        let (subnet, vtep_mac) = our_vtep(cluster);
        self.netns.ip(&format!("neighbour replace {subnet} lladdr {vtep_mac} dev flannel.1 nud permanent")).unwrap();
        let node = cluster.nodes()[0].address().to_string();
        let mut fdb = self.netns.command("bridge");
        output(fdb.args(["fdb", "replace", &vtep_mac, "dev", "flannel.1", "dst", &node, "self", "permanent"])).unwrap();
        self.netns.ip(&format!("route replace {subnet}/24 via {subnet} dev flannel.1 onlink")).unwrap();
    }

    fn udp(cluster: &mut Cluster) -> Self {
        let mut peer = Self::new(cluster, 1472);
        let settings = tun_peer::Settings {
            device: "flannel0".to_owned(),
            mtu: 1472,
            underlay: peer.address,
            port: 8285,
            network: NETWORK.parse().unwrap(),
            subnet: format!("{SUBNET}/24").parse().unwrap(),
        };
        let tun = TunPeer::start(&peer.netns, &settings).unwrap();
        let node = &cluster.nodes()[0];
        // As a NIC, unlike a veth, would: checksums are filled in and super-packets cut up before they leave.
        node.netns().offload(UNDERLAY_DEVICE, &["tx"], false).unwrap();
        tun.set_route(format!("{}/24", node.subnet().subnet()).parse().unwrap(), node.address());
        peer.tun = Some(tun);
        peer
    }

    fn vtep_mac(&self) -> String {
        let text = self.netns.ip("-o link show dev flannel.1").unwrap();
        text.split("link/ether ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap().to_owned()
    }

    /// The lease as flanneld prints it.
    fn lease(&self, backend: Backend) -> String {
        let address = self.address;
        match backend {
            Backend::Udp => format!(r#"{{"PublicIP":"{address}","PublicIPv6":null}}"#),
            Backend::Vxlan => format!(
                r#"{{"PublicIP":"{address}","PublicIPv6":null,"BackendType":"vxlan","BackendData":{{"VNI":1,"VtepMAC":"{}"}}}}"#,
                self.vtep_mac()
            ),
        }
    }
}

/// The subnet and the VTEP's MAC address in our node's lease.
fn our_vtep(cluster: &mut Cluster) -> (Ipv4Addr, String) {
    let leases = cluster.etcd().list(&CONFIG_KEY.replace("config", "subnets/")).unwrap();
    let (key, value) = leases.into_iter().find(|(key, _)| key != LEASE).unwrap();
    let subnet: Option<Ipv4Addr> =
        key.rsplit('/').next().and_then(|name| name.strip_suffix("-24")).and_then(|name| name.parse().ok());
    let value: serde_json::Value = serde_json::from_str(&value).unwrap();
    let mac = value["BackendData"]["VtepMAC"].as_str().unwrap_or_default().to_owned();
    (subnet.unwrap(), mac)
}

/// Runs `test` on one node of ours and a peer whose lease it knows.
fn with_peer(backend: Backend, test: impl FnOnce(&mut Cluster, &Peer) + Send) {
    isolated(|| {
        let settings = Settings { nodes: 1, backend, datastore: Datastore::Etcd, ..Settings::default() };
        let mut cluster = Cluster::start(&settings).unwrap();
        let peer = match backend {
            Backend::Udp => Peer::udp(&mut cluster),
            Backend::Vxlan => Peer::vxlan(&mut cluster),
        };
        cluster.etcd().put(LEASE, &peer.lease(backend)).unwrap();
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
    let flow = |from: &Netns, to: &Netns, address| Flow { from: from.clone(), to: to.clone(), address };
    vec![
        ("container to container", flow(&container.netns, &peer.container, peer_address(2))),
        ("container to node's overlay address", flow(&container.netns, &peer.netns, peer_address(0))),
        ("container to gateway", flow(&container.netns, &peer.netns, peer_address(1))),
        ("node to container", flow(node.netns(), &peer.container, peer_address(2))),
        ("node to gateway", flow(node.netns(), &peer.netns, peer_address(1))),
        ("peer's container to container", flow(&peer.container, &container.netns, container.address)),
        ("peer's container to node's overlay address", flow(&peer.container, node.netns(), ours.subnet())),
        ("peer's container to gateway", flow(&peer.container, node.netns(), ours.gateway)),
        ("peer to container", flow(&peer.netns, &container.netns, container.address)),
        ("peer to gateway", flow(&peer.netns, node.netns(), ours.gateway)),
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
            assert_eq!(ping(&peer.container, node.container().address, 1).unwrap().received, 0);
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
        cluster.etcd().put(LEASE, &peer.lease(Backend::Vxlan)).unwrap();
        let counters = cluster.nodes()[0].counters();
        let known = || counters.routes().unwrap()[&peer_address(0)].vtep_mac() == [2, 0, 0, 0, 0, 0x77];
        wait_until("the new address", LIMIT, known).unwrap();
        assert_eq!(ping(&node, peer_address(2), 1).unwrap().received, 1);
    });
}
