//! `overlay status`: what it says of a node in order, and of one that is not.

use std::{fs, os::unix::fs::PermissionsExt as _, process::Output};

use overlay_tests::{
    cluster::Backend,
    node::Node,
    process::wait_until,
    traffic::ping,
    two_nodes::{LIMIT, flow, on_two_nodes, settings, two},
};
use serde_json::Value;

use crate::terminal::Terminal;

/// What `overlay status WORDS` does on a node.
pub(crate) fn status(node: &Node, words: &[&str]) -> Output {
    node.overlay().arg("status").args(words).arg("--run-dir").arg(node.run_dir()).output().unwrap()
}

/// Its exit code, and what it prints as JSON.
#[track_caller]
pub(crate) fn json(node: &Node) -> (Option<i32>, Value) {
    let output = status(node, &["-o", "json"]);
    let document = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    (output.status.code(), document)
}

#[test]
fn a_node_in_order_shows_its_choices_and_its_peer_and_exits_with_0() {
    on_two_nodes(&settings(Backend::Vxlan), |cluster| {
        let [one, two] = two(cluster);
        flow(one, two).tcp_transfer(1 << 20).unwrap();
        let (code, shown) = json(one);
        assert_eq!((code, &shown["problems"]), (Some(0), &Value::Array(Vec::new())), "{shown}");
        assert_eq!(shown["node"]["subnet"], format!("{}/24", one.subnet().subnet()));
        assert_eq!(shown["node"]["containers"], 1, "{shown}");
        let agent = &shown["agent"];
        assert_eq!((&agent["choice"]["backend"], &agent["choice"]["underlay"]), (&"vxlan".into(), &"eth0".into()));
        assert!(agent["choice"]["decap_why"].as_str().is_some_and(|why| !why.is_empty()), "{shown}");
        assert_eq!((&agent["datastore"]["silent"], &agent["lease"]["problem"]), (&Value::Null, &Value::Null));
        let [peer] = shown["peers"].as_array().unwrap().as_slice() else { panic!("{shown}") };
        assert_eq!(peer["node"], two.address().to_string());
        assert!(peer["total"]["encap_bytes"].as_u64().is_some_and(|bytes| bytes > 1 << 20), "{peer}");

        let text = String::from_utf8(status(one, &[]).stdout).unwrap();
        assert!(!text.contains('\x1b'), "colour in a pipe: {text}");
        for word in ["ok", "fast path", "decap", "lease", "datastore", &two.address().to_string()] {
            assert!(text.contains(word), "no {word:?} in {text}");
        }
        let socket = fs::metadata(one.run_dir().join("agent.sock")).unwrap();
        assert_eq!(socket.permissions().mode() & 0o777, 0o600);
    });
}

#[test]
fn a_dead_agent_and_a_detached_program_are_said_and_the_maps_are_shown_all_the_same() {
    on_two_nodes(&settings(Backend::Vxlan), |cluster| {
        ping(&two(cluster)[0].container().netns, two(cluster)[1].container().v4(), 1).unwrap();
        cluster.nodes_mut()[0].stop_agent().unwrap();
        let [one, two] = two(cluster);
        let (code, shown) = json(one);
        assert_eq!((code, &shown["agent"]), (Some(1), &Value::Null));
        let problems =
            |shown: &Value| shown["problems"].as_array().unwrap().iter().map(Value::to_string).collect::<Vec<_>>();
        assert!(matches!(problems(&shown).as_slice(), [one] if one.contains("no agent runs")), "{shown}");
        assert_eq!(shown["peers"][0]["node"], two.address().to_string());

        let links = fs::read_dir(one.run_dir().join("bpf/v1/links")).unwrap();
        let link = links.map(|link| link.unwrap().path()).find(|link| link.to_string_lossy().contains("from_underlay"));
        fs::remove_file(link.unwrap()).unwrap();
        let (_, shown) = json(one);
        assert!(problems(&shown).iter().any(|problem| problem.contains("from_underlay is not attached")), "{shown}");
    });
}

#[test]
fn colour_is_for_terminals_whose_user_wants_it() {
    on_two_nodes(&settings(Backend::Vxlan), |cluster| {
        let terminal = Terminal::open(&cluster.nodes()[0]);
        let shown = |command: &str| {
            terminal.enter(&format!("clear; {command}; echo ended"));
            let ended = || terminal.screen().lines().any(|line| line == "ended");
            wait_until(command, 2 * LIMIT, ended).unwrap_or_else(|error| panic!("{error:#}: {}", terminal.screen()));
            let screen = terminal.coloured();
            assert!(screen.contains("nothing dropped"), "{screen}");
            screen
        };
        let green = "\x1b[32m";
        // tmux writes colours as short as it can, crossterm asks for that of its palette.
        let coloured = shown("overlay status");
        assert!(
            coloured.contains(green) || coloured.contains("\x1b[92m") || coloured.contains("\x1b[38;5;10m"),
            "{coloured:?}"
        );
        for plain in ["NO_COLOR=1 overlay status", "overlay status | cat"] {
            let screen = shown(plain);
            assert!(!screen.contains('\x1b'), "{plain}: {screen:?}");
        }
    });
}

#[test]
fn what_is_exchanged_meanwhile_has_a_rate() {
    on_two_nodes(&settings(Backend::Vxlan), |cluster| {
        let [one, two] = two(cluster);
        let active = || {
            std::thread::scope(|scope| {
                let seen = scope.spawn(|| json(one).1);
                flow(one, two).tcp_stream(std::time::Duration::from_secs(2)).unwrap();
                let peer = &seen.join().unwrap()["peers"][0];
                peer["state"] == "active" && peer["rate"]["encap_bytes"].as_u64() > Some(1 << 20)
            })
        };
        wait_until("a rate", 4 * LIMIT, active).unwrap();
    });
}
