//! Programs that want other maps than those which are there: another capacity, an older version of the layout, a newer one.

use std::{fs, path::PathBuf, time::Duration};

use aya::maps::MapInfo;
use nix::sys::signal::Signal;
use overlay_tests::{
    attached::links,
    cluster::{Backend, Cluster, Settings},
    for_either_backend,
    node::Node,
    process::{output, wait_until},
    sandbox::isolated,
    traffic::ping,
    two_nodes::{settings, two},
};

use crate::{
    leaving::teardown,
    restarts::{LIMIT, start, start_over, terminate},
    watch::{pass, without_loss},
};

/// Tells the node's next agent how many flows to remember: another number is another layout. The last of several counts.
fn set_max_flows(node: &mut Node, flows: u32) {
    node.agent_arguments_mut().push(format!("--max-flows={flows}"));
}

/// How many flows the node's programs can remember.
fn max_flows(node: &Node) -> u32 {
    MapInfo::from_pin(pins(node, "v1/maps/FLOWS")).unwrap().max_entries()
}

fn pins(node: &Node, path: &str) -> PathBuf {
    node.run_dir().join("bpf").join(path)
}

/// The versions of the layout that are in the node's directory of pins.
fn versions(node: &Node) -> Vec<String> {
    let entries = fs::read_dir(pins(node, "")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.starts_with('v')).collect()
}

/// Packets that the first node has sent to the second.
fn sent(cluster: &Cluster) -> u64 {
    let [one, two] = two(cluster);
    one.counters().traffic(two.subnet().subnet()).unwrap().encap_packets
}

for_either_backend! {
    fn no_packet_is_lost_when_maps_of_another_layout_take_the_place_of_the_old(backend) {
        without_loss(&settings(backend), |cluster| {
            let before = sent(cluster);
            for node in cluster.nodes_mut() {
                assert_eq!(max_flows(node), 65_536);
                terminate(node);
                set_max_flows(node, 2048);
                start(node);
                assert_eq!(max_flows(node), 2048);
                assert!(!pins(node, "v1/new").exists());
                // Of the new maps, which agents and others know by another name than they were made under: in order, exit code 0.
                output(node.overlay().arg("status").arg("--run-dir").arg(node.run_dir())).unwrap();
            }
            assert!(sent(cluster) >= before, "what was counted is still counted");
        });
    }
}

#[test]
fn no_packet_is_lost_when_filters_under_clsact_are_given_maps_of_another_layout() {
    let settings = Settings { agent_arguments: vec!["--clsact".to_owned()], ..settings(Backend::Vxlan) };
    without_loss(&settings, |cluster| {
        for node in cluster.nodes_mut() {
            terminate(node);
            set_max_flows(node, 2048);
            node.start_agent().unwrap();
            node.wait_ready().unwrap();
            wait_until("the new maps", LIMIT, || max_flows(node) == 2048 && !pins(node, "v1/new").exists()).unwrap();
        }
    });
}

#[test]
fn no_packet_is_lost_when_an_agent_is_killed_while_it_changes_the_layout() {
    without_loss(&settings(Backend::Vxlan), |cluster| {
        let node = &mut cluster.nodes_mut()[0];
        for round in 0..12 {
            node.agent().signal(Signal::SIGKILL).unwrap();
            node.agent().wait(LIMIT).unwrap();
            set_max_flows(node, 2048 + round);
            node.start_agent().unwrap();
            pass(Duration::from_millis(u64::from(round) * 30));
        }
        node.agent().kill().unwrap();
        set_max_flows(node, 4096);
        start(node);
        assert_eq!(max_flows(node), 4096);
        assert!(!pins(node, "v1/new").exists());
    });
}

#[test]
fn no_packet_is_lost_when_an_older_layout_is_replaced() {
    without_loss(&settings(Backend::Vxlan), |cluster| {
        let node = &mut cluster.nodes_mut()[0];
        terminate(node);
        let before = links(node.run_dir()).unwrap();
        fs::rename(pins(node, "v1"), pins(node, "v0")).unwrap();
        start_over(node, &before);
        assert_eq!(versions(node), ["v1"]);
    });
}

#[test]
fn a_newer_layout_is_refused_and_goes_on_forwarding_until_teardown() {
    isolated(|| {
        let mut cluster = Cluster::start(&settings(Backend::Vxlan)).unwrap();
        let node = &mut cluster.nodes_mut()[0];
        terminate(node);
        fs::rename(pins(node, "v1"), pins(node, "v7")).unwrap();
        let lines = node.agent().log().lines().count();
        node.start_agent().unwrap();
        assert_eq!(node.agent().wait(LIMIT).unwrap().code(), Some(1));
        let log = node.agent().log();
        let said: Vec<_> = log.lines().skip(lines).collect();
        assert!(
            matches!(said[..], [line] if line.contains("v7 has maps of layout 7, this program knows layout 1")),
            "{said:?}"
        );
        let dump = node.overlay().args(["map", "dump", "routes", "--run-dir"]).arg(node.run_dir()).output().unwrap();
        assert!(!dump.status.success() && String::from_utf8_lossy(&dump.stderr).contains("layout 7"), "{dump:?}");

        let [one, two] = two(&cluster);
        assert_eq!(ping(&one.container().netns, two.container().v4(), 2).unwrap().received, 2);
        teardown(one);
        assert!(!pins(one, "v7").exists());
        assert!(one.netns().ip("link show overlay.1").is_err());
    });
}
