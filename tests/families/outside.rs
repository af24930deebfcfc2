//! Containers and a machine outside of the overlay that has no route to them.

use std::{
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    time::Duration,
};

use overlay_tests::{
    cluster::{Cluster, Settings},
    families::{Families, any_like},
    netns::Netns,
    node::{Node, UNDERLAY_DEVICE},
    process::output,
    sandbox::isolated,
    traffic::Flow,
    two_nodes::{Way, settings},
    underlay::Underlay,
};

const LIMIT: Duration = Duration::from_secs(5);

/// The outsider's number on the underlay.
const OUTSIDER: u8 = 200;

/// Asks and answers of each flow: enough to be approved where nothing is translated.
const PACKETS: u32 = 20;

/// A firewall that forwards nothing but what it is told to: the programs that set it up, one for each family.
type Firewall = [&'static str; 2];

/// With tables of iptables' own, with those on top of nftables, and none.
const FIREWALLS: [Option<Firewall>; 3] =
    [None, Some(["iptables-nft", "ip6tables-nft"]), Some(["iptables-legacy", "ip6tables-legacy"])];

/// All rules of a node, as nftables and both implementations of iptables list them.
fn rules(node: &Node, firewall: Option<Firewall>) -> String {
    let nft = output(node.netns().command("nft").args(["--stateless", "list", "ruleset"])).unwrap();
    let iptables =
        firewall.into_iter().flatten().map(|program| output(node.netns().command(program).arg("-S")).unwrap());
    iptables.fold(nft, |rules, listed| rules + &listed)
}

/// With whose address `to` sees a TCP connection and UDP packets of `from`. All are answered.
fn seen_from(from: &Netns, to: &Netns, address: IpAddr) -> IpAddr {
    let listener = to.run(|| TcpListener::bind((address, 0))).unwrap();
    let _client = from.run(|| TcpStream::connect_timeout(&listener.local_addr().unwrap(), LIMIT)).unwrap();
    let seen = listener.accept().unwrap().1.ip();
    let far = to.run(|| UdpSocket::bind((address, 0))).unwrap();
    let near = from.run(|| UdpSocket::bind(SocketAddr::new(any_like(address), 0))).unwrap();
    for socket in [&near, &far] {
        socket.set_read_timeout(Some(LIMIT)).unwrap();
    }
    near.connect(far.local_addr().unwrap()).unwrap();
    for _ in 0..PACKETS {
        near.send(b"question").unwrap();
        let asker = far.recv_from(&mut [0; 16]).unwrap().1;
        assert_eq!(asker.ip(), seen, "UDP and TCP from one container");
        far.send_to(b"answer", asker).unwrap();
        near.recv(&mut [0; 16]).unwrap();
    }
    seen
}

/// Fails unless datagrams in fragments, which translation has to put together, and a stream arrive.
fn assert_carries_all_sizes(from: &Netns, to: &Netns, address: IpAddr) {
    let flow = Flow::new(from, to, address);
    assert_eq!(flow.udp_echo(2, 8000).unwrap(), 2, "datagrams of 8000 bytes to {address}");
    flow.tcp_transfer(2 << 20).unwrap();
}

/// The address of `node`, and none of its own, for a container that talks to the outside.
fn assert_masqueraded(cluster: &Cluster) {
    let (outsider, _) = cluster.attach("outsider", OUTSIDER).unwrap();
    // It knows what fits the containers: over IPv6 it would else find out by answers that get lost.
    outsider.ip(&format!("-6 route change fd50::/64 dev {UNDERLAY_DEVICE} metric 256 mtu 1400")).unwrap();
    let outside = [Underlay::v4(OUTSIDER).into(), Underlay::v6(OUTSIDER).into()];
    for node in cluster.nodes() {
        let container = node.container();
        for ((outside, own), address) in outside.into_iter().zip(node.addresses()).zip(&container.addresses) {
            outsider.ip(&format!("route get {address}")).expect_err("no route from the outside");
            assert_eq!(seen_from(&container.netns, &outsider, outside), *own, "{address}");
            assert_carries_all_sizes(&container.netns, &outsider, outside);
        }
        let carried = node.counters().carried().unwrap();
        assert!(carried.iter().all(|(_, [_, remote])| !outside.contains(&remote.ip())), "translated: {carried:?}");
    }
}

#[test]
fn containers_reach_the_outside_under_their_nodes_addresses_and_each_other_under_their_own() {
    for firewall in FIREWALLS {
        isolated(|| {
            let settings = Settings {
                agent_arguments: vec!["--ip-masq".to_owned()],
                ..settings(Way::vxlan(Families::Dual, Families::Dual))
            };
            let mut cluster = Cluster::new(&settings).unwrap();
            for node in cluster.nodes() {
                for program in firewall.into_iter().flatten() {
                    output(node.netns().command(program).args(["-P", "FORWARD", "DROP"])).unwrap();
                }
            }
            let before: Vec<_> = cluster.nodes().iter().map(|node| rules(node, firewall)).collect();
            cluster.bring_up(&settings.network_config()).unwrap();
            assert_masqueraded(&cluster);
            let [one, two] = cluster.nodes() else { panic!("two nodes") };
            for (from, to) in [(one, two), (two, one)] {
                let (from, to) = (from.container(), to.container());
                for (address, own) in to.addresses.iter().zip(&from.addresses) {
                    assert_eq!(seen_from(&from.netns, &to.netns, *address), *own, "within the overlay");
                    assert_carries_all_sizes(&from.netns, &to.netns, *address);
                }
            }
            for (node, before) in cluster.nodes_mut().iter_mut().zip(before) {
                assert_ne!(rules(node, firewall), before, "masquerading takes rules");
                node.stop_agent().unwrap();
                output(node.overlay().arg("teardown").arg("--run-dir").arg(node.run_dir())).unwrap();
                assert_eq!(rules(node, firewall), before);
            }
        });
    }
}
