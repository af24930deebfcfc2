//! How the check's words are printed.

use std::process::{Command, Output};

use overlay_tests::cluster::Backend;

use crate::ground::{USUAL, on_a_node, overlay};

fn text(mut command: Command) -> (Option<i32>, String) {
    let Output { status, stdout, .. } = command.output().unwrap();
    (status.code(), String::from_utf8(stdout).unwrap())
}

#[test]
fn people_get_a_table_in_colour_on_a_terminal_alone() {
    on_a_node(Backend::Vxlan, |cluster| {
        let (code, piped) = text(overlay(cluster, "check", USUAL));
        assert_eq!(code, Some(0));
        assert!(!piped.contains('\x1b') && piped.contains("this node can run the agent: "), "{piped}");
        let row = piped.lines().find(|line| line.contains(" underlay ")).unwrap();
        assert!(row.trim_start().starts_with("green") && row.contains("eth0 with 192.168.50.1, MTU 1500"), "{row}");

        let (code, piped) = text(overlay(cluster, "check", &["--iface", "nosuch0"]));
        assert_eq!(code, Some(1));
        assert!(piped.contains("-> name the right one with --iface"), "{piped}");
        assert!(
            piped.trim_end().lines().last().unwrap().starts_with("the agent would refuse to start: 1 red"),
            "{piped}"
        );

        // util-linux's `script` gives a program a terminal.
        let on_terminal = |no_color: Option<&str>| {
            let command = overlay(cluster, "check", USUAL);
            let words = [command.get_program()].into_iter().chain(command.get_args());
            let line = words.map(|word| word.to_str().unwrap()).collect::<Vec<_>>().join(" ");
            let mut script = cluster.nodes()[0].netns().command("script");
            script
                .args(["--quiet", "--return", "--command", &line, "/dev/null"])
                .env("TERM", "xterm")
                .env_remove("NO_COLOR");
            script.envs(no_color.map(|value| ("NO_COLOR", value)));
            text(script)
        };
        let (code, coloured) = on_terminal(None);
        assert_eq!(code, Some(0));
        assert!(coloured.contains('\x1b') && coloured.contains("green"), "{coloured}");
        let (_, plain) = on_terminal(Some("1"));
        assert!(!plain.contains("\x1b[3") && plain.contains("green"), "{plain:?}");
    });
}

#[test]
fn the_environment_of_the_unit_counts_as_for_the_agent() {
    on_a_node(Backend::Vxlan, |cluster| {
        let mut command = overlay(cluster, "check", &["-o", "json"]);
        command.env("FLANNELD_IFACE", "eth0").env("FLANNELD_PUBLIC_IP", "198.51.100.7").env("OVERLAY_FAST_PATH", "off");
        let (code, json) = text(command);
        let report: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(code, Some(0), "{report:#}");
        let choice = &report["choice"];
        assert_eq!((&choice["public_ip"], &choice["fast_path"]), (&"198.51.100.7".into(), &false.into()), "{choice}");
    });
}

#[test]
fn a_wrong_option_is_refused_as_the_agent_refuses_it() {
    on_a_node(Backend::Vxlan, |cluster| {
        for (option, code) in [(["--datastore", "redis"], 1), (["--iface-regex", "("], 1), (["--decap", "magic"], 2)] {
            for verb in ["check", "agent"] {
                let output = crate::ground::overlay_elsewhere(cluster, verb, &option).output().unwrap();
                assert_eq!(output.status.code(), Some(code), "{verb} {option:?}: {output:?}");
            }
        }
    });
}
