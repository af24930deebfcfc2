//! `/metrics`: what the maps hold, under names that Prometheus' own tools accept.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    process::{Command, Stdio},
    time::{SystemTime, UNIX_EPOCH},
};

use overlay_common::Reason;
use overlay_tests::{
    cluster::{Backend, Settings},
    node::Node,
    process::wait_until,
    traffic::ping,
    two_nodes::{LIMIT, flow, on_two_nodes, settings, two},
};

/// Health checks and metrics on one address, the same in every node's namespace.
const ADDRESS: &str = "127.0.0.1:9469";

/// What Prometheus gets from a node: samples, each a name with labels and a value.
pub(crate) struct Scrape(String);

impl Scrape {
    /// Asks the agent of a node.
    pub(crate) fn of(node: &Node) -> Self {
        let (status, body) = get(node, "/metrics");
        assert_eq!(status, 200, "{body}");
        Self(body)
    }

    pub(crate) fn text(&self) -> &str {
        &self.0
    }

    /// How many packets were dropped for `reason`, whose sample says that in words.
    #[track_caller]
    pub(crate) fn drops(&self, reason: Reason) -> f64 {
        let words = format!("words=\"{}\"", reason.text());
        self.value("overlay_drops_total", &[&format!("reason=\"{reason:?}\""), &words])
    }

    /// The value of the one sample whose name is `name` and that has all of `labels`.
    #[track_caller]
    pub(crate) fn value(&self, name: &str, labels: &[&str]) -> f64 {
        let has = |line: &&str| {
            line.split(['{', ' ']).next() == Some(name) && labels.iter().all(|label| line.contains(label))
        };
        let found: Vec<_> = self.0.lines().filter(has).collect();
        let [sample] = found[..] else { panic!("{name} {labels:?}: {found:?} in\n{}", self.0) };
        sample.rsplit(' ').next().unwrap().parse().unwrap()
    }
}

/// Settings of two nodes that can be scraped.
pub(crate) fn scraped() -> Settings {
    let (ip, port) = ADDRESS.split_once(':').unwrap();
    let arguments = ["--metrics-addr", ADDRESS, "--healthz-ip", ip, "--healthz-port", port];
    Settings { agent_arguments: arguments.map(str::to_owned).to_vec(), ..settings(Backend::Vxlan) }
}

pub(crate) fn get(node: &Node, path: &str) -> (u16, String) {
    let answer = node.netns().run(|| {
        let mut stream = TcpStream::connect(ADDRESS).unwrap();
        write!(stream, "GET {path} HTTP/1.0\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    });
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

#[test]
fn counts_are_those_of_the_maps() {
    on_two_nodes(&scraped(), |cluster| {
        let [one, two] = two(cluster);
        let engaged = || {
            flow(one, two).udp_echo(100, 64).unwrap();
            !one.counters().flows().unwrap().is_empty()
        };
        wait_until("the fast path", LIMIT, engaged).unwrap();
        // Nobody leases it.
        assert_eq!(ping(&one.container().netns, [10, 1, 254, 1], 1).unwrap().received, 0);

        let scrape = Scrape::of(one);
        let traffic = one.counters().traffic(two.subnet().subnet()).unwrap();
        let (subnet, node) =
            (format!("subnet=\"{}/24\"", two.subnet().subnet()), format!("node=\"{}\"", two.address()));
        for (name, count) in [
            ("overlay_encap_packets_total", traffic.encap_packets),
            ("overlay_encap_bytes_total", traffic.encap_bytes),
            ("overlay_encap_fast_packets_total", traffic.encap_fast_packets),
            ("overlay_decap_packets_total", traffic.decap_packets),
            ("overlay_decap_bytes_total", traffic.decap_bytes),
            ("overlay_decap_fast_packets_total", traffic.decap_fast_packets),
        ] {
            assert_eq!(scrape.value(name, &[&subnet, &node]), count as f64, "{name}");
        }
        assert!(traffic.encap_fast_packets > 0);
        for reason in Reason::ALL {
            let counted = one.counters().drops().unwrap();
            let counted = counted.iter().find(|(of, _)| *of == reason).map_or(0, |(_, count)| *count);
            assert_eq!(scrape.drops(reason), counted as f64, "{reason:?}");
        }
        assert!(scrape.drops(Reason::NoRoute) > 0.0);
        for (map, entries) in
            [("ROUTES", 1), ("NODES", 1), ("TRAFFIC", 1), ("FLOWS", one.counters().flows().unwrap().len())]
        {
            let map = format!("map=\"{map}\"");
            assert_eq!(scrape.value("overlay_map_entries", &[&map]), entries as f64, "{map}");
            assert_eq!(scrape.value("overlay_map_max_entries", &[&map]), 65_536.0);
        }
    });
}

#[test]
fn what_the_agent_knows_of_itself_is_told() {
    on_two_nodes(&scraped(), |cluster| {
        let [one, _] = two(cluster);
        let scrape = Scrape::of(one);
        for (name, value) in [
            ("overlay_ready", 1.0),
            ("overlay_data_path_up", 1.0),
            ("overlay_peers", 1.0),
            ("overlay_datastore_up", 1.0),
            ("overlay_datastore_losses_total", 0.0),
        ] {
            assert_eq!(scrape.value(name, &[]), value, "{name}");
        }
        assert_eq!(scrape.value("overlay_build_info", &["version=\"0.1.0\""]), 1.0);
        for (program, interfaces) in
            [("to_overlay", 1.0), ("from_underlay", 1.0), ("admit", 1.0), ("from_container", 1.0), ("xdp_decap", 0.0)]
        {
            let program = format!("program=\"{program}\"");
            assert_eq!(scrape.value("overlay_programs_attached", &[&program]), interfaces, "{program}");
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
        let left = scrape.value("overlay_lease_expiry_timestamp_seconds", &[]) - now;
        assert!((0.0..=86_400.0).contains(&left), "{left}");
        let answered = scrape.value("overlay_datastore_request_duration_seconds_count", &["operation=\"create\""]);
        assert_eq!(answered, 1.0);
        // The same server answers after the agent's health.
        assert_eq!(get(one, "/readyz"), (200, "ready".to_owned()));
        one.netns().ip("link set dev eth0 down").unwrap();
        wait_until("the node not to be ready", LIMIT, || Scrape::of(one).value("overlay_ready", &[]) == 0.0).unwrap();
    });
}

#[test]
fn promtool_has_nothing_to_say() {
    on_two_nodes(&scraped(), |cluster| {
        let [one, _] = two(cluster);
        let mut promtool = Command::new("promtool");
        promtool.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut promtool = promtool.spawn().expect("promtool, of Debian's package prometheus");
        promtool.stdin.take().unwrap().write_all(Scrape::of(one).text().as_bytes()).unwrap();
        let output = promtool.wait_with_output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        assert!(output.status.success() && said.is_empty(), "{}", String::from_utf8_lossy(&said));
    });
}
