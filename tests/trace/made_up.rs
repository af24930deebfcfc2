//! Packets that nobody has sent.

use std::net::IpAddr;

use overlay_tests::{cluster::Settings, families::Families, process::wait_until};

use crate::ground::{
    Backend, LIMIT, Traced, all_families, end, exchange, for_either_backend, maps, nobody, on_two_nodes, outer_address,
    pairs, run, settings, two, udp_socket_at,
};

/// Addresses of the family of `like`: one in the network that nobody leases, and one outside of it.
fn nowhere_and_outside(like: IpAddr) -> [IpAddr; 2] {
    let addresses = if like.is_ipv4() { ["10.1.255.9", "192.0.2.9"] } else { ["fd00:10:1:ffff::9", "2001:db8::9"] };
    addresses.map(|address| address.parse().unwrap())
}

for_either_backend! {
    fn the_way_to_another_node_is_told_from_the_container_to_the_wire(backend) {
        on_two_nodes(&all_families(backend), |cluster| {
            let [one, two] = two(cluster);
            for (source, destination) in pairs(one, two) {
                let traced = Traced::on(one, source, destination, "--proto udp --dport 53");
                let [from, to] = [one, two].map(|node| outer_address(node, source).to_string());
                assert!(traced.success, "{traced:?}");
                assert!(traced.at("from_container").contains("slow path: netfilter has not let"), "{traced:?}");
                assert!(traced.at("kernel").contains("by overlay"), "{traced:?}");
                assert!(traced.at("to_overlay").contains(&format!("node {to}")), "{traced:?}");
                assert_eq!(traced.result(), format!("leaves by eth0 for node {to}"));
                let (outer, port) = (traced.outer(), match backend { Backend::Udp => 8285, Backend::Vxlan => 8472 });
                assert_eq!((&outer["source"], &outer["destination"]), (&from.into(), &to.into()));
                assert_eq!(outer["destination_port"], port);
                assert_eq!(outer["length"], match (backend, source) {
                    (Backend::Udp, _) => 56,
                    (Backend::Vxlan, IpAddr::V4(_)) => 78,
                    (Backend::Vxlan, IpAddr::V6(_)) => 118,
                });
                let vni = outer.get("vxlan").map(|vxlan| vxlan["vni"] == 1);
                assert_eq!(vni, (backend == Backend::Vxlan).then_some(true));
            }
        });
    }

    fn the_way_from_another_node_is_told_from_the_wire_to_the_container(backend) {
        on_two_nodes(&all_families(backend), |cluster| {
            let [one, two] = two(cluster);
            for (source, destination) in pairs(one, two) {
                let traced = Traced::on(two, source, destination, "--proto icmp");
                let accepted = format!("accepted: node {}", outer_address(one, source));
                assert!(traced.success, "{traced:?}");
                assert!(traced.at("from_underlay").contains(&accepted), "{traced:?}");
                assert!(traced.at("to_container").contains("goes on"), "{traced:?}");
                assert_eq!(traced.result(), "arrives in the container behind container");
            }
        });
    }

    fn a_flow_on_the_fast_path_is_told_to_be_there(backend) {
        // Longer than the traces of both nodes take: an approval about to end is a slow path, and told as one.
        let agent_arguments = ["--fast-path-approval", "60"].map(str::to_owned).to_vec();
        on_two_nodes(&Settings { agent_arguments, ..all_families(backend) }, |cluster| {
            let [one, two] = two(cluster);
            for (source, destination) in pairs(one, two) {
                let (near, far) = (udp_socket_at(one, source), udp_socket_at(two, destination));
                let ports = format!("--sport {} --dport {}", end(&near).1, end(&far).1);
                let traced = |node| Traced::on(node, source, destination, &format!("--proto udp {ports}"));
                wait_until("the flow to be traced on the fast path of both nodes", LIMIT, || {
                    exchange(&near, &far);
                    let (leaves, arrives) = (traced(one), traced(two));
                    leaves.at("from_container").contains("fast path: the destination's subnet is that of node")
                        && leaves.outer()["destination"] == outer_address(two, source).to_string()
                        && arrives.at("from_underlay").contains("fast path: straight into the container behind container")
                })
                .unwrap();
            }
        });
    }

    fn a_trace_changes_no_map_and_needs_no_agent(backend) {
        on_two_nodes(&all_families(backend), |cluster| {
            cluster.nodes_mut()[0].stop_agent().unwrap();
            let [one, two] = two(cluster);
            let before = maps(one);
            for (source, destination) in pairs(one, two) {
                let [nowhere, _] = nowhere_and_outside(source);
                for (from, to) in [(source, destination), (destination, source), (source, nowhere)] {
                    for options in ["--proto tcp", "--proto udp --sport 5000", "--proto icmp"] {
                        Traced::on(one, from, to, options);
                    }
                }
            }
            assert_eq!(maps(one), before);
        });
    }

    fn what_would_be_dropped_is_told_with_the_reason(backend) {
        on_two_nodes(&all_families(backend), |cluster| {
            let [one, two] = two(cluster);
            for (ours, theirs) in pairs(one, two) {
                let [nowhere, outside] = nowhere_and_outside(ours);
                for (source, destination, reason) in [
                    (ours, nowhere, "NoRoute"),
                    (ours, nobody(one, ours), ""),
                    (outside, theirs, "SourceNotOurs"),
                    (theirs, nowhere, "SourceNotOurs"),
                    (nowhere, ours, "UnknownNode"),
                    (nobody(two, ours), ours, ""),
                ] {
                    let traced = Traced::on(one, source, destination, "--proto udp");
                    let expected: Vec<&str> = Some(reason).filter(|reason| !reason.is_empty()).into_iter().collect();
                    assert_eq!(traced.reasons(), expected, "{source} to {destination}: {traced:?}");
                    assert_eq!(traced.success, reason.is_empty(), "{source} to {destination}: {traced:?}");
                }
                let answer = if ours.is_ipv4() { "ICMP \"network unreachable\"" } else { "ICMPv6 \"no route to destination\"" };
                let traced = Traced::on(one, ours, nowhere, "--proto udp");
                assert!(traced.result().ends_with(&format!("answered with {answer}")), "{traced:?}");
            }
        });
    }

    fn what_does_not_fit_is_told_to_be_answered(backend) {
        on_two_nodes(&all_families(backend), |cluster| {
            let [one, two] = two(cluster);
            let mtu = one.subnet().mtu;
            for (source, destination) in pairs(one, two) {
                let size = |size| Traced::on(one, source, destination, &format!("--size {size}"));
                assert!(size(mtu).success);
                let traced = size(mtu + 1);
                let answer = if source.is_ipv4() { "fragmentation needed" } else { "packet too big" };
                assert!(!traced.success);
                assert!(traced.result().contains(&format!("\"{answer}\", MTU {mtu}")), "{traced:?}");
            }
        });
    }
}

#[test]
fn an_underlay_of_one_family_carries_packets_of_either() {
    for underlay in [Families::V4, Families::V6] {
        on_two_nodes(&Settings { underlay, ..all_families(Backend::Vxlan) }, |cluster| {
            let [one, two] = two(cluster);
            let outer =
                if underlay == Families::V4 { ["192.168.50.1", "192.168.50.2"] } else { ["fd50::1", "fd50::2"] };
            for (source, destination) in pairs(one, two) {
                let leaves = Traced::on(one, source, destination, "");
                assert_eq!(leaves.result(), format!("leaves by eth0 for node {}", outer[1]), "{leaves:?}");
                assert_eq!(
                    (&leaves.outer()["source"], &leaves.outer()["destination"]),
                    (&outer[0].into(), &outer[1].into())
                );
                let arrives = Traced::on(two, source, destination, "");
                assert_eq!(arrives.result(), "arrives in the container behind container", "{arrives:?}");
                assert_eq!(arrives.outer()["source"], outer[0]);
                let [nowhere, _] = nowhere_and_outside(source);
                assert_eq!(Traced::on(two, nowhere, destination, "").reasons(), ["UnknownNode"]);
            }
        });
    }
}

#[test]
fn addresses_of_two_families_make_no_packet() {
    on_two_nodes(&all_families(Backend::Vxlan), |cluster| {
        let one = &cluster.nodes()[0];
        let output = run(one, &format!("{} {}", one.container().v4(), one.container().v6()));
        let said = String::from_utf8(output.stderr).expect("text");
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("two addresses of one family") && said.lines().count() == 1, "{said}");
    });
}

#[test]
fn where_there_is_no_data_path_one_line_says_so() {
    on_two_nodes(&settings(Backend::Vxlan), |cluster| {
        let one = &cluster.nodes()[0];
        let output = one
            .overlay()
            .args(["trace", "10.1.1.1", "10.1.2.2", "--run-dir", "/nonexistent"])
            .output()
            .expect("run overlay trace");
        let said = String::from_utf8(output.stderr).expect("text");
        assert_eq!(output.status.code(), Some(1));
        assert!(said.contains("no data path in /nonexistent") && said.lines().count() == 1, "{said}");
    });
}

#[test]
fn for_people_each_place_is_named_once() {
    on_two_nodes(&settings(Backend::Vxlan), |cluster| {
        let [one, two] = two(cluster);
        let output = run(one, &format!("{} {}", one.container().v4(), two.container().v4()));
        let text = String::from_utf8(output.stdout).expect("text");
        let places = |place: &str| text.lines().filter(|line| line.starts_with(place)).count();
        for place in ["packet ", "from_container ", "kernel ", "to_overlay ", "result "] {
            assert_eq!(places(place), 1, "{place}: {text}");
        }
    });
}
