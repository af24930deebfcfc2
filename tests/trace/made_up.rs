//! Packets that nobody has sent.

use std::net::Ipv4Addr;

use overlay_tests::{cluster::Settings, process::wait_until};

use crate::ground::{
    Backend, LIMIT, Traced, end, exchange, for_either_backend, maps, on_two_nodes, run, settings, two, udp_socket,
};

for_either_backend! {
    fn the_way_to_another_node_is_told_from_the_container_to_the_wire(backend) {
        on_two_nodes(&settings(backend), |cluster| {
            let [one, two] = two(cluster);
            let (source, destination) = (one.container().v4(), two.container().v4());
            let traced = Traced::on(one, source, destination, "--proto udp --dport 53");
            assert!(traced.success, "{traced:?}");
            assert!(traced.at("from_container").contains("slow path: netfilter has not let"), "{traced:?}");
            assert!(traced.at("kernel").contains("by overlay."), "{traced:?}");
            assert!(traced.at("to_overlay").contains(&format!("node {}", two.address())), "{traced:?}");
            assert_eq!(traced.result(), format!("leaves by eth0 for node {}", two.address()));
            let (outer, port) = (traced.outer(), match backend { Backend::Udp => 8285, Backend::Vxlan => 8472 });
            assert_eq!(outer["source"], one.address().to_string());
            assert_eq!(outer["destination"], two.address().to_string());
            assert_eq!(outer["destination_port"], port);
            assert_eq!(outer["length"], match backend { Backend::Udp => 56, Backend::Vxlan => 78 });
            assert_eq!(outer.get("vxlan").map(|vxlan| vxlan["vni"] == 1), (backend == Backend::Vxlan).then_some(true));
        });
    }

    fn the_way_from_another_node_is_told_from_the_wire_to_the_container(backend) {
        on_two_nodes(&settings(backend), |cluster| {
            let [one, two] = two(cluster);
            let (source, destination) = (one.container().v4(), two.container().v4());
            let traced = Traced::on(two, source, destination, "--proto icmp");
            assert!(traced.success, "{traced:?}");
            assert!(traced.at("from_underlay").contains(&format!("accepted: node {}", one.address())), "{traced:?}");
            assert!(traced.at("to_container").contains("goes on"), "{traced:?}");
            assert_eq!(traced.result(), "arrives in the container behind container");
        });
    }

    fn a_flow_on_the_fast_path_is_told_to_be_there(backend) {
        // Longer than the traces of both nodes take: an approval about to end is a slow path, and told as one.
        let agent_arguments = ["--fast-path-approval", "60"].map(str::to_owned).to_vec();
        on_two_nodes(&Settings { agent_arguments, ..settings(backend) }, |cluster| {
            let [one, two] = two(cluster);
            let (near, far) = (udp_socket(one), udp_socket(two));
            let [(source, sport), (destination, dport)] = [&near, &far].map(end);
            let traced = |node| Traced::on(node, source, destination, &format!("--proto udp --sport {sport} --dport {dport}"));
            wait_until("the flow to be traced on the fast path of both nodes", LIMIT, || {
                exchange(&near, &far);
                let (leaves, arrives) = (traced(one), traced(two));
                leaves.at("from_container").contains("fast path: the destination's subnet is that of node")
                    && leaves.outer()["destination"] == two.address().to_string()
                    && arrives.at("from_underlay").contains("fast path: straight into the container behind container")
            })
            .unwrap();
        });
    }

    fn a_trace_changes_no_map_and_needs_no_agent(backend) {
        on_two_nodes(&settings(backend), |cluster| {
            cluster.nodes_mut()[0].stop_agent().unwrap();
            let [one, two] = two(cluster);
            let (source, destination) = (one.container().v4(), two.container().v4());
            let before = maps(one);
            for (from, to) in [(source, destination), (destination, source), (source, "10.1.255.9".parse().unwrap())] {
                for options in ["--proto tcp", "--proto udp --sport 5000", "--proto icmp"] {
                    Traced::on(one, from, to, options);
                }
            }
            assert_eq!(maps(one), before);
        });
    }

    fn what_would_be_dropped_is_told_with_the_reason(backend) {
        on_two_nodes(&settings(backend), |cluster| {
            let [one, two] = two(cluster);
            let (ours, theirs) = (one.container().v4(), two.container().v4());
            let nowhere = Ipv4Addr::new(10, 1, 255, 9);
            let (nobody, theirs_nobody) = (one.subnet().address(77), two.subnet().address(77));
            for (source, destination, reason) in [
                (ours, nowhere, "NoRoute"),
                (ours, nobody, ""),
                (Ipv4Addr::new(192, 0, 2, 9), theirs, "SourceNotOurs"),
                (theirs, nowhere, "SourceNotOurs"),
                (nowhere, ours, "UnknownNode"),
                (theirs_nobody, ours, ""),
            ] {
                let traced = Traced::on(one, source, destination, "--proto udp");
                let expected: Vec<&str> = Some(reason).filter(|reason| !reason.is_empty()).into_iter().collect();
                assert_eq!(traced.reasons(), expected, "{source} to {destination}: {traced:?}");
                assert_eq!(traced.success, reason.is_empty(), "{source} to {destination}: {traced:?}");
            }
        });
    }

    fn what_does_not_fit_is_told_to_be_answered(backend) {
        on_two_nodes(&settings(backend), |cluster| {
            let [one, two] = two(cluster);
            let mtu = one.subnet().mtu;
            let size = |size| Traced::on(one, one.container().v4(), two.container().v4(), &format!("--size {size}"));
            assert!(size(mtu).success);
            let traced = size(mtu + 1);
            assert!(!traced.success);
            assert!(traced.result().contains(&format!("\"fragmentation needed\", MTU {mtu}")), "{traced:?}");
        });
    }
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
