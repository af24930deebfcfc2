//! Nodes of dual-stack clusters and of those with IPv6 alone.

use std::net::UdpSocket;

use overlay_tests::{
    cluster::{Backend, NETWORK, NETWORK_V6, Settings},
    families::Families,
    netns::Netns,
    node::UNDERLAY_DEVICE,
    packet_socket::{PacketSocket, mac},
    packets::{ETHER_IPV6, ethernet, ndp},
    process::wait_until,
};

use crate::{
    ground::{Checked, LIMIT, USUAL, agree, on_a_node_with},
    states::run,
};

/// The addresses of the first node.
const ADDRESS: &str = "192.168.50.1";
const ADDRESS_V6: &str = "fd50::1";

fn settings(overlay: Families, underlay: Families) -> Settings {
    Settings { backend: Backend::Vxlan, overlay, underlay, ..Settings::default() }
}

#[test]
fn a_node_in_order_is_green_for_each_family_that_it_has() {
    for (overlay, underlay, devices) in [
        (Families::Dual, Families::Dual, ["overlay.1", "overlay-v6.1"]),
        (Families::Dual, Families::V4, ["overlay.1", "overlay.1"]),
        (Families::Dual, Families::V6, ["overlay-v6.1", "overlay-v6.1"]),
        (Families::V6, Families::V6, ["", "overlay-v6.1"]),
    ] {
        on_a_node_with(&settings(overlay, underlay), |cluster| {
            let checked = agree(cluster, USUAL, None);
            for address in underlay.of(ADDRESS, ADDRESS_V6) {
                checked.says_of(address, "firewall-input", "green", &["UDP port 8472", UNDERLAY_DEVICE]);
                checked.says("underlay", "green", &[address]);
            }
            for (network, device) in overlay.of((NETWORK, devices[0]), (NETWORK_V6, devices[1])) {
                checked.says_of(network, "firewall-forward", "green", &[device]);
            }
            for (check, is_there) in [
                ("rp-filter", underlay.has_v4()),
                ("firewall-neighbour", underlay.has_v6()),
                ("ip-forward", overlay.has_v4()),
                ("ipv6-forward", overlay.has_v6()),
                ("accept-ra", overlay.has_v6()),
            ] {
                assert_eq!(
                    checked.findings(check, "green").len(),
                    usize::from(is_there),
                    "{check} {:#}",
                    checked.report
                );
            }
        });
    }
}

#[test]
fn rules_of_ip6tables_are_about_ipv6_alone() {
    on_a_node_with(&settings(Families::Dual, Families::Dual), |cluster| {
        for program in ["ip6tables-nft", "ip6tables-legacy"] {
            let by = "the policy of ip6tables' INPUT";
            run(cluster, &format!("{program} -P INPUT DROP"));
            let checked = Checked::of(cluster, USUAL);
            checked.says_of(ADDRESS_V6, "firewall-input", "yellow", &["UDP port 8472", by]);
            checked.says_of(ADDRESS, "firewall-input", "green", &[]);
            checked.says("firewall-neighbour", "yellow", &[ADDRESS_V6, by, "135"]);
            run(cluster, &format!("{program} -A INPUT -p udp --dport 8472 -d {ADDRESS_V6} -j ACCEPT"));
            let checked = Checked::of(cluster, USUAL);
            checked.says_of(ADDRESS_V6, "firewall-input", "green", &[]);
            checked.says("firewall-neighbour", "yellow", &[by]);
            let solicitations = "--icmpv6-type neighbour-solicitation -m hl --hl-eq 255";
            run(cluster, &format!("{program} -A INPUT -p icmpv6 {solicitations} -j ACCEPT"));
            Checked::of(cluster, USUAL).says("firewall-neighbour", "green", &[]);
            run(cluster, &format!("{program} -F INPUT"));
            run(cluster, &format!("{program} -P INPUT ACCEPT"));

            run(cluster, &format!("{program} -P FORWARD DROP"));
            let checked = agree(cluster, USUAL, None);
            checked.says_of(NETWORK_V6, "firewall-forward", "green", &["ip6tables", "the agent puts a rule there"]);
            checked.says_of(NETWORK, "firewall-forward", "green", &["no rule"]);
            let without = ["--iface", UNDERLAY_DEVICE, "--iptables-forward-rules=false"];
            let checked = Checked::of(cluster, &without);
            let by = "the policy of ip6tables' FORWARD";
            checked.says_of(NETWORK_V6, "firewall-forward", "yellow", &["overlay-v6.1", by]);
            checked.says_of(NETWORK, "firewall-forward", "green", &[]);
            run(cluster, &format!("{program} -P FORWARD ACCEPT"));
        }
    });
}

#[test]
fn rules_of_nftables_are_about_the_families_that_they_name() {
    on_a_node_with(&settings(Families::Dual, Families::Dual), |cluster| {
        run(cluster, "nft add table ip6 six");
        run(cluster, "nft add chain ip6 six incoming { type filter hook input priority 0 ; policy drop ; }");
        run(cluster, "nft add rule ip6 six incoming ct state established,related accept");
        let checked = Checked::of(cluster, USUAL);
        let by = "the policy of nftables' ip6 six incoming";
        checked.says_of(ADDRESS_V6, "firewall-input", "yellow", &["is dropped by", by]);
        checked.says_of(ADDRESS, "firewall-input", "green", &[]).says("firewall-neighbour", "yellow", &[by]);
        run(cluster, "nft add rule ip6 six incoming icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept");
        run(cluster, "nft add rule ip6 six incoming ip6 daddr fd50::/64 udp dport 8472 accept");
        let checked = Checked::of(cluster, USUAL);
        checked.says_of(ADDRESS_V6, "firewall-input", "green", &[]).says("firewall-neighbour", "green", &[]);

        run(cluster, "nft add table inet both");
        run(cluster, "nft add chain inet both passing { type filter hook forward priority 0 ; policy drop ; }");
        run(cluster, "nft add rule inet both passing ip saddr 10.0.0.0/8 accept");
        let checked = Checked::of(cluster, USUAL);
        let by = "nftables' inet both passing";
        checked.says_of(NETWORK_V6, "firewall-forward", "yellow", &["overlay-v6.1", by, "ip6tables' FORWARD alone"]);
        checked.says_of(NETWORK, "firewall-forward", "green", &[]);
        run(cluster, "nft add rule inet both passing ip6 saddr fd00::/8 accept");
        Checked::of(cluster, USUAL).says_of(NETWORK_V6, "firewall-forward", "green", &[]);
        run(cluster, "nft insert rule inet both passing meta nfproto ipv6 drop");
        let checked = Checked::of(cluster, USUAL);
        checked.says_of(NETWORK_V6, "firewall-forward", "yellow", &[by]);
        checked.says_of(NETWORK, "firewall-forward", "green", &[]);
    });
}

#[test]
fn routes_from_router_advertisements_that_forwarding_would_take_away() {
    on_a_node_with(&settings(Families::Dual, Families::Dual), |cluster| {
        let node = cluster.nodes()[0].netns();
        let peer = Netns::new().unwrap();
        node.veth("eth1", &peer, "eth1", 1500).unwrap();
        node.sysctl("net.ipv6.conf.all.forwarding", "0").unwrap();
        for (device, accept_ra) in [("eth0", "1"), ("eth1", "1")] {
            node.sysctl(&format!("net.ipv6.conf.{device}.accept_ra"), accept_ra).unwrap();
        }
        let to_be_set = "the agent sets it to 2";
        let checked = Checked::of(cluster, USUAL);
        checked.says("accept-ra", "green", &["1 on eth0", to_be_set]);
        checked.says("ipv6-forward", "green", &["the agent switches it on"]);
        advertise(&peer);
        let default_route = || node.ip("-6 route show default").unwrap();
        wait_until("a route from the advertisement", LIMIT, || default_route().contains("dev eth1")).unwrap();
        let checked = agree(cluster, USUAL, None);
        checked.says("accept-ra", "yellow", &["1 on eth0", "1 on eth1", "set net.ipv6.conf.eth1.accept_ra to 2"]);
        assert_eq!(default_route(), "", "it has kept its route");
        node.sysctl("net.ipv6.conf.eth1.accept_ra", "2").unwrap();
        Checked::of(cluster, USUAL).says("accept-ra", "green", &["2 on eth0"]);
    });
}

/// Says on the link of eth1 that there is a router.
fn advertise(router: &Netns) {
    let (address, all) = ("fe80::1".parse().unwrap(), "ff02::1".parse().unwrap());
    let own = mac(router, "eth1").unwrap();
    let message = ndp::router_advertisement(own, "2001:db8:7::".parse().unwrap(), 1800);
    let frame = ethernet(ndp::multicast_mac(all), own, ETHER_IPV6, &ndp::packet(address, all, message).bytes());
    PacketSocket::sender(router, "eth1").unwrap().send(&frame).unwrap();
}

#[test]
fn the_port_is_asked_for_over_ipv6_as_well() {
    on_a_node_with(&settings(Families::Dual, Families::Dual), |cluster| {
        let holder = cluster.nodes()[0].netns().run(|| UdpSocket::bind((ADDRESS_V6, 8472))).unwrap();
        agree(cluster, USUAL, Some("port")).says("port", "red", &["8472"]);
        drop(holder);
        agree(cluster, USUAL, None);
    });
}
