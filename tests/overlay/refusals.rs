//! What an agent refuses: with one line that says why, exit code 1, and the node as it was.

use std::{
    fs,
    net::UdpSocket,
    process::{Command, ExitStatus},
    time::Duration,
};

use overlay_tests::{
    cluster::{Backend, Cluster, Settings},
    netns::Netns,
    node::UNDERLAY_DEVICE,
    process::Process,
    sandbox::{isolated, scratch},
    snapshot::Snapshot,
};

/// Refusing is quick; only a datastore that does not answer is given some time.
const LIMIT: Duration = Duration::from_secs(60);

/// A node without an agent, and etcd without a network config.
pub(crate) fn one_node() -> Cluster {
    Cluster::new(&Settings { nodes: 1, ..Settings::default() }).unwrap()
}

/// Runs an agent that is to refuse, and returns the line it did so with.
#[track_caller]
pub(crate) fn refusal(cluster: &Cluster, command: Command) -> String {
    let node = &cluster.nodes()[0];
    let before = Snapshot::of(cluster, node);
    let directory = tempfile::tempdir_in(scratch()).unwrap();
    let mut agent = Process::spawn("the agent", command, &directory.path().join("log")).unwrap();
    let status: ExitStatus = agent.wait(LIMIT).unwrap();
    let said = agent.log();
    assert_eq!(status.code(), Some(1), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    before.assert_same(&Snapshot::of(cluster, node), &said);
    said.trim_end().to_owned()
}

fn agent(cluster: &Cluster) -> Command {
    cluster.nodes()[0].agent_command()
}

fn agent_with(cluster: &Cluster, interface: &str, endpoints: &str) -> Command {
    let node = &cluster.nodes()[0];
    let mut command = node.overlay();
    command.args(["agent", "--iface", interface, "--etcd-endpoints", endpoints]);
    command.arg("--run-dir").arg(node.run_dir()).arg("--subnet-file").arg(node.subnet_file());
    command
}

#[track_caller]
pub(crate) fn assert_names(said: &str, words: &[&str]) {
    for word in words {
        assert!(said.contains(word), "no {word:?} in: {said}");
    }
}

#[test]
fn a_run_directory_where_another_agent_runs() {
    isolated(|| {
        let mut cluster = Cluster::start(&Settings { nodes: 1, ..Settings::default() }).unwrap();
        let pid = cluster.nodes_mut()[0].agent().pid();
        let said = refusal(&cluster, agent(&cluster));
        assert_names(&said, &[&format!("another agent (pid {pid}) runs in"), "--run-dir"]);
    });
}

#[test]
fn a_device_that_an_agent_with_another_run_directory_has_made() {
    isolated(|| {
        let settings = Settings { nodes: 1, backend: Backend::Vxlan, ..Settings::default() };
        let mut cluster = Cluster::start(&settings).unwrap();
        for agent_is_dead in [false, true] {
            if agent_is_dead {
                cluster.nodes_mut()[0].agent().kill().unwrap();
            }
            let other = tempfile::tempdir_in(scratch()).unwrap();
            let mut command = cluster.nodes()[0].overlay();
            command.args(["agent", "--iface", UNDERLAY_DEVICE]).args(cluster.datastore_arguments());
            command.arg("--run-dir").arg(other.path()).arg("--subnet-file").arg(other.path().join("subnet.env"));
            let said = refusal(&cluster, command);
            assert_names(&said, &["overlay.1 exists", "--run-dir", "`ip link del overlay.1`"]);
        }
    });
}

#[test]
fn a_missing_network_config() {
    isolated(|| {
        let cluster = one_node();
        let said = refusal(&cluster, agent(&cluster));
        assert_names(&said, &["no network config"]);
    });
}

#[test]
fn a_malformed_network_config() {
    isolated(|| {
        let cluster = one_node();
        let cases: [(&str, &[&str]); 7] = [
            ("", &["config"]),
            ("{\"Network\":", &["config"]),
            ("{}", &["Network"]),
            (r#"{"Network":"10.1.0.0/99"}"#, &["Network", "10.1.0.0/99"]),
            (r#"{"Network":"10.1.0.0/16","SubnetLen":12}"#, &["SubnetLen", "12"]),
            (r#"{"Network":"10.1.0.0/16","Backend":{"Type":"pigeon"}}"#, &["Type", "pigeon"]),
            (
                r#"{"Network":"10.1.0.0/16","EnableIPv6":true,"IPv6Network":"fd00::/48"}"#,
                &["EnableIPv6", "udp", "vxlan"],
            ),
        ];
        for (config, words) in cases {
            cluster.write_config(config).unwrap();
            assert_names(&refusal(&cluster, agent(&cluster)), words);
        }
    });
}

#[test]
fn ipv6_that_has_no_room() {
    isolated(|| {
        let cluster = one_node();
        let ipv6 = r#""EnableIPv6":true,"IPv6Network":"fd00:1::/48","Backend":{"Type":"vxlan"}"#;
        cluster.write_config(&format!(r#"{{"Network":"10.1.0.0/16",{ipv6}}}"#)).unwrap();
        cluster.nodes()[0].netns().ip("link set dev eth0 mtu 1329").unwrap();
        assert_names(&refusal(&cluster, agent(&cluster)), &["eth0", "1329", "1280", "1330"]);
        cluster.nodes()[0].netns().ip("link set dev eth0 mtu 1500").unwrap();
        cluster.write_config(&format!(r#"{{"EnableIPv4":false,{ipv6}}}"#)).unwrap();
        let public = refusal(&cluster, {
            let mut command = agent(&cluster);
            command.args(["--public-ipv6", "fd50::9"]);
            command
        });
        assert_names(&public, &["eth0", "no usable IPv6 address", "--public-ipv6 fd50::9"]);
    });
}

#[test]
fn a_network_that_the_underlay_is_in() {
    isolated(|| {
        let cluster = one_node();
        cluster.write_config(r#"{"Network":"192.168.0.0/16"}"#).unwrap();
        assert_names(&refusal(&cluster, agent(&cluster)), &["192.168.0.0/16", "192.168.50.1"]);
    });
}

#[test]
fn an_underlay_that_is_the_containers_bridge() {
    isolated(|| {
        let cluster = one_node();
        cluster.write_config(r#"{"Network":"10.1.0.0/16"}"#).unwrap();
        let node = cluster.nodes()[0].netns();
        // A veth, since a bridge has timers that show in its state.
        let peer = Netns::new().unwrap();
        node.veth("docker0", &peer, "eth0", 1500).unwrap();
        // Of two addresses, the one that the choice would take lies outside.
        node.ip("address add 172.17.0.1/16 dev docker0").unwrap();
        node.ip("address add 10.1.15.1/24 dev docker0").unwrap();
        let said = refusal(&cluster, agent_with(&cluster, "docker0", &cluster.etcd().endpoint()));
        assert_names(&said, &["docker0", "10.1.15.1", "10.1.0.0/16", "--iface"]);
    });
}

#[test]
fn a_network_without_a_free_subnet() {
    isolated(|| {
        let cluster = one_node();
        cluster.write_config(r#"{"Network":"10.1.0.0/22","SubnetLen":24}"#).unwrap();
        for subnet in 1..4 {
            let key = format!("/coreos.com/network/subnets/10.1.{subnet}.0-24");
            cluster.etcd().put(&key, r#"{"PublicIP":"192.168.50.99","PublicIPv6":null}"#).unwrap();
        }
        assert_names(&refusal(&cluster, agent(&cluster)), &["10.1.0.0/22"]);
    });
}

#[test]
fn a_subnet_file_that_could_not_be_written_before_a_lease_is_taken() {
    isolated(|| {
        let cluster = one_node();
        cluster.write_config(r#"{"Network":"10.1.0.0/16"}"#).unwrap();
        let file = scratch().join("file");
        fs::write(&file, "").unwrap();
        for place in [file.join("subnet.env"), scratch()] {
            let mut command = agent(&cluster);
            // The later of two counts.
            command.arg("--subnet-file").arg(&place);
            assert_names(&refusal(&cluster, command), &["write subnet file", place.to_str().unwrap()]);
        }
    });
}

#[test]
fn an_etcd_that_nobody_answers_for() {
    isolated(|| {
        let cluster = one_node();
        // Nobody has the first address; on the second nobody listens.
        for endpoint in ["http://192.168.50.77:2379", "http://192.168.50.254:1"] {
            let said = refusal(&cluster, agent_with(&cluster, UNDERLAY_DEVICE, endpoint));
            assert_names(&said, &[endpoint]);
        }
    });
}

#[test]
fn an_interface_that_does_not_exist() {
    isolated(|| {
        let cluster = one_node();
        cluster.write_config(&Settings::default().network_config()).unwrap();
        let said = refusal(&cluster, agent_with(&cluster, "nosuch0", &cluster.etcd().endpoint()));
        assert_names(&said, &["nosuch0"]);
    });
}

#[test]
fn a_port_that_somebody_has() {
    isolated(|| {
        let cluster = one_node();
        for (kind, port) in [("udp", 8285), ("vxlan", 8472)] {
            cluster.write_config(&format!(r#"{{"Network":"10.1.0.0/16","Backend":{{"Type":"{kind}"}}}}"#)).unwrap();
            let holder = cluster.nodes()[0].netns().run(|| UdpSocket::bind(("0.0.0.0", port))).unwrap();
            assert_names(&refusal(&cluster, agent(&cluster)), &[&port.to_string()]);
            drop(holder);
        }
    });
}

#[test]
fn a_user_who_is_not_root() {
    isolated(|| {
        let cluster = one_node();
        cluster.write_config(&Settings::default().network_config()).unwrap();
        let node = &cluster.nodes()[0];
        // Where cargo put it, others may not be able to reach it.
        let program = scratch().join("overlay");
        fs::copy(node.overlay().get_program(), &program).unwrap();
        let mut command = node.netns().command("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(program);
        command.args(node.agent_command().get_args());
        assert_names(&refusal(&cluster, command), &["root"]);
    });
}
