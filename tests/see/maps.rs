//! `overlay map list` and `overlay map dump`, while no agent runs.

use std::{collections::BTreeMap, process::Output};

use overlay_tests::{
    cluster::{Backend, Cluster},
    node::Node,
    process::wait_until,
    two_nodes::{LIMIT, flow, on_two_nodes, settings, two},
};
use serde_json::Value;

fn map(node: &Node, words: &[&str]) -> Output {
    node.overlay().arg("map").args(words).arg("--run-dir").arg(node.run_dir()).output().unwrap()
}

/// What `overlay map WORDS` prints when it works.
#[track_caller]
fn prints(node: &Node, words: &[&str]) -> String {
    let output = map(node, words);
    assert!(output.status.success(), "{words:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The rows that `overlay map WORDS -o json` prints.
#[track_caller]
pub(crate) fn rows(node: &Node, words: &[&str]) -> Vec<Value> {
    let text = prints(node, &[words, &["-o", "json"]].concat());
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{words:?}: {error}: {text}"))
}

/// Fails unless the command fails with one line that has all of `says`.
#[track_caller]
fn refused(node: &Node, words: &[&str], says: &[&str]) {
    let output = map(node, words);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), said.lines().count()), (Some(1), 1), "{words:?}: {said}");
    assert!(says.iter().all(|word| said.contains(word)), "{words:?}: not {says:?} in {said}");
}

/// The fields of each map's entries, as `bpf-maps.md` has them.
fn documented() -> BTreeMap<&'static str, Vec<&'static str>> {
    let document = include_str!("../../bpf-maps.md");
    let rows = document.lines().skip_while(|line| !line.contains("| fields of its entries")).skip(2);
    rows.take_while(|line| line.starts_with('|'))
        .map(|row| {
            let cells: Vec<_> = row.split('|').map(str::trim).collect();
            (cells[1], cells[2].split(", ").collect())
        })
        .collect()
}

/// Two nodes with flows on the fast path, whose agents have stopped.
fn with_dead_agents(test: impl FnOnce(&Cluster) + Send) {
    on_two_nodes(&settings(Backend::Vxlan), |cluster| {
        let [one, two] = two(cluster);
        let engaged = || {
            flow(one, two).udp_echo(100, 64).unwrap();
            !one.counters().flows().unwrap().is_empty()
        };
        wait_until("a flow on the fast path", LIMIT, engaged).unwrap();
        cluster.nodes_mut()[0].stop_agent().unwrap();
        test(cluster);
    });
}

#[test]
fn every_map_is_listed_and_dumped_with_the_documented_fields_while_the_agent_is_dead() {
    with_dead_agents(|cluster| {
        let [one, two] = two(cluster);
        let list = rows(one, &["list"]);
        let documented = documented();
        let listed: Vec<_> = list.iter().map(|row| row["map"].as_str().unwrap()).collect();
        assert_eq!(listed, overlay_user::maps::NAMES);
        for row in &list {
            let name = row["map"].as_str().unwrap();
            let entries = rows(one, &["dump", name]);
            assert!(row["memory_bytes"].as_u64().unwrap() > 0 && row["entries"].as_u64() <= row["capacity"].as_u64());
            // The flow that is on the fast path is a candidate no more.
            // An IPv4 cluster has nothing in the maps of IPv6.
            assert!(!entries.is_empty() || name == "CANDIDATES" || name.ends_with("_V6"), "{name} is empty");
            for entry in &entries {
                let fields: Vec<_> = entry.as_object().unwrap().keys().collect();
                assert_eq!(fields, documented[name], "{name}");
            }
            if !entries.is_empty() && name != "CANDIDATES" {
                assert_eq!(row["entries"].as_u64(), Some(entries.len() as u64), "{name}");
                let table = prints(one, &["dump", &name.to_lowercase()]);
                assert!(table.starts_with(&format!(" {} ", documented[name][0])), "{table}");
            }
        }
        let table = prints(one, &["list"]);
        assert!(table.lines().count() == 15 && table.contains("dropped packets by reason"), "{table}");

        let route = &rows(one, &["dump", "ROUTES"])[0];
        assert_eq!(route["next_hop"], two.address().to_string());
        assert_eq!(route["subnet"], format!("{}/24", two.subnet().subnet()));
        let flow = &rows(one, &["dump", "FLOWS"])[0];
        assert_eq!(flow["node"], two.address().to_string(), "{flow}");
        assert!(flow["remote"].as_str().unwrap().starts_with(&two.container().v4().to_string()), "{flow}");
        assert!(flow["outgoing_after_ms"].as_u64().is_some_and(|ago| ago < 60_000), "{flow}");
        let node = &rows(one, &["dump", "LOCAL_NODE"])[0];
        assert_eq!((&node["underlay"], &node["overlay"]), (&"eth0".into(), &"overlay.1".into()));
    });
}

#[test]
fn a_dump_can_be_filtered_where_that_has_a_meaning_and_printed_as_bytes() {
    with_dead_agents(|cluster| {
        let [one, two] = two(cluster);
        let (here, there) = (one.container().v4().to_string(), two.container().v4().to_string());
        let (node, subnet) = (two.address().to_string(), format!("{}/24", two.subnet().subnet()));
        for (map, option, hit, miss) in [
            ("ROUTES", "--subnet", subnet.as_str(), "10.9.0.0/24"),
            ("ROUTES", "--address", &there, "10.9.0.1"),
            ("NODES", "--node", &node, "192.0.2.1"),
            ("TRAFFIC", "--node", &node, "192.0.2.1"),
            ("ENDPOINTS", "--address", &here, "10.9.0.1"),
            ("FLOWS", "--address", &there, "10.9.0.1"),
            ("FLOWS", "--subnet", &subnet, "10.9.0.0/24"),
            ("NEIGHBOURS", "--node", &node, "192.0.2.1"),
        ] {
            assert!(!rows(one, &["dump", map, option, hit]).is_empty(), "{map} {option} {hit}");
            assert!(rows(one, &["dump", map, option, miss]).is_empty(), "{map} {option} {miss}");
        }
        assert_eq!(rows(one, &["dump", "ENDPOINTS", "--address", &here]).len(), 1);
        refused(one, &["dump", "DROPS", "--node", &node], &["DROPS", "--node"]);
        refused(one, &["dump", "ENDPOINTS", "--node", &node], &["ENDPOINTS", "--node"]);
        refused(one, &["dump", "NOTHING"], &["NOTHING", "LOCAL_NODE, ROUTES"]);

        let raw = prints(one, &["dump", "NODES", "-o", "raw"]);
        let hex = |octets: &[u8]| octets.iter().map(|octet| format!("{octet:02x}")).collect::<String>();
        let (node, subnet) = (two.address().to_ipv6_mapped().octets(), two.subnet().subnet().octets());
        assert_eq!(raw, format!("{} {}{}\n", hex(&node), hex(&subnet), hex(&[0; 16])));
    });
}
