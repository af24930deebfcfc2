//! What the tests share: two nodes with Docker, and a way to say what was tried.

use std::{fmt, net::Ipv4Addr, time::Duration};

pub(crate) use overlay_tests::cluster::Backend;
use overlay_tests::{
    cluster::{Cluster, Settings},
    docker::{self, Docker, DockerContainer},
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
    with_docker(|| test(&Ground::new(backend)));
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
    node.netns().sysctl("net.ipv4.ip_forward", "0").unwrap();
    let docker = Docker::start(node).unwrap();
    let forward = forward_chain(node);
    assert!(forward.starts_with("-P FORWARD DROP\n"), "{forward}");
    docker
}

/// iptables' chain of what `node` forwards.
fn forward_chain(node: &Node) -> String {
    output(node.netns().command("iptables").args(["-S", "FORWARD"])).unwrap()
}

impl Ground {
    fn new(backend: Backend) -> Self {
        let settings = settings(backend);
        let mut cluster = Cluster::new(&settings).unwrap();
        cluster.write_config(&settings.network_config()).unwrap();
        cluster.nodes_mut().iter_mut().for_each(|node| node.start_agent().unwrap());
        for node in cluster.nodes_mut() {
            node.wait_ready().unwrap();
        }
        cluster.wait_converged().unwrap();
        let [one, two] = cluster.nodes() else { panic!("not two nodes") };
        let dockers = [start_docker(one), start_docker(two)];
        // Until then Docker's policy drops what comes from the other node.
        for node in [one, two] {
            wait_until("the agent to accept overlay traffic", LIMIT, || {
                forward_chain(node).contains("-A FORWARD -j DOCKER-USER\n-A FORWARD -j OVERLAY-FORWARD-")
            })
            .unwrap();
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

/// From one container to the other.
pub(crate) fn flow(from: &DockerContainer, to: &DockerContainer) -> Flow {
    let (from, to) = (&from.container, &to.container);
    Flow::new(&from.netns, &to.netns, to.v4())
}

/// Asks and answers `count` times over UDP, from another port each time, as with DNS. Fails when anything is lost.
#[track_caller]
pub(crate) fn dns(flow: &Flow, count: u32) {
    for number in 0..count {
        let size = DNS_SIZES[number as usize % DNS_SIZES.len()];
        assert_eq!(flow.udp_echo(1, size).unwrap(), 1, "query {number} to {}", flow.address);
    }
}
