//! Clusters of our own nodes: every family inside over every family outside.

use std::{
    net::{IpAddr, Ipv6Addr},
    time::Duration,
};

use ipnetwork::IpNetwork;
use overlay_common::Reason;
use overlay_tests::{
    cluster::{Cluster, Datastore, Settings},
    families::Families,
    node::UNDERLAY_DEVICE,
    process::wait_until,
    sandbox::isolated,
    underlay::Underlay,
};

use crate::ground::{all_talk, devices, on_cluster, settings};

/// How long a node may take to follow its underlay: it waits a while for an address that is gone.
const LIMIT: Duration = Duration::from_secs(20);

/// Over which address the first node reaches each subnet of the second.
fn ways(cluster: &Cluster) -> Vec<IpAddr> {
    let [one, two, ..] = cluster.nodes() else { panic!("two nodes") };
    let way = |subnet: IpAddr| one.counters().route(subnet).unwrap().map(|route| route.next_hop().ip());
    two.subnet().networks().filter_map(|subnet| way(subnet.network())).collect()
}

#[test]
fn in_a_dual_stack_cluster_all_containers_talk_and_each_family_travels_over_its_own() {
    on_cluster(&settings(3, Families::Dual, Families::Dual), |cluster| {
        all_talk(cluster.nodes());
        let two: [IpAddr; 2] = ["192.168.50.2".parse().unwrap(), "fd50::2".parse().unwrap()];
        assert_eq!(ways(cluster), two);
        let [one, two, ..] = cluster.nodes() else { panic!("two nodes") };
        assert_eq!(devices(one), ["overlay-v6.1", "overlay.1"]);
        for subnet in two.subnet().networks() {
            let traffic = one.counters().traffic(subnet.network()).unwrap();
            assert!(traffic.encap_packets > 10 && traffic.decap_packets > 10, "{subnet}: {traffic:?}");
        }
        let drops = one.counters().drops().unwrap();
        // The kernel tells of its own devices' multicast groups where a node forwards IPv6: nobody is to hear of that.
        assert!(drops.iter().all(|(reason, _)| *reason == Reason::NotUnicast), "{drops:?}");
        restarted_it_is_as_before_and_torn_down_nothing_is_left(cluster);
    });
}

/// The first agent is killed, comes back, and is taken away with all that it has made.
fn restarted_it_is_as_before_and_torn_down_nothing_is_left(cluster: &mut Cluster) {
    let one = &mut cluster.nodes_mut()[0];
    let (subnet, links) = (one.subnet().clone(), one.netns().ip("-o link show").unwrap());
    one.agent().kill().unwrap();
    all_talk(cluster.nodes());
    let one = &mut cluster.nodes_mut()[0];
    one.start_agent().unwrap();
    assert_eq!(*one.wait_ready().unwrap(), subnet);
    assert_eq!(one.netns().ip("-o link show").unwrap(), links, "the same devices, with their MAC addresses");
    all_talk(cluster.nodes());
    let one = &mut cluster.nodes_mut()[0];
    one.stop_agent().unwrap();
    let taken_down = one.overlay().arg("teardown").arg("--run-dir").arg(one.run_dir()).output().unwrap();
    assert!(taken_down.status.success(), "{taken_down:?}");
    assert_eq!(devices(one), Vec::<String>::new());
    for family in ["-4", "-6"] {
        let routes = one.netns().ip(&format!("{family} route show table all")).unwrap();
        assert!(!routes.contains("overlay"), "{routes}");
    }
    let rules = one.netns().command("nft").args(["list", "ruleset"]).output().unwrap();
    let rules = String::from_utf8_lossy(&rules.stdout).to_lowercase();
    assert!(!rules.contains("overlay"), "{rules}");
}

#[test]
fn in_an_ipv6_cluster_all_containers_talk_over_ipv6() {
    on_cluster(&settings(2, Families::V6, Families::V6), |cluster| {
        all_talk(cluster.nodes());
        assert_eq!(ways(cluster), [IpAddr::from(Ipv6Addr::new(0xfd50, 0, 0, 0, 0, 0, 0, 2))]);
        assert_eq!(devices(&cluster.nodes()[0]), ["overlay-v6.1"]);
        restarted_it_is_as_before_and_torn_down_nothing_is_left(cluster);
    });
}

#[test]
fn an_underlay_of_one_family_carries_both() {
    for (underlay, device) in [(Families::V4, "overlay.1"), (Families::V6, "overlay-v6.1")] {
        on_cluster(&settings(2, Families::Dual, underlay), |cluster| {
            all_talk(cluster.nodes());
            assert_eq!(devices(&cluster.nodes()[0]), [device]);
        });
    }
}

/// The second node's underlay has both families but for a while one of them, that of `addresses`, which are two of the node's;
/// `other` is its address of the other family, and `device` the overlay device that is there in any case.
fn one_family_is_missed_comes_moves_and_goes(addresses: [IpNetwork; 2], other: IpAddr, device: &str) {
    // etcd would be out of reach together with IPv4.
    let settings = Settings { datastore: Datastore::File, ..settings(3, Families::Dual, Families::Dual) };
    isolated(|| {
        let mut cluster = Cluster::new(&settings).unwrap();
        let netns = cluster.nodes()[1].netns().clone();
        netns.sysctl("net.ipv4.conf.all.promote_secondaries", "1").unwrap();
        let [first, second] = addresses;
        let add = |address| netns.add_address(UNDERLAY_DEVICE, address).unwrap();
        let remove = |address| drop(netns.ip(&format!("address del {address} dev {UNDERLAY_DEVICE}")).unwrap());
        // Where the node's subnets of the two families are sent to.
        let follows = |cluster: &Cluster, way: IpAddr| {
            let ways = if way.is_ipv4() { [way, other] } else { [other, way] };
            let expected = if way == other { [other, other] } else { ways };
            wait_until(&format!("the ways {expected:?}"), LIMIT, || self::ways(cluster) == expected).unwrap();
            let there: &[&str] = if way == other { &[device] } else { &["overlay-v6.1", "overlay.1"] };
            assert_eq!(devices(&cluster.nodes()[1]), there);
            all_talk(cluster.nodes());
        };
        remove(first);
        cluster.bring_up(&settings.network_config()).unwrap();
        let mtus: Vec<_> = cluster.nodes().iter().map(|node| node.subnet().mtu).collect();
        assert_eq!(mtus, [1430, if other.is_ipv4() { 1450 } else { 1430 }, 1430]);
        follows(&cluster, other);
        add(first);
        follows(&cluster, first.ip());
        add(second);
        remove(first);
        follows(&cluster, second.ip());
        remove(second);
        follows(&cluster, other);

        add(first);
        follows(&cluster, first.ip());
        let two = &mut cluster.nodes_mut()[1];
        let subnets = two.subnet().subnets.clone();
        two.agent().kill().unwrap();
        remove(first);
        two.start_agent().unwrap();
        assert_eq!(
            two.wait_ready().unwrap().subnets,
            subnets,
            "its lease, with both addresses, is known to be its own"
        );
        follows(&cluster, other);
    });
}

#[test]
fn ipv6_on_the_underlay_of_a_node_is_missed_comes_moves_and_goes_and_all_talk_all_the_while() {
    let addresses = ["fd50::2/64", "fd50::22/64"].map(|address| address.parse().unwrap());
    one_family_is_missed_comes_moves_and_goes(addresses, Underlay::v4(2).into(), "overlay.1");
}

#[test]
fn ipv4_on_the_underlay_of_a_node_is_missed_comes_moves_and_goes_and_all_talk_all_the_while() {
    let addresses = ["192.168.50.2/24", "192.168.50.22/24"].map(|address| address.parse().unwrap());
    one_family_is_missed_comes_moves_and_goes(addresses, Underlay::v6(2).into(), "overlay-v6.1");
}
