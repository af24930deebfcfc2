//! What the tests share: the command, and what it prints.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket},
    process::Output,
};

use ipnetwork::IpNetwork;
pub(crate) use overlay_tests::{
    cluster::Backend,
    for_either_backend,
    two_nodes::{LIMIT, on_two_nodes, settings, two},
};
use overlay_tests::{cluster::Settings, families::Families, node::Node};
use serde_json::Value;

/// What `overlay trace` has printed with `-o json`, and whether it has exited with 0.
#[derive(Debug)]
pub(crate) struct Traced {
    pub(crate) report: Value,
    pub(crate) success: bool,
}

impl Traced {
    /// Traces a packet on `node`; `options` as on the command line.
    pub(crate) fn on(node: &Node, source: impl Into<IpAddr>, destination: impl Into<IpAddr>, options: &str) -> Self {
        let (source, destination) = (source.into(), destination.into());
        Self::by(node, &format!("{source} {destination} {options}"))
    }

    /// Traces what `arguments` say on `node`.
    pub(crate) fn by(node: &Node, arguments: &str) -> Self {
        let output = run(node, &format!("{arguments} -o json"));
        let report = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
        Self { report, success: output.status.success() }
    }

    /// What it says at `place`, a line a step.
    pub(crate) fn at(&self, place: &str) -> String {
        let steps = self.report["steps"].as_array().expect("steps");
        let texts = steps.iter().filter(|step| step["at"] == place).filter_map(|step| step["text"].as_str());
        texts.collect::<Vec<_>>().join("\n")
    }

    /// The names of all reasons that it gives.
    pub(crate) fn reasons(&self) -> Vec<&str> {
        self.report["steps"].as_array().expect("steps").iter().filter_map(|step| step["reason"].as_str()).collect()
    }

    /// The outer headers of the first step that has some.
    pub(crate) fn outer(&self) -> &Value {
        let mut steps = self.report["steps"].as_array().expect("steps").iter();
        steps.find_map(|step| step.get("outer")).unwrap_or_else(|| panic!("no outer headers: {self:?}"))
    }

    pub(crate) fn result(&self) -> &str {
        self.report["result"].as_str().expect("a result")
    }
}

/// Runs `overlay trace` on `node`.
pub(crate) fn run(node: &Node, arguments: &str) -> Output {
    let mut command = node.overlay();
    command.arg("trace").args(arguments.split_whitespace()).arg("--run-dir").arg(node.run_dir());
    command.output().expect("run overlay trace")
}

/// Two nodes with all families that the backend carries, inside and outside.
pub(crate) fn all_families(backend: Backend) -> Settings {
    let families = match backend {
        Backend::Udp => Families::V4,
        Backend::Vxlan => Families::Dual,
    };
    Settings { overlay: families, underlay: families, ..settings(backend) }
}

/// The addresses of both nodes' containers, a pair for each family.
pub(crate) fn pairs(one: &Node, two: &Node) -> Vec<(IpAddr, IpAddr)> {
    let (from, to) = (&one.container().addresses, &two.container().addresses);
    from.iter().copied().zip(to.iter().copied()).collect()
}

/// The address of `node` that tunnels for inner packets of the family of `inner` use, where the underlay has both families.
pub(crate) fn outer_address(node: &Node, inner: IpAddr) -> IpAddr {
    let local = node.counters().local_node().expect("the node as the programs see it");
    match inner {
        IpAddr::V4(_) => local.vtep::<[u8; 4]>().address.into(),
        IpAddr::V6(_) => local.vtep::<[u8; 16]>().address.into(),
    }
}

/// An address in the subnet of `node`, of the family of `like`, that nobody has.
pub(crate) fn nobody(node: &Node, like: IpAddr) -> IpAddr {
    match node.subnet().networks().find(|subnet| subnet.is_ipv4() == like.is_ipv4()) {
        Some(IpNetwork::V4(subnet)) => Ipv4Addr::from_bits(subnet.network().to_bits() + 77).into(),
        Some(IpNetwork::V6(subnet)) => Ipv6Addr::from_bits(subnet.network().to_bits() + 77).into(),
        None => panic!("the node has no subnet of the family of {like}"),
    }
}

/// What all maps of `node` hold, but for what the kernel's own packets change: the memory of the way to the next hop, and, where
/// there is IPv6, how many reports of multicast groups were not carried.
pub(crate) fn maps(node: &Node) -> Vec<String> {
    let dump = |name: &&str| {
        let mut command = node.overlay();
        command.args(["map", "dump", name, "-o", "json", "--run-dir"]).arg(node.run_dir());
        let output = command.output().expect("run overlay map dump");
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8(output.stdout).expect("text");
        text.lines().filter(|line| !line.contains("NotUnicast")).collect::<Vec<_>>().join("\n")
    };
    overlay_user::maps::NAMES.iter().filter(|name| **name != "NEIGHBOURS").map(dump).collect()
}

/// A UDP socket in the container of `node`.
pub(crate) fn udp_socket(node: &Node) -> UdpSocket {
    udp_socket_at(node, node.container().v4().into())
}

/// The same at one of the container's addresses.
pub(crate) fn udp_socket_at(node: &Node, address: IpAddr) -> UdpSocket {
    let container = node.container();
    let socket = container.netns.run(|| UdpSocket::bind((address, 0))).expect("a socket in a container");
    socket.set_read_timeout(Some(LIMIT)).expect("a time limit");
    socket
}

/// Where a socket receives.
pub(crate) fn end(socket: &UdpSocket) -> (IpAddr, u16) {
    let address = socket.local_addr().expect("an address");
    (address.ip(), address.port())
}

/// A packet from `near` to `far`, and one back.
pub(crate) fn exchange(near: &UdpSocket, far: &UdpSocket) {
    for (from, to) in [(near, far), (far, near)] {
        from.send_to(b"packet", end(to)).expect("send");
        to.recv(&mut [0; 16]).expect("receive");
    }
}
