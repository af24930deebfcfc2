//! What the agent says of itself: what it has chosen and why, one line a change, for people and for programs.

use overlay_tests::{
    cluster::{Cluster, Settings},
    process::wait_until,
    sandbox::isolated,
};
use serde_json::Value;

use crate::ground::{LIMIT, await_said, settings};

/// What a start says, and a part of why.
const CHOICES: [(&str, &str); 6] = [
    ("underlay chosen", "as --iface says"),
    ("backend chosen", "network config"),
    ("MTU chosen", "1500 of eth0, less 50"),
    ("fast path chosen", "as --fast-path says"),
    ("subnet taken", "a free one by chance"),
    ("decapsulating", "eth0 is a veth"),
];

#[test]
fn a_start_says_what_was_chosen_and_why_in_a_line_each() {
    isolated(|| {
        let mut cluster = Cluster::start(&settings(1)).unwrap();
        let node = &mut cluster.nodes_mut()[0];
        for (choice, why) in CHOICES {
            await_said(node, &[choice, why], 1);
        }
        await_said(node, &["network config read", "etcd at", "/coreos.com/network"], 1);
        // Started again it has its lease, and says so.
        node.stop_agent().unwrap();
        node.start_agent().unwrap();
        node.wait_ready().unwrap();
        assert!(node.agent().log().contains("our lease, renewed"), "{}", node.agent().log());
    });
}

#[test]
fn with_a_flag_each_line_is_a_json_object_with_its_fields() {
    isolated(|| {
        let arguments = ["--log-format", "json"].map(str::to_owned).to_vec();
        let settings = Settings { agent_arguments: arguments, ..settings(1) };
        let mut cluster = Cluster::start(&settings).unwrap();
        let node = &mut cluster.nodes_mut()[0];
        let subnet = format!("{}/24", node.subnet().subnet());
        let ready = |log: &str| log.lines().any(|line| line.contains("\"ready\""));
        wait_until("the agent to say that it is ready", LIMIT, || ready(&node.agent().log())).unwrap();
        let log = node.agent().log();
        let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
        assert!(lines.iter().all(|line| line["timestamp"].is_string() && line["level"].is_string()), "{log}");
        let taken: Vec<_> = lines.iter().filter(|line| line["message"] == "subnet taken").collect();
        assert_eq!(taken.len(), 1, "{log}");
        assert_eq!((taken[0]["subnet"].as_str(), taken[0]["level"].as_str()), (Some(subnet.as_str()), Some("INFO")));
    });
}
