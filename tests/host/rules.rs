//! Masquerading and acceptance of forwarded traffic, judged by real packets.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, UdpSocket};
use std::process::Command;
use std::time::Duration;

use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::BindToDevice;
use overlay_tests::netns::Netns;
use overlay_tests::process::{output, wait_for, wait_until};
use overlay_user::masquerade::{Masquerade, RulesConfig, TrafficRules, remove};

use crate::node::Node;

const PATIENCE: Duration = Duration::from_secs(10);
/// How long to listen for a packet that must not come.
const SILENCE: Duration = Duration::from_millis(300);

/// A node with a container, a remote container behind its overlay device, and the outside behind its underlay.
struct Site {
    node: Node,
    container: Netns,
    remote: Netns,
}

impl Site {
    fn new() -> Self {
        let node = Node::new();
        let (container, remote) = (Netns::new().unwrap(), Netns::new().unwrap());
        let host = &node.netns;
        host.sysctl("net.ipv4.ip_forward", "1").unwrap();
        host.bridge("docker0").unwrap();
        host.ip("address add 10.1.15.1/24 dev docker0").unwrap();
        host.veth("container0", &container, "eth0", 1500).unwrap();
        host.ip("link set container0 master docker0").unwrap();
        container.ip("address add 10.1.15.2/24 dev eth0").unwrap();
        container.ip("route add default via 10.1.15.1").unwrap();
        // Any device will do to stand for the overlay: netfilter sees routes and addresses.
        host.veth("overlay.1", &remote, "eth0", 1450).unwrap();
        host.ip("address add 10.1.15.0/32 dev overlay.1").unwrap();
        host.ip("route add 10.1.0.0/16 dev overlay.1 src 10.1.15.0").unwrap();
        remote.ip("address add 10.1.16.2/32 dev eth0").unwrap();
        remote.ip("route add default dev eth0").unwrap();
        // Without ARP both ends send to their own address, so it has to be the same.
        host.ip("link set overlay.1 address 02:00:00:00:00:01 arp off").unwrap();
        remote.ip("link set eth0 address 02:00:00:00:00:01 arp off").unwrap();
        // The outside knows a way back, so that an address that is kept can be told from a packet that is lost.
        node.peer.ip("route add 10.1.0.0/16 via 192.168.50.1").unwrap();
        Self { node, container, remote }
    }

    /// Sends a datagram and says with which source address it arrives; none when it does not.
    fn seen(&self, packet: &Packet<'_>, patience: Duration) -> Option<Ipv4Addr> {
        let any = Ipv4Addr::UNSPECIFIED;
        // A process that another test is just starting holds a copy of the last receiver until it executes.
        let bind = || Ok(packet.receiver.run(|| UdpSocket::bind((any, packet.port))).ok());
        let receiver = wait_for("the port is free", PATIENCE, bind).unwrap();
        if packet.destination.is_multicast() {
            receiver.join_multicast_v4(&packet.destination, &Ipv4Addr::new(192, 168, 50, 2)).unwrap();
        }
        receiver.set_read_timeout(Some(patience)).unwrap();
        let sender = packet.sender.run(|| UdpSocket::bind((packet.source, 0))).unwrap();
        if packet.destination.is_multicast() {
            // By its source address it would leave through the bridge.
            setsockopt(&sender, BindToDevice, &"eth0".into()).unwrap();
        }
        sender.send_to(b"x", (packet.destination, packet.port)).unwrap();
        loop {
            match receiver.recv_from(&mut [0; 8]) {
                Ok((_, from)) => return from.ip().to_string().parse().ok(),
                // The runtime of another test has been told that a child has ended.
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return None,
                Err(error) => panic!("receive: {error}"),
            }
        }
    }

    fn nft(&self, arguments: &str) -> String {
        output(self.node.netns.command("nft").args(arguments.split_whitespace())).unwrap()
    }

    fn iptables(&self, program: &str, rules: &[&str]) {
        for rule in rules {
            output(self.node.netns.command(program).args(rule.split_whitespace())).unwrap();
        }
    }

    fn ensure(&self, config: &RulesConfig) -> bool {
        self.node.run(async |_| TrafficRules::new(config.clone()).ensure().await).unwrap()
    }
}

/// A datagram from one namespace to another.
struct Packet<'a> {
    sender: &'a Netns,
    source: Ipv4Addr,
    receiver: &'a Netns,
    destination: Ipv4Addr,
    port: u16,
}

const CONTAINER: Ipv4Addr = Ipv4Addr::new(10, 1, 15, 2);
const REMOTE: Ipv4Addr = Ipv4Addr::new(10, 1, 16, 2);
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(192, 168, 50, 2);
const NODE: Ipv4Addr = Ipv4Addr::new(192, 168, 50, 1);
const NODE_IN_OVERLAY: Ipv4Addr = Ipv4Addr::new(10, 1, 15, 0);
const BRIDGE: Ipv4Addr = Ipv4Addr::new(10, 1, 15, 1);
const GROUP: Ipv4Addr = Ipv4Addr::new(224, 1, 1, 1);

fn config() -> RulesConfig {
    RulesConfig {
        name: "overlay.1".to_owned(),
        network: "10.1.0.0/16".parse().unwrap(),
        subnet: "10.1.15.0/24".parse().unwrap(),
        masquerade: Some(Masquerade { random_fully: true }),
        forward: false,
    }
}

/// Everything that crosses the node: name, packet, source address without and with masquerading.
fn traffic(site: &Site) -> Vec<(&'static str, Packet<'_>, Ipv4Addr, Ipv4Addr)> {
    let (host, peer) = (&site.node.netns, &site.node.peer);
    let packet = |sender, source, receiver, destination| Packet { sender, source, receiver, destination, port: 7000 };
    let container = |receiver, destination| packet(&site.container, CONTAINER, receiver, destination);
    vec![
        ("our container to a remote one", container(&site.remote, REMOTE), CONTAINER, CONTAINER),
        ("a remote container to ours", packet(&site.remote, REMOTE, &site.container, CONTAINER), REMOTE, REMOTE),
        ("a client outside to our container", packet(peer, OUTSIDE, &site.container, CONTAINER), OUTSIDE, OUTSIDE),
        ("our container to the outside", container(peer, OUTSIDE), CONTAINER, NODE),
        ("our container to its node", container(host, NODE), CONTAINER, CONTAINER),
        ("a remote container to the outside", packet(&site.remote, REMOTE, peer, OUTSIDE), REMOTE, NODE),
        ("the node to a remote container", packet(host, NODE, &site.remote, REMOTE), NODE, NODE_IN_OVERLAY),
        (
            "a client outside to a remote container",
            packet(peer, OUTSIDE, &site.remote, REMOTE),
            OUTSIDE,
            NODE_IN_OVERLAY,
        ),
        ("the node to our container", packet(host, BRIDGE, &site.container, CONTAINER), BRIDGE, BRIDGE),
        ("multicast from the overlay", packet(host, BRIDGE, peer, GROUP), BRIDGE, BRIDGE),
        ("marked by kube-proxy", Packet { port: 7999, ..container(peer, OUTSIDE) }, CONTAINER, CONTAINER),
    ]
}

#[test]
fn each_kind_of_traffic_keeps_or_changes_its_source_address_as_with_flannel() {
    for masquerade in [None, Some(Masquerade { random_fully: true }), Some(Masquerade { random_fully: false })] {
        let site = Site::new();
        // kube-proxy's mark, and a bit of somebody else's beside it.
        site.nft("add table ip kube");
        site.nft("add chain ip kube pre { type filter hook prerouting priority mangle ; }");
        site.nft("add rule ip kube pre udp dport 7999 meta mark set 0x4001");
        site.ensure(&RulesConfig { masquerade, ..config() });
        for (name, packet, plain, masqueraded) in traffic(&site) {
            let expected = if masquerade.is_some() { masqueraded } else { plain };
            assert_eq!(site.seen(&packet, PATIENCE), Some(expected), "{name}, {masquerade:?}");
        }
        let random = site.nft("list ruleset").contains("fully-random");
        assert_eq!(random, masquerade.is_some_and(|masquerade| masquerade.random_fully));
    }
}

#[test]
fn setting_the_rules_again_does_not_double_them_and_removing_leaves_nothing() {
    let site = Site::new();
    site.nft("add table ip operator");
    let before = site.nft("list ruleset");
    assert!(site.ensure(&config()));
    let first = site.nft("list ruleset");
    assert!(site.ensure(&config()), "a new agent sets them whatever is there");
    assert_eq!(site.nft("list ruleset"), first);
    assert!(site.node.run(async |_| remove("overlay.1").await).unwrap());
    assert!(!site.node.run(async |_| remove("overlay.1").await).unwrap());
    assert_eq!(site.nft("list ruleset"), before);
}

#[test]
fn without_masquerading_what_an_earlier_run_left_is_removed() {
    let site = Site::new();
    site.ensure(&config());
    assert!(site.ensure(&RulesConfig { masquerade: None, ..config() }));
    assert_eq!(site.nft("list ruleset"), "");
}

#[test]
fn rules_that_others_flush_or_change_come_back() {
    let site = Site::new();
    site.node.run(async |_| {
        let mut rules = TrafficRules::new(config());
        rules.ensure().await.unwrap();
        assert!(!rules.ensure().await.unwrap(), "nothing to do");
        let expected = site.nft("list ruleset");
        for vandalism in ["flush ruleset", "delete table ip overlay.1", "flush table ip overlay.1"] {
            let damage = async {
                site.nft(vandalism);
                let deadline = tokio::time::Instant::now() + PATIENCE;
                while site.nft("list ruleset") != expected {
                    assert!(tokio::time::Instant::now() < deadline, "{vandalism}: not restored");
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            };
            tokio::select! {
                biased;
                stopped = rules.keep() => panic!("{stopped:?}"),
                () = damage => {}
            }
        }
    });
}

/// What Docker makes of FORWARD: a policy of DROP, room for the operator, and a drop of what it has not published.
const DOCKER: [&str; 8] = [
    "-P FORWARD DROP",
    "-N DOCKER-USER",
    "-N DOCKER-FORWARD",
    "-A FORWARD -j DOCKER-USER",
    "-A FORWARD -j DOCKER-FORWARD",
    "-A DOCKER-FORWARD ! -i docker0 -o docker0 -j DROP",
    "-A DOCKER-USER -p udp --dport 7666 -j DROP",
    "-t raw -A PREROUTING -d 10.1.15.2/32 ! -i docker0 -j DROP",
];

#[test]
fn overlay_traffic_is_forwarded_in_spite_of_docker_and_nothing_else_is() {
    for program in ["iptables-nft", "iptables-legacy"] {
        let site = Site::new();
        site.node.peer.ip("address add 203.0.113.1/24 dev eth0").unwrap();
        site.iptables(program, &DOCKER);
        let to_remote = Packet {
            sender: &site.container,
            source: CONTAINER,
            receiver: &site.remote,
            destination: REMOTE,
            port: 7000,
        };
        let to_us = Packet {
            sender: &site.remote,
            source: REMOTE,
            receiver: &site.container,
            destination: CONTAINER,
            port: 7000,
        };
        let from_outside = Packet {
            sender: &site.node.peer,
            source: OUTSIDE,
            receiver: &site.container,
            destination: CONTAINER,
            port: 7000,
        };
        assert_eq!(site.seen(&to_remote, SILENCE), None, "{program}: Docker drops it");
        assert_eq!(site.seen(&to_us, SILENCE), None, "{program}: Docker drops it");

        let config = RulesConfig { masquerade: None, forward: true, ..config() };
        assert!(site.ensure(&config));
        assert!(!site.ensure(&config), "{program}: in place");
        assert_eq!(site.seen(&to_remote, PATIENCE), Some(CONTAINER), "{program}");
        assert_eq!(site.seen(&to_us, PATIENCE), Some(REMOTE), "{program}");
        let forbidden = Packet { port: 7666, ..to_us };
        assert_eq!(site.seen(&forbidden, SILENCE), None, "{program}: the operator's own drop stands");

        let rules = || {
            let list = |table| output(site.node.netns.command(program).args(["-t", table, "-S"])).unwrap();
            list("filter") + &list("raw")
        };
        assert_eq!(site.seen(&from_outside, SILENCE), None, "{program}: Docker still keeps clients outside away");
        // Docker puts itself in front again when it starts.
        site.iptables(program, &["-D FORWARD -j DOCKER-FORWARD", "-I FORWARD 2 -j DOCKER-FORWARD"]);
        assert!(site.ensure(&config));
        assert_eq!(site.seen(&Packet { port: 7000, ..forbidden }, PATIENCE), Some(REMOTE), "{program}");

        assert!(site.ensure(&RulesConfig { forward: false, ..config }));
        assert!(!rules().contains("OVERLAY"), "{}", rules());
    }
}

#[test]
fn the_acceptance_follows_docker_when_that_starts_later() {
    let site = Site::new();
    let config = RulesConfig { forward: true, ..config() };
    site.node.run(async |_| {
        let mut rules = TrafficRules::new(config);
        rules.ensure().await.unwrap();
        assert!(!site.nft("list ruleset").contains("FORWARD"), "a node without iptables stays without");
        let docker = async {
            site.iptables("iptables-nft", &DOCKER);
            let listing = || output(site.node.netns.command("iptables-nft").args(["-S", "FORWARD"])).unwrap();
            let deadline = tokio::time::Instant::now() + PATIENCE;
            let behind_docker_user = "-A FORWARD -j DOCKER-USER\n-A FORWARD -j OVERLAY-FORWARD-1\n";
            while !listing().contains(behind_docker_user) {
                assert!(tokio::time::Instant::now() < deadline, "{}", listing());
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::select! {
            biased;
            stopped = rules.keep() => panic!("{stopped:?}"),
            () = docker => {}
        }
    });
}

/// Runs as a process of its own, started by the test below, in a namespace and with a PATH that has only `nft`.
#[test]
#[ignore = "started by a_filter_table_without_iptables_is_served_through_nft"]
fn child_without_iptables() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let forward = std::env::var("FORWARD").unwrap() == "true";
        let config = RulesConfig { masquerade: None, forward, ..config() };
        assert!(TrafficRules::new(config.clone()).ensure().await.unwrap());
        assert!(!TrafficRules::new(config).ensure().await.unwrap());
    });
}

#[test]
fn a_filter_table_without_iptables_is_served_through_nft() {
    let site = Site::new();
    site.nft("add table ip filter");
    site.nft("add chain ip filter FORWARD { type filter hook forward priority filter ; policy drop ; }");
    let before = site.nft("list ruleset");
    let packet =
        Packet { sender: &site.container, source: CONTAINER, receiver: &site.remote, destination: REMOTE, port: 7000 };
    assert_eq!(site.seen(&packet, SILENCE), None);
    let programs = tempfile::tempdir().unwrap();
    let nft = output(Command::new("sh").args(["-c", "command -v nft"])).unwrap();
    std::os::unix::fs::symlink(nft.trim(), programs.path().join("nft")).unwrap();
    let child = |forward: &str| {
        let mut command = site.node.netns.command(std::env::current_exe().unwrap().to_str().unwrap());
        command.args(["--exact", "rules::child_without_iptables", "--ignored"]);
        output(command.env("PATH", programs.path()).env("FORWARD", forward)).unwrap();
    };
    child("true");
    wait_until("the packet is forwarded", PATIENCE, || site.seen(&packet, SILENCE) == Some(CONTAINER)).unwrap();
    child("false");
    assert_eq!(site.nft("list ruleset"), before);
}
