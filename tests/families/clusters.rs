//! Clusters of our own nodes: every family inside over every family outside.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use overlay_common::Reason;
use overlay_tests::{
    cluster::Cluster, families::Families, node::UNDERLAY_DEVICE, process::wait_until, sandbox::isolated,
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

#[test]
fn ipv6_on_the_underlay_of_a_node_is_missed_comes_moves_and_goes_and_all_talk_all_the_while() {
    isolated(|| {
        let settings = settings(3, Families::Dual, Families::Dual);
        let mut cluster = Cluster::new(&settings).unwrap();
        let change = |cluster: &Cluster, what: &str| {
            cluster.nodes()[1].netns().ip(&format!("-6 address {what} dev {UNDERLAY_DEVICE}")).unwrap();
        };
        change(&cluster, "del fd50::2/64");
        cluster.bring_up(&settings.network_config()).unwrap();
        let over_ipv4 = IpAddr::from(Ipv4Addr::new(192, 168, 50, 2));
        let ipv6 = |last| IpAddr::from(Ipv6Addr::new(0xfd50, 0, 0, 0, 0, 0, 0, last));
        let mtus: Vec<_> = cluster.nodes().iter().map(|node| node.subnet().mtu).collect();
        assert_eq!(mtus, [1430, 1450, 1430]);
        for (what, expected, device) in [
            (&[][..], over_ipv4, &["overlay.1"][..]),
            (&["add fd50::2/64 nodad"], ipv6(2), &["overlay-v6.1", "overlay.1"]),
            (&["add fd50::22/64 nodad", "del fd50::2/64"], ipv6(0x22), &["overlay-v6.1", "overlay.1"]),
            (&["del fd50::22/64"], over_ipv4, &["overlay.1"]),
        ] {
            what.iter().for_each(|what| change(&cluster, what));
            wait_until(&format!("IPv6 over {expected}"), LIMIT, || ways(&cluster) == [over_ipv4, expected]).unwrap();
            assert_eq!(devices(&cluster.nodes()[1]), device, "{what:?}");
            all_talk(cluster.nodes());
        }
    });
}
