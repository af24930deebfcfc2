//! Runs the commands that documents show.
//!
//! A `console` block shows commands and what they print (`console figures`: with other figures); an `sh` block is a
//! script whose output is not shown. What is not run is in a list, with the reason.

use std::{env, fs, path::Path, process::Output};

use overlay_tests::{
    cluster::{Backend, Cluster, Settings, agent_program},
    netns::Netns,
    node::{Node, UNDERLAY_DEVICE},
    sandbox::isolated,
    traffic::ping,
};

use crate::document::{Block, Figures, blocks, examples, is_as_documented};

/// A document, and what no test here can run of it: how a line of a script or a block of text begins, and why.
struct Document {
    name: &'static str,
    text: &'static str,
    not_run: &'static [(&'static str, &'static str)],
}

const README: Document = Document {
    name: "README.md",
    text: include_str!("../../README.md"),
    not_run: &[
        (" container A ", "a picture"),
        ("INFO network config read", "lines of a log: compared with that of an agent"),
        ("cargo xtask run", "shown below, with what it prints"),
        ("cargo xtask test", "it is what runs this"),
        ("cargo build --release", "tests/dist builds for release"),
        ("overlay agent ", "the cluster's agents have been started so, and would refuse a second one"),
        (". /run/docker_opts.env", "tests/docker starts dockerd with these options"),
        ("apt-get install ./overlay_*.deb", "needs systemd: tests/dist runs it"),
        ("editor /etc/default/overlay", "needs somebody who writes: tests/dist does"),
        ("systemctl ", "needs systemd: tests/dist runs it"),
        ("mkdir -p /etc/systemd/system/docker.service.d", "needs systemd: tests/dist runs it"),
        ("cp /usr/share/overlay/docker/overlay.conf", "needs systemd: tests/dist runs it"),
        ("overlay top ", "needs a terminal: tests/see runs it in one, and compares the layout of the capture"),
        ("overlay trace --pcap", "tests/trace captures packets and traces them"),
        ("overlay trace --live", "runs until Ctrl-C: the guide's example ends by itself"),
    ],
};

const GUIDE: Document = Document {
    name: "docs/operators-guide.md",
    text: include_str!("../../docs/operators-guide.md"),
    not_run: &[
        ("set -a; . /etc/default/overlay", "the test's nodes have their variables from the test"),
        ("apt-get install ./overlay_*.deb", "needs systemd: tests/dist installs and upgrades the package"),
        ("editor /etc/default/overlay", "needs somebody who writes: tests/dist does"),
        ("systemctl ", "needs systemd: tests/dist swaps a unit of flanneld's"),
        ("ip link del flannel.1", "there is none here: tests/check finds one in the way"),
    ],
};

/// Documents that show no commands.
const OTHERS: [Document; 3] = [
    Document { name: "bpf-maps.md", text: include_str!("../../bpf-maps.md"), not_run: &[] },
    Document { name: "docs/architecture.md", text: include_str!("../../docs/architecture.md"), not_run: &[] },
    Document { name: "docs/performance.md", text: include_str!("../../docs/performance.md"), not_run: &[] },
];

impl Document {
    /// Why what begins with `text` is not run, if it is not.
    fn reason(&self, text: &str) -> Option<&'static str> {
        self.not_run.iter().find(|(begin, _)| text.starts_with(begin)).map(|(_, why)| *why)
    }

    /// The lines of a block that are run.
    fn script(&self, block: &Block) -> String {
        let run = |line: &&str| self.reason(line).is_none();
        block.text.lines().filter(run).map(|line| format!("{line}\n")).collect()
    }
}

/// Where documented commands run: on a node of a cluster, with what they name put in place.
struct Site<'a> {
    node: &'a Node,
    /// What documents say, and what it is here.
    stand_ins: Vec<(&'static str, String)>,
    etcd: String,
}

impl<'a> Site<'a> {
    fn new(cluster: &'a Cluster) -> Self {
        let [one, two] = cluster.nodes() else { panic!("two nodes") };
        ping(&one.container().netns, two.container().v4(), 2).unwrap();
        fs::create_dir("/run/flannel").unwrap();
        fs::copy(one.subnet_file(), "/run/flannel/subnet.env").unwrap();
        let cni = cluster.directory().join("cni");
        fs::create_dir(&cni).unwrap();
        let etcd = cluster.etcd().endpoint();
        let stand_ins = vec![
            ("http://192.0.2.1:2379", etcd.clone()),
            ("/opt/cni/bin/", format!("{}/", cni.display())),
            ("/etc/cni/net.d/", format!("{}/", cni.display())),
            // What it becomes when nothing is missing.
            ("cargo xtask run", env!("CARGO_BIN_EXE_cluster").to_owned()),
            ("/usr/bin/overlay", agent_program().unwrap().display().to_string()),
        ];
        Self { node: one, stand_ins, etcd }
    }

    /// Runs lines in a shell in `netns`, with the variables that `/etc/default/overlay` would have.
    fn shell(&self, netns: &Netns, lines: &str) -> Output {
        let put_in = |lines: String, (said, here): &(&str, String)| lines.replace(said, here);
        let lines = self.stand_ins.iter().fold(lines.to_owned(), put_in);
        let overlay = agent_program().unwrap();
        let programs = overlay.parent().unwrap();
        let mut shell = netns.command("sh");
        shell.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."));
        shell.args(["-c", &format!("exec 2>&1\n{lines}")]);
        shell.env("PATH", format!("{}:{}", programs.display(), env::var("PATH").unwrap()));
        shell.env("OVERLAY_RUN_DIR", self.node.run_dir()).env("FLANNELD_SUBNET_FILE", self.node.subnet_file());
        shell.env("FLANNELD_ETCD_ENDPOINTS", &self.etcd).env("FLANNELD_IFACE", UNDERLAY_DEVICE);
        shell.output().unwrap()
    }

    /// Runs a document from its beginning to its end, and says what is not as it shows.
    fn run(&self, document: &Document) -> String {
        let mut wrong = String::new();
        let mut judge = |line, command: &str, output: &Output, as_shown: bool| {
            if !as_shown {
                let (printed, code) = (String::from_utf8_lossy(&output.stdout), output.status.code());
                wrong += &format!("{} line {line}: $ {command}\n{printed}[exit {code:?}]\n", document.name);
            }
        };
        for block in blocks(document.text).iter().filter(|block| block.kind != "text") {
            if block.kind == "sh" {
                let script = document.script(block);
                // A network of its own: the node has a bridge with this address.
                let netns = if script.contains("ip link add") { &Netns::new().unwrap() } else { self.node.netns() };
                let output = self.shell(netns, &format!("set -e\n{script}"));
                judge(block.line, &script, &output, output.status.success());
                continue;
            }
            let figures = if block.kind == "console figures" { Figures::Any } else { Figures::Exact };
            for example in examples(block) {
                let output = self.shell(self.node.netns(), &example.command);
                let as_shown = output.status.code() == Some(example.exit)
                    && is_as_documented(&example.prints, figures, &String::from_utf8_lossy(&output.stdout));
                judge(block.line, &example.command, &output, as_shown);
            }
        }
        wrong
    }
}

/// A cluster of two nodes whose agents have `arguments`, once `prepare` has done something about it.
fn cluster(arguments: &[&str], prepare: fn(&Cluster)) -> Cluster {
    let agent_arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
    let settings = Settings { backend: Backend::Vxlan, agent_arguments, ..Settings::default() };
    let mut cluster = Cluster::new(&settings).unwrap();
    prepare(&cluster);
    cluster.bring_up(&settings.network_config()).unwrap();
    cluster
}

/// Has the nodes take the subnets that the README names: an agent takes again what its file says that it had.
fn with_subnets_of_the_readme(cluster: &Cluster) {
    for (node, gateway) in cluster.nodes().iter().zip(["10.1.49.1/24", "10.1.55.1/24"]) {
        let file =
            format!("FLANNEL_NETWORK=10.1.0.0/16\nFLANNEL_SUBNET={gateway}\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n");
        fs::create_dir_all(node.subnet_file().parent().unwrap()).unwrap();
        fs::write(node.subnet_file(), file).unwrap();
    }
}

#[test]
fn commands_in_the_readme_print_what_is_shown() {
    isolated(|| {
        let cluster = cluster(&["--ip-masq"], with_subnets_of_the_readme);
        let wrong = Site::new(&cluster).run(&README);
        assert!(wrong.is_empty(), "the README does not show what is printed:\n{wrong}");
    });
}

#[test]
fn commands_in_the_operators_guide_print_what_is_shown_and_agents_log_what_the_readme_shows() {
    isolated(|| {
        let arguments = ["--healthz-ip=127.0.0.1", "--healthz-port=8471", "--metrics-addr=127.0.0.1:9469"];
        let mut cluster = cluster(&arguments, |_| {});
        let wrong = Site::new(&cluster).run(&GUIDE);
        assert!(wrong.is_empty(), "the guide does not show what is printed:\n{wrong}");
        let log = cluster.nodes_mut()[0].agent().log();
        let all = blocks(README.text);
        let shown = all.iter().find(|block| block.text.starts_with("INFO network config read")).unwrap();
        for line in shown.text.lines() {
            let logged = |said: &str| is_as_documented(&[format!("... {line}")], Figures::Any, said);
            assert!(log.lines().any(logged), "{line}\nin the log:\n{log}");
        }
    });
}

#[test]
fn what_is_not_run_is_said_with_the_reason() {
    for document in [README, GUIDE].iter().chain(&OTHERS) {
        let mut unused: Vec<_> = document.not_run.iter().collect();
        let mut is_listed = |text: &str, line: usize| {
            unused.retain(|(begin, _)| !text.starts_with(begin));
            let why = document.reason(text);
            if let Some(why) = why {
                println!("NOT RUN: {} line {line}: {why}", document.name);
            }
            why.is_some()
        };
        for block in blocks(document.text) {
            match block.kind.as_str() {
                "console" | "console figures" => {}
                "sh" => {
                    for (line, text) in (block.line + 1..).zip(block.text.lines()) {
                        is_listed(text, line);
                    }
                }
                _ => {
                    let listed = is_listed(&block.text, block.line);
                    assert!(
                        listed,
                        "{} line {}: neither run nor in the list of what is not",
                        document.name, block.line
                    );
                }
            }
        }
        assert!(unused.is_empty(), "{} has nothing of: {unused:?}", document.name);
    }
}
