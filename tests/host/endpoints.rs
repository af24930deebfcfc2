//! Containers are found on real bridges and veths, in real namespaces.

use std::{
    net::{IpAddr, Ipv4Addr},
    time::{Duration, Instant},
};

use overlay_tests::{netns::Netns, process};
use overlay_user::endpoints::{Endpoints, Watch};
use tokio::{sync::mpsc, time::timeout};

use crate::node::Node;

const PATIENCE: Duration = Duration::from_secs(10);

fn address(host: u8) -> IpAddr {
    Ipv4Addr::new(10, 1, 15, host).into()
}

/// A node with a bridge that has the first address of its subnet.
fn node() -> Node {
    let node = Node::new();
    node.netns.bridge("docker0").unwrap();
    node.netns.ip("address add 10.1.15.1/24 dev docker0").unwrap();
    node
}

/// Adds a container to the bridge as Docker does: the pair is made on the node, and one side moves out.
fn add(node: &Node, name: &str, host: u8) -> Netns {
    let container = Netns::new().unwrap();
    let host_side = [
        format!("link add {name} type veth peer name {name}c"),
        format!("link set {name} master docker0"),
        format!("link set {name} up"),
        format!("link set {name}c netns {}", container.path().display()),
    ];
    host_side.iter().for_each(|command| drop(node.netns.ip(command).unwrap()));
    container.ip(&format!("link set {name}c name eth0")).unwrap();
    container.ip(&format!("address add {}/24 dev eth0", address(host))).unwrap();
    container.ip("link set eth0 up").unwrap();
    container
}

/// The MAC address of a container's interface.
fn mac(container: &Netns) -> [u8; 6] {
    let shown = container.ip("-br link show eth0").unwrap();
    let text = shown.split_whitespace().nth(2).unwrap();
    let octets: Vec<u8> = text.split(':').map(|octet| u8::from_str_radix(octet, 16).unwrap()).collect();
    octets.try_into().unwrap()
}

/// What a watch has found.
struct Found {
    changes: mpsc::Receiver<Endpoints>,
    now: Endpoints,
}

impl Found {
    fn watch() -> Self {
        let (sender, changes) = mpsc::channel(64);
        let watch = Watch::new(vec!["10.1.15.0/24".parse().unwrap(), "fd00:1:0:15::/64".parse().unwrap()]).unwrap();
        tokio::spawn(watch.run(sender));
        Self { changes, now: Endpoints::default() }
    }

    /// Waits until what is found is as it should be.
    async fn until(&mut self, what: &str, is_right: impl Fn(&Endpoints) -> bool) {
        while !is_right(&self.now) {
            let next = timeout(PATIENCE, self.changes.recv()).await;
            self.now =
                next.unwrap_or_else(|_| panic!("in vain for {what}: {:?}", self.now)).expect("the watch goes on");
        }
    }
}

fn last_byte(address: &IpAddr) -> u8 {
    match address {
        IpAddr::V4(address) => address.octets()[3],
        IpAddr::V6(address) => address.octets()[15],
    }
}

/// The containers by name, with the last bytes of their addresses, in order of names.
fn hosts(found: &Endpoints) -> Vec<(String, Vec<u8>)> {
    let containers = found.containers.values();
    let mut hosts: Vec<_> = containers
        .map(|container| (container.name.clone(), container.addresses.iter().map(last_byte).collect()))
        .collect();
    hosts.sort();
    hosts
}

fn is(expected: &[(&str, &[u8])]) -> impl Fn(&Endpoints) -> bool {
    let expected: Vec<_> = expected.iter().map(|(name, hosts)| ((*name).to_owned(), hosts.to_vec())).collect();
    move |found| hosts(found) == expected
}

#[test]
fn containers_that_are_there_already_are_found_with_address_and_mac() {
    let node = node();
    let containers = [("veth1", 2), ("veth2", 3)].map(|(name, host)| add(&node, name, host));
    node.run(async |_| {
        let mut found = Found::watch();
        // At once, and never without the addresses: an agent that starts again must not think them gone.
        found.now = timeout(PATIENCE, found.changes.recv()).await.unwrap().unwrap();
        assert_eq!(hosts(&found.now), [("veth1".to_owned(), vec![2]), ("veth2".to_owned(), vec![3])]);
        assert_eq!(found.now.node, [address(1)].into());
        let macs: Vec<_> = found.now.containers.values().map(|container| container.mac).collect();
        assert_eq!(macs, containers.each_ref().map(mac));
    });
}

#[test]
fn a_container_is_found_as_it_comes_and_forgotten_as_it_goes() {
    let node = node();
    node.run(async |_| {
        let mut found = Found::watch();
        found.until("the node's address", |found| found.node == [address(1)].into()).await;
        let container = add(&node, "veth1", 2);
        found.until("a container", is(&[("veth1", &[2])])).await;
        assert_eq!(found.now.containers.values().next().unwrap().mac, mac(&container));

        let second = add(&node, "veth2", 3);
        found.until("another", is(&[("veth1", &[2]), ("veth2", &[3])])).await;
        // The runtime takes the interface away; or the container ends, and its namespace with it.
        node.netns.ip("link delete veth1").unwrap();
        found.until("the first gone", is(&[("veth2", &[3])])).await;
        drop(second);
        found.until("both gone", is(&[])).await;
    });
}

#[test]
fn a_change_inside_a_container_is_followed() {
    let node = node();
    node.run(async |_| {
        let mut found = Found::watch();
        let container = add(&node, "veth1", 2);
        found.until("a container", is(&[("veth1", &[2])])).await;
        container.ip("address add 10.1.15.3/24 dev eth0").unwrap();
        found.until("a second address", is(&[("veth1", &[2, 3])])).await;
        container.ip("address add 192.168.77.1/24 dev eth0").unwrap();
        container.ip("address flush dev eth0").unwrap();
        found.until("no address", is(&[("veth1", &[])])).await;
        container.ip("address add 10.1.15.4/24 dev eth0").unwrap();
        found.until("another address", is(&[("veth1", &[4])])).await;
        container.ip("link set eth0 address 02:00:00:00:00:77").unwrap();
        let mac = [2, 0, 0, 0, 0, 0x77];
        found
            .until("another MAC address", |found| found.containers.values().any(|container| container.mac == mac))
            .await;
    });
}

#[test]
fn ipv6_addresses_count_once_no_other_container_has_them() {
    let node = node();
    node.run(async |_| {
        let mut found = Found::watch();
        let [first, second] = [("veth1", 2), ("veth2", 3)].map(|(name, host)| add(&node, name, host));
        first.ip("address add fd00:1:0:15::22/64 dev eth0 nodad").unwrap();
        found.until("an IPv6 address, and not the link-local one", is(&[("veth1", &[2, 0x22]), ("veth2", &[3])])).await;
        second.sysctl("net.ipv6.conf.eth0.accept_dad", "1").unwrap();
        second.ip("address add fd00:1:0:15::22/64 dev eth0").unwrap();
        let refused = || second.ip("address show dev eth0").unwrap().contains("dadfailed");
        process::wait_until("the second container is refused the address", PATIENCE, refused).unwrap();
        second.ip("address add fd00:1:0:15::23/64 dev eth0").unwrap();
        found.until("another address", |found| hosts(found).get(1).is_some_and(|(_, hosts)| hosts.len() == 2)).await;
        assert_eq!(hosts(&found.now)[1].1, [3, 0x23]);
    });
}

#[test]
fn a_container_behind_a_host_route_is_found() {
    let node = Node::new();
    node.run(async |_| {
        let mut found = Found::watch();
        let container = Netns::new().unwrap();
        // As CNI's ptp plugin does it.
        node.netns.veth("veth1", &container, "eth0", 1450).unwrap();
        container.ip("address add 10.1.15.2/24 dev eth0").unwrap();
        node.netns.ip("address add 10.1.15.1/32 dev veth1").unwrap();
        node.netns.ip("route add 10.1.15.2/32 dev veth1 scope host").unwrap();
        let mac = mac(&container);
        found.until("a container", is(&[("veth1", &[2])])).await;
        found.until("its MAC", |found| found.containers.values().any(|container| container.mac == mac)).await;
        assert_eq!(found.now.node, [address(1)].into());
        // The kernel adds a host route for this one, which leads to no container.
        node.netns.ip("address add fd00:1:0:15::1/128 dev veth1 nodad").unwrap();
        node.netns.ip("route add fd00:1:0:15::22/128 dev veth1").unwrap();
        found.until("its IPv6 address", is(&[("veth1", &[2, 0x22])])).await;
        node.netns.ip("link set veth1 down").unwrap();
        found.until("no route", is(&[])).await;
    });
}

#[test]
fn what_is_no_container_is_left_alone() {
    let node = node();
    node.netns.bridge("other0").unwrap();
    node.netns.ip("address add 172.17.0.1/16 dev other0").unwrap();
    let elsewhere = Netns::new().unwrap();
    // A veth that stays on the node, and a container of another network.
    node.netns.ip("link add cable0 type veth peer name cable1").unwrap();
    node.netns.ip("link set cable0 master docker0 up").unwrap();
    node.netns.ip("address add 10.1.15.9/24 dev cable1").unwrap();
    node.netns.veth("other1", &elsewhere, "eth0", 1500).unwrap();
    node.netns.ip("link set other1 master other0").unwrap();
    node.run(async |_| {
        let mut found = Found::watch();
        found.until("the node's addresses", |found| found.node == [address(1), address(9)].into()).await;
        assert_eq!(hosts(&found.now), []);
        // Until its bridge is ours.
        node.netns.ip("link set other1 master docker0").unwrap();
        found.until("a container", is(&[("other1", &[])])).await;
        node.netns.ip("link set other1 nomaster").unwrap();
        found.until("none", is(&[])).await;
    });
}

#[test]
fn lost_notices_are_made_up_for() {
    let node = node();
    let container = add(&node, "veth1", 2);
    node.run(async |_| {
        let mut found = Found::watch();
        found.until("a container", is(&[("veth1", &[2])])).await;
        // Nobody reads meanwhile: the kernel runs out of room for notices, and the last one is lost.
        let flood = "address add 10.9.9.9/32 dev docker0\naddress del 10.9.9.9/32 dev docker0\n".repeat(10_000);
        let batch = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(batch.path(), flood).unwrap();
        process::output(node.netns.command("ip").arg("-batch").arg(batch.path())).unwrap();
        container.ip("address add 10.1.15.3/24 dev eth0").unwrap();
        found.until("what was not heard", is(&[("veth1", &[2, 3])])).await;
    });
}

#[test]
fn a_container_is_found_within_milliseconds() {
    let node = node();
    node.run(async |_| {
        let mut found = Found::watch();
        found.until("the node's address", |found| found.node == [address(1)].into()).await;
        let mut times = Vec::new();
        for round in 0..20 {
            let container = Netns::new().unwrap();
            node.netns.veth("veth1", &container, "eth0", 1450).unwrap();
            container.ip("address add 10.1.15.2/24 dev eth0").unwrap();
            let start = Instant::now();
            node.netns.ip("link set veth1 master docker0").unwrap();
            found.until("a container", is(&[("veth1", &[2])])).await;
            times.push(start.elapsed());
            node.netns.ip("link delete veth1").unwrap();
            found.until(&format!("none after round {round}"), is(&[])).await;
        }
        times.sort();
        // With the time that `ip` takes.
        println!("found after {:?} (median), {:?} at most", times[10], times[19]);
        // The better half of the better half, since other tests run beside this one.
        assert!(times[5] < Duration::from_millis(50), "{times:?}");
    });
}
