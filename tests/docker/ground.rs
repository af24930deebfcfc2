//! What the tests share: two nodes with Docker, and a way to say what was tried.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

pub(crate) use overlay_tests::cluster::Backend;
use overlay_tests::{
    cluster::{Cluster, Settings},
    docker::{self, Docker, DockerContainer},
    families::Families,
    netns::Netns,
    node::Node,
    process::{output, wait_until},
    sandbox::isolated,
    traffic::Flow,
};

/// How long something that must happen may take.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);

/// What DNS queries and answers are as long as, in bytes.
const DNS_SIZES: [usize; 3] = [40, 120, 512];

/// Two nodes with an agent and a dockerd each.
pub(crate) struct Ground {
    // Before the nodes' files.
    pub(crate) dockers: [Docker; 2],
    pub(crate) cluster: Cluster,
}

/// Runs `test` on two nodes with an agent and a dockerd each.
pub(crate) fn on_two_dockers(backend: Backend, test: impl FnOnce(&Ground) + Send) {
    with_docker(|| test(&Ground::new(&settings(backend), &[])));
}

/// The same with containers of `families`, where Docker has rules for IPv6 as well, as it has by itself from version 27 on.
pub(crate) fn on_two_dockers_with(families: Families, test: impl FnOnce(&Ground) + Send) {
    let settings = Settings { overlay: families, underlay: families, ..settings(Backend::Vxlan) };
    with_docker(|| test(&Ground::new(&settings, &["--experimental", "--ip6tables"])));
}

/// Runs `test` in a sandbox, or says that there is no Docker.
pub(crate) fn with_docker(test: impl FnOnce() + Send) {
    match docker::missing() {
        None => isolated(test),
        Some(reason) => report(format_args!("NOT RUN, a test with Docker: {reason}")),
    }
}

/// Prints a line on what was tried.
pub(crate) fn report(line: impl fmt::Display) {
    overlay_tests::report::report(format_args!("docker: {line}"));
}

/// Settings of the clusters here.
pub(crate) fn settings(backend: Backend) -> Settings {
    Settings { backend, agent_arguments: vec!["--ip-masq".to_owned()], ..Settings::default() }
}

/// Starts dockerd on a node that does not forward yet: then Docker switches forwarding on, and sets the policy of FORWARD
/// to DROP.
pub(crate) fn start_docker(node: &Node) -> Docker {
    start_docker_with(node, &[])
}

fn start_docker_with(node: &Node, options: &[&str]) -> Docker {
    node.netns().sysctl("net.ipv4.ip_forward", "0").unwrap();
    let docker = Docker::start_with(node, options).unwrap();
    let drops = |program| chain(node, program, "FORWARD").starts_with("-P FORWARD DROP\n");
    assert!(drops("iptables"));
    assert_eq!(drops("ip6tables"), options.contains(&"--ip6tables"));
    docker
}

/// A chain of the table `filter` on `node`, by iptables or ip6tables.
fn chain(node: &Node, program: &str, name: &str) -> String {
    output(node.netns().command(program).args(["-S", name])).unwrap()
}

impl Ground {
    fn new(settings: &Settings, options: &[&str]) -> Self {
        let mut cluster = Cluster::new(settings).unwrap();
        cluster.bring_up_agents(&settings.network_config()).unwrap();
        let [one, two] = cluster.nodes() else { panic!("not two nodes") };
        let dockers = [one, two].map(|node| start_docker_with(node, options));
        // Until then Docker's policy drops what comes from the other node.
        let rules = settings.overlay.of(
            ("iptables", "-A FORWARD -j DOCKER-USER\n-A FORWARD -j OVERLAY-FORWARD-"),
            // Docker 20.10 has no such chain for IPv6.
            ("ip6tables", "-A FORWARD -j OVERLAY-FORWARD-"),
        );
        for node in [one, two] {
            let accepts = |(program, rule): &(&str, &str)| chain(node, program, "FORWARD").contains(rule);
            wait_until("the agent to accept overlay traffic", LIMIT, || rules.iter().all(accepts)).unwrap();
        }
        Self { dockers, cluster }
    }

    pub(crate) fn nodes(&self) -> [&Node; 2] {
        let [one, two] = self.cluster.nodes() else { panic!("not two nodes") };
        [one, two]
    }

    /// A container on each node.
    pub(crate) fn containers(&self) -> [DockerContainer; 2] {
        [self.dockers[0].run("here", "").unwrap(), self.dockers[1].run("there", "").unwrap()]
    }

    /// A machine on the underlay that knows nothing of the overlay.
    pub(crate) fn outsider(&self) -> (Netns, Ipv4Addr) {
        self.cluster.attach("outsider", 77).unwrap()
    }
}

/// From one container to the other, over IPv4.
pub(crate) fn flow(from: &DockerContainer, to: &DockerContainer) -> Flow {
    flow_to(from, to, to.container.v4())
}

/// From one container to the `address` of the other.
pub(crate) fn flow_to(from: &DockerContainer, to: &DockerContainer, address: impl Into<IpAddr>) -> Flow {
    Flow::new(&from.container.netns, &to.container.netns, address)
}

/// Asks and answers `count` times over UDP, from another port each time, as with DNS. Fails when anything is lost.
#[track_caller]
pub(crate) fn dns(flow: &Flow, count: u32) {
    for number in 0..count {
        let size = DNS_SIZES[number as usize % DNS_SIZES.len()];
        assert_eq!(flow.udp_echo(1, size).unwrap(), 1, "query {number} to {}", flow.address);
    }
}
