//! Real packets.

use std::{collections::BTreeSet, fs, process::Command, time::Duration};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use overlay_tests::{
    attached::links,
    cluster::Settings,
    node::Node,
    paced::Paced,
    process::{Process, wait_until},
};
use serde_json::Value;

use crate::ground::{Backend, LIMIT, end, exchange, for_either_backend, on_two_nodes, run, settings, two, udp_socket};

/// What it says once the programs are in their places.
const BEGUN: &str = "Ctrl-C ends it";

/// `overlay trace --live` on a node, under way.
pub(crate) struct Live(Process);

impl Live {
    /// Starts it, and waits until the programs are in their places.
    pub(crate) fn start(node: &Node, options: &str) -> Self {
        let mut command: Command = node.overlay();
        command.args(["trace", "--live", "-o", "json", "--run-dir"]).arg(node.run_dir());
        command.args(options.split_whitespace());
        let log = node.run_dir().join("live.log");
        fs::write(&log, "").expect("empty the log");
        let mut process = Process::spawn("overlay trace --live", command, &log).expect("start a trace");
        let text = || fs::read_to_string(&log).expect("read the log");
        process.wait_ready("its beginning", LIMIT, || Ok(text().contains(BEGUN).then_some(()))).expect("begin a trace");
        Self(process)
    }

    /// The lines so far; the last may not be whole yet.
    pub(crate) fn lines(&self) -> Vec<Value> {
        self.0.log().lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Ends it by `signal`; returns its exit code.
    pub(crate) fn end(&mut self, signal: Signal) -> Option<i32> {
        self.0.signal(signal).unwrap();
        self.0.wait(LIMIT).unwrap().code()
    }
}

/// The kernel's numbers of the programs in the links of `node`.
fn programs(node: &Node) -> BTreeSet<u32> {
    links(node.run_dir()).unwrap().values().map(|link| link.program).collect()
}

/// The process that puts the programs back.
fn guard(live: &Live) -> Pid {
    let pid = live.0.pid();
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).expect("the children of a trace");
    Pid::from_raw(children.trim().parse().expect("one child"))
}

for_either_backend! {
    fn packets_of_a_flow_are_shown_in_both_directions_and_no_others(backend) {
        on_two_nodes(&settings(backend), |cluster| {
            let [one, two] = two(cluster);
            let before = programs(one);
            let ((near, far), (other, others)) = ((udp_socket(one), udp_socket(two)), (udp_socket(one), udp_socket(two)));
            let [(source, sport), (destination, dport)] = [&near, &far].map(end);
            let filter = format!("--src {source} --dst {destination} --proto udp --sport {sport} --dport {dport}");
            let mut live = Live::start(one, &filter);
            // In front of the marks of what is shown: had it been told of, it would have been read before them.
            exchange(&other, &others);
            exchange(&near, &far);
            let shown = |program: &str, from: u16, step: &str| {
                let is = |line: &Value| line["program"] == program && line["source_port"] == from && line["step"] == step;
                live.lines().iter().any(is)
            };
            wait_until("both directions to be shown by all programs on their way", LIMIT, || {
                shown("from_container", sport, "Slow")
                    && shown("to_overlay", sport, "Encapsulated")
                    && shown("from_underlay", dport, "Accepted")
                    && shown("to_container", dport, "Passed")
            })
            .unwrap();
            assert_eq!(live.end(Signal::SIGINT), Some(0));
            let ports: BTreeSet<_> = [sport, dport].into();
            for line in live.lines() {
                let seen = ["source_port", "destination_port"].map(|port| line[port].as_u64().unwrap() as u16);
                assert_eq!(BTreeSet::from(seen), ports, "{line}");
            }
            assert_eq!(programs(one), before);
        });
    }
}

#[test]
fn however_a_trace_ends_the_programs_are_back_and_no_packet_is_lost() {
    // Of XDP, the program in the driver is exchanged as well.
    let settings =
        Settings { agent_arguments: ["--decap", "xdp"].map(str::to_owned).to_vec(), ..settings(Backend::Vxlan) };
    on_two_nodes(&settings, |cluster| {
        let [one, two] = two(cluster);
        let before = programs(one);
        let paced = Paced::start(&[one, two].map(|node| node.container().clone()), Duration::from_millis(1)).unwrap();
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGKILL] {
            let mut live = Live::start(one, "--proto udp --rate 10");
            assert!(programs(one).is_disjoint(&before), "{signal}");
            let told = |program: &str| live.lines().iter().any(|line| line["program"] == program);
            wait_until("xdp_decap to tell", LIMIT, || told("xdp_decap")).unwrap();
            let suppressed = || live.lines().iter().any(|line| line["suppressed_packets"].as_u64() > Some(0));
            wait_until("packets beyond the rate to be counted", LIMIT, suppressed).unwrap();
            let second = run(one, "--live");
            let said = String::from_utf8(second.stderr).expect("text");
            assert_eq!(second.status.code(), Some(1), "{said}");
            assert!(said.contains(&format!("(pid {})", live.0.pid())) && said.lines().count() == 1, "{said}");
            assert_eq!(live.end(signal), (signal != Signal::SIGKILL).then_some(0));
            wait_until("the programs to be back", LIMIT, || programs(one) == before).unwrap();
        }
        for pair in paced.stop().unwrap() {
            assert!(pair.lost.is_empty(), "{pair:?}");
        }
    });
}

#[test]
fn an_agent_that_starts_meanwhile_wins_and_what_a_killed_guard_has_left_is_put_right() {
    on_two_nodes(&settings(Backend::Vxlan), |cluster| {
        let one = &mut cluster.nodes_mut()[0];
        let before = programs(one);
        let mut live = Live::start(one, "");
        let telling = programs(one);
        one.stop_agent().unwrap();
        one.start_agent().unwrap();
        one.wait_ready().unwrap();
        assert_eq!(live.0.wait(LIMIT).unwrap().code(), Some(1));
        assert!(live.0.log().contains("an agent has attached its programs anew"), "{}", live.0.log());
        let are_the_agents = |node: &Node, others: &[&BTreeSet<u32>]| {
            let now = programs(node);
            others.iter().all(|others| now.is_disjoint(others))
        };
        wait_until("the agent's programs to be everywhere", LIMIT, || are_the_agents(one, &[&before, &telling]))
            .unwrap();

        let left = Live::start(one, "");
        let telling = programs(one);
        let pid = Pid::from_raw(i32::try_from(left.0.pid()).unwrap());
        // Held, so that it does not see the end of its guard before its own.
        kill(pid, Signal::SIGSTOP).unwrap();
        kill(guard(&left), Signal::SIGKILL).unwrap();
        drop(left);
        assert_eq!(programs(one), telling);
        let mut next = Live::start(one, "");
        let telling_next = programs(one);
        assert_eq!(next.end(Signal::SIGTERM), Some(0));
        assert!(are_the_agents(one, &[&telling, &telling_next]), "programs that tell are left");

        let mut last = Live::start(one, "");
        one.stop_agent().unwrap();
        let teardown = one.overlay().arg("teardown").arg("--run-dir").arg(one.run_dir()).output().unwrap();
        assert!(teardown.status.success(), "{teardown:?}");
        assert_eq!(last.0.wait(LIMIT).unwrap().code(), Some(1));
        assert!(last.0.log().contains("no program is attached"), "{}", last.0.log());
    });
}

#[test]
fn where_filters_hold_the_programs_one_line_says_that_they_stay() {
    let settings = Settings { agent_arguments: vec!["--clsact".to_owned()], ..settings(Backend::Vxlan) };
    on_two_nodes(&settings, |cluster| {
        let output = run(&cluster.nodes()[0], "--live");
        let said = String::from_utf8(output.stderr).expect("text");
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("attached by filters") && said.lines().count() == 1, "{said}");
    });
}
