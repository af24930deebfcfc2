//! Runs the commands that documents show.

use std::env;

use overlay_tests::{
    cluster::{Backend, Cluster, Settings, agent_program},
    node::{Node, UNDERLAY_DEVICE},
    sandbox::isolated,
    traffic::ping,
};

use crate::document::{Block, blocks, examples, is_as_documented};

const GUIDE: &str = include_str!("../../docs/operators-guide.md");

/// Blocks whose commands no test can run on a node of namespaces, by their first line, and why.
const NOT_RUN: [(&str, &str); 4] = [
    ("set -a; . /etc/default/overlay", "the test's nodes have their variables from the test"),
    ("apt-get install ./overlay_*.deb\neditor", "needs systemd: tests/dist runs the same commands of the README"),
    ("systemctl disable --now flanneld", "needs systemd: tests/dist swaps a unit of flanneld's"),
    ("apt-get install ./overlay_*.deb\n", "needs systemd: tests/dist upgrades a package"),
];

/// Runs a line in a shell on the node, with the variables that `/etc/default/overlay` would have.
fn run(node: &Node, etcd: &str, line: &str) -> (i32, String) {
    let overlay = agent_program().unwrap();
    let programs = overlay.parent().unwrap();
    let mut shell = node.netns().command("sh");
    shell.args(["-c", &format!("{{ {line}; }} 2>&1")]);
    shell.env("PATH", format!("{}:{}", programs.display(), env::var("PATH").unwrap()));
    shell.env("OVERLAY_RUN_DIR", node.run_dir()).env("FLANNELD_SUBNET_FILE", node.subnet_file());
    shell.env("FLANNELD_ETCD_ENDPOINTS", etcd).env("FLANNELD_IFACE", UNDERLAY_DEVICE);
    let output = shell.output().unwrap();
    (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
}

#[test]
fn commands_in_the_operators_guide_print_what_is_shown() {
    let arguments = ["--healthz-ip=127.0.0.1", "--healthz-port=8471", "--metrics-addr=127.0.0.1:9469"];
    let settings = Settings {
        backend: Backend::Vxlan,
        agent_arguments: arguments.map(str::to_owned).to_vec(),
        ..Settings::default()
    };
    isolated(|| {
        let cluster = Cluster::start(&settings).unwrap();
        let [one, two] = cluster.nodes() else { panic!("two nodes") };
        ping(&one.container().netns, two.container().address, 2).unwrap();
        let arguments = cluster.datastore_arguments();
        let etcd = arguments.iter().find(|argument| argument.contains("http://")).expect("etcd's address");
        let etcd = &etcd[etcd.find("http://").unwrap()..];
        let mut wrong = String::new();
        for block in blocks(GUIDE).iter().filter(|block| block.kind == "console") {
            for example in examples(block) {
                let (exit, printed) = run(one, etcd, &example.command);
                if exit != example.exit || !is_as_documented(&example.prints, &printed) {
                    wrong += &format!("line {}: $ {}\n{printed}[exit {exit}]\n", block.line, example.command);
                }
            }
        }
        assert!(wrong.is_empty(), "the guide does not show what is printed:\n{wrong}");
    });
}

#[test]
fn what_is_not_run_is_said_with_the_reason() {
    let reason = |block: &Block| NOT_RUN.iter().find(|(begins, _)| block.text.starts_with(begins));
    for block in blocks(GUIDE).iter().filter(|block| block.kind != "console") {
        let Some((_, why)) = reason(block) else {
            panic!("line {}: neither a console block nor in the list of what is not run", block.line)
        };
        println!("NOT RUN: docs/operators-guide.md line {}: {why}", block.line);
    }
}
