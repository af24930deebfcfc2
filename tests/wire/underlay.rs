//! The overlay follows what becomes of the underlay interface, and of its own device, with traffic to prove it.

use std::{net::Ipv4Addr, time::Duration};

use overlay_tests::{
    cluster::{CONFIG_KEY, Cluster, Datastore, Settings},
    node::{Node, UNDERLAY_DEVICE},
    process::wait_until,
    traffic::ping,
};

use crate::ground::{Backend, flow, for_either_backend, on_two_nodes, said, settings, two};

/// The patience with an address that is gone, with room for what follows.
const LIMIT: Duration = Duration::from_secs(20);

const OLD: Ipv4Addr = Ipv4Addr::new(192, 168, 50, 1);
const NEW: Ipv4Addr = Ipv4Addr::new(192, 168, 50, 101);

const fn device(backend: Backend) -> &'static str {
    match backend {
        Backend::Udp => "overlay.0",
        Backend::Vxlan => "overlay.1",
    }
}

/// Waits until the containers reach each other, then moves a stream each way.
#[track_caller]
fn assert_traffic(cluster: &Cluster) {
    let [one, two] = two(cluster);
    for (from, to) in [(one, two), (two, one)] {
        let (container, address) = (&from.container().netns, to.container().v4());
        wait_until("an answer", LIMIT, || ping(container, address, 1).unwrap().received == 1).unwrap();
        flow(from, to).tcp_transfer(1 << 20).unwrap();
    }
}

/// Runs `ip` on the first node.
fn ip(cluster: &Cluster, arguments: &str) {
    cluster.nodes()[0].netns().ip(arguments).unwrap();
}

/// How often the first node's agent has said `words`.
fn times_said(cluster: &mut Cluster, words: &str) -> usize {
    cluster.nodes_mut()[0].agent().log().matches(words).count()
}

#[track_caller]
fn wait_said(cluster: &mut Cluster, words: &str) {
    let agent = cluster.nodes_mut()[0].agent();
    wait_until(words, LIMIT, || agent.log().contains(words)).unwrap_or_else(|error| panic!("{error}: {}", agent.log()));
}

fn mtu(node: &Node, device: &str) -> u32 {
    let shown = node.netns().ip(&format!("-o link show dev {device}")).unwrap();
    shown.split(" mtu ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap().parse().unwrap()
}

/// Gives the first node's namespace an underlay interface again.
fn plug_in(cluster: &Cluster) {
    let node = cluster.nodes()[0].netns();
    cluster.underlay().veth("node1", node, UNDERLAY_DEVICE, 1500).unwrap();
    cluster.underlay().ip("link set dev node1 master underlay").unwrap();
}

for_either_backend! {
    fn the_overlay_follows_the_mtu(backend) {
        on_two_nodes(&settings(backend), |cluster| {
            let device = device(backend);
            let before = mtu(&cluster.nodes()[0], device);
            for (underlay, expected) in [(1400, before - 100), (1500, before)] {
                for node in cluster.nodes() {
                    node.netns().ip(&format!("link set dev {UNDERLAY_DEVICE} mtu {underlay}")).unwrap();
                    let written = format!("FLANNEL_MTU={expected}\n");
                    wait_until("the overlay to follow", LIMIT, || {
                        std::fs::read_to_string(node.subnet_file()).unwrap().contains(&written)
                    })
                    .unwrap();
                    assert_eq!(mtu(node, device), expected);
                    assert_eq!(u32::from(node.counters().local_node().unwrap().mtu::<[u8; 4]>()), expected);
                }
                let [one, two] = two(cluster);
                let sent = |size: u32| {
                    one.container().netns.ip("route flush cache").unwrap();
                    let mut ping = one.container().netns.command("ping");
                    ping.args(["-n", "-c1", "-W2", "-M", "do", "-s", &(size - 28).to_string()]);
                    said(ping.arg(two.container().v4().to_string()))
                };
                assert!(sent(expected).contains(" 0% packet loss"));
                if expected < before {
                    let refused = sent(expected + 1);
                    assert!(refused.contains(&format!("(mtu = {expected})")), "{refused}");
                }
                assert_eq!(mtu(one, "container"), before, "a container's own MTU is its own");
                assert_traffic(cluster);
            }
        });
    }

    fn a_new_address_is_written_into_the_lease_and_peers_follow(backend) {
        let settings = Settings { datastore: Datastore::Etcd, ..settings(backend) };
        on_two_nodes(&settings, |cluster| {
            let [one, _] = two(cluster);
            let subnet = one.subnet().subnet();
            let key = format!("{}subnets/{subnet}-24", CONFIG_KEY.trim_end_matches("config"));
            let before = cluster.etcd().get(&key).unwrap().unwrap();
            let leases = cluster.etcd().list(key.rsplit_once('/').unwrap().0).unwrap().len();
            // As when DHCP gives another one.
            ip(cluster, &format!("address add {NEW}/24 dev {UNDERLAY_DEVICE}"));
            ip(cluster, &format!("address del {OLD}/24 dev {UNDERLAY_DEVICE}"));
            ip(cluster, &format!("address replace {NEW}/24 dev {UNDERLAY_DEVICE}"));

            let expected = before.replace(&OLD.to_string(), &NEW.to_string());
            wait_until("the lease to say it", LIMIT, || cluster.etcd().get(&key).unwrap().as_ref() == Some(&expected))
                .unwrap_or_else(|error| panic!("{error}: {:?}", cluster.etcd().get(&key)));
            assert_eq!(cluster.etcd().list(key.rsplit_once('/').unwrap().0).unwrap().len(), leases);
            let [one, two] = two(cluster);
            let hop = || two.counters().routes().unwrap()[&subnet].next_hop().ip();
            wait_until("the peer to follow", LIMIT, || hop() == NEW).unwrap();
            assert_eq!(one.counters().local_node().unwrap().vtep::<[u8; 4]>().address, NEW);
            let socket = match backend {
                Backend::Udp => said(one.netns().command("ss").args(["-Hlun", "sport", "=", ":8285"])),
                Backend::Vxlan => one.netns().ip("-d link show dev overlay.1").unwrap(),
            };
            assert!(socket.contains(&NEW.to_string()), "{socket}");
            assert_traffic(cluster);
            assert_eq!(times_said(cluster, "lease skipped"), 0);
            assert_eq!(times_said(cluster, "underlay address changed"), 1);
        });
    }

    fn an_interface_that_comes_back_is_attached_again(backend) {
        on_two_nodes(&settings(backend), |cluster| {
            let overlay = device(backend);
            ip(cluster, &format!("link set dev {UNDERLAY_DEVICE} down"));
            ip(cluster, &format!("link set dev {UNDERLAY_DEVICE} name uplink0"));
            ip(cluster, "link set dev uplink0 up");
            wait_said(cluster, "underlay interface renamed");
            assert_traffic(cluster);

            let device = cluster.nodes()[0].netns().ip(&format!("-o link show dev {overlay}")).unwrap();
            ip(cluster, "link del dev uplink0");
            wait_said(cluster, "underlay interface is gone");
            // Meanwhile packets for other nodes go to the device, and nowhere else.
            let route = cluster.nodes()[0].netns().ip("route get 10.1.99.9").unwrap();
            assert!(route.contains(overlay), "{route}");
            plug_in(cluster);
            ip(cluster, &format!("address add {OLD}/24 dev {UNDERLAY_DEVICE}"));
            wait_said(cluster, "underlay interface is back");
            assert_traffic(cluster);
            let after = cluster.nodes()[0].netns().ip(&format!("-o link show dev {overlay}")).unwrap();
            assert_eq!(device, after, "the overlay device was replaced");
            for words in ["interface is gone", "interface is back", "interface renamed"] {
                assert_eq!(times_said(cluster, words), 1, "{words}");
            }
            assert_eq!(times_said(cluster, "address changed"), 0);
        });
    }

    fn an_overlay_device_that_somebody_changes_or_removes_is_mended(backend) {
        on_two_nodes(&settings(backend), |cluster| {
            let device = device(backend);
            ip(cluster, &format!("link set dev {device} down mtu 1000"));
            wait_said(cluster, "it is as it was again");
            assert_traffic(cluster);
            ip(cluster, &format!("link del dev {device}"));
            wait_said(cluster, "it is set up anew");
            assert_traffic(cluster);
            // The new one is watched as well.
            ip(cluster, &format!("address flush dev {device}"));
            wait_until("the second repair", LIMIT, || times_said(cluster, "it is as it was again") == 2).unwrap();
            assert_traffic(cluster);
        });
    }
}

#[test]
fn an_address_that_is_taken_away_for_a_moment_changes_nothing() {
    on_two_nodes(&settings(Backend::Vxlan), |cluster| {
        // There would be another one to go over to.
        ip(cluster, &format!("address add {NEW}/24 dev {UNDERLAY_DEVICE}"));
        ip(cluster, &format!("address del {OLD}/24 dev {UNDERLAY_DEVICE}"));
        ip(cluster, &format!("address add {OLD}/24 dev {UNDERLAY_DEVICE}"));
        // Told behind it.
        ip(cluster, &format!("link set dev {UNDERLAY_DEVICE} mtu 1400"));
        wait_said(cluster, "MTU followed");
        assert_traffic(cluster);
        assert_eq!(cluster.nodes()[0].counters().local_node().unwrap().vtep::<[u8; 4]>().address, OLD);
        assert_eq!(times_said(cluster, "underlay address"), 0);
    });
}

#[test]
fn an_address_that_stays_away_is_said_once_and_the_next_one_mends_it() {
    on_two_nodes(&settings(Backend::Vxlan), |cluster| {
        ip(cluster, &format!("address flush dev {UNDERLAY_DEVICE}"));
        wait_said(cluster, "degraded: underlay address is gone");
        // What stays on the node goes on.
        let one = &cluster.nodes()[0];
        assert_eq!(ping(&one.container().netns, one.subnet().gateway(), 1).unwrap().received, 1);
        ip(cluster, &format!("address add 169.254.3.3/16 dev {UNDERLAY_DEVICE} scope link"));
        ip(cluster, &format!("address add {NEW}/24 dev {UNDERLAY_DEVICE}"));
        wait_said(cluster, "our lease carries our new PublicIP");
        assert_traffic(cluster);
        assert_eq!(times_said(cluster, "underlay address is gone"), 1);
        assert_eq!(times_said(cluster, "underlay interface is back"), 1);
    });
}

#[test]
fn a_public_ip_that_is_set_stays_in_the_lease() {
    overlay_tests::sandbox::isolated(|| {
        let settings = settings(Backend::Vxlan);
        let mut cluster = Cluster::new(&settings).unwrap();
        // As behind a NAT that keeps its outside.
        cluster.nodes_mut()[0].agent_arguments_mut().extend(["--public-ip", "203.0.113.9"].map(str::to_owned));
        cluster.bring_up(&settings.network_config()).unwrap();
        ip(&cluster, &format!("address add {NEW}/24 dev {UNDERLAY_DEVICE}"));
        ip(&cluster, &format!("address del {OLD}/24 dev {UNDERLAY_DEVICE}"));
        ip(&cluster, &format!("address replace {NEW}/24 dev {UNDERLAY_DEVICE}"));
        let [one, two] = two(&cluster);
        let address = || one.counters().local_node().unwrap().vtep::<[u8; 4]>().address;
        wait_until("the new address to be used", LIMIT, || address() == NEW).unwrap();
        let hop = two.counters().routes().unwrap()[&one.subnet().subnet()].next_hop().ip();
        assert_eq!(hop, Ipv4Addr::new(203, 0, 113, 9));
    });
}

#[test]
fn plain_routes_are_there_again_when_the_interface_is_up_again() {
    on_two_nodes(&Settings { direct_routing: true, ..settings(Backend::Vxlan) }, |cluster| {
        let plain = |cluster: &Cluster| cluster.nodes()[0].netns().ip("route show proto 79").unwrap();
        let before = plain(cluster);
        assert!(!before.is_empty());
        ip(cluster, &format!("link set dev {UNDERLAY_DEVICE} down"));
        wait_said(cluster, "underlay interface is down");
        assert_eq!(plain(cluster), "");
        ip(cluster, &format!("link set dev {UNDERLAY_DEVICE} up"));
        wait_until("the plain routes", LIMIT, || plain(cluster) == before).unwrap();
        assert_traffic(cluster);
        for words in ["interface is down", "interface is up"] {
            assert_eq!(times_said(cluster, words), 1, "{words}");
        }
    });
}
