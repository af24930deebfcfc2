//! What the tests share: the command, and what it prints.

use std::{
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    process::Output,
};

use overlay_tests::node::Node;
pub(crate) use overlay_tests::{
    cluster::Backend,
    for_either_backend,
    two_nodes::{LIMIT, on_two_nodes, settings, two},
};
use serde_json::Value;

/// What `overlay trace` has printed with `-o json`, and whether it has exited with 0.
#[derive(Debug)]
pub(crate) struct Traced {
    pub(crate) report: Value,
    pub(crate) success: bool,
}

impl Traced {
    /// Traces a packet on `node`; `options` as on the command line.
    pub(crate) fn on(node: &Node, source: Ipv4Addr, destination: Ipv4Addr, options: &str) -> Self {
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

/// What all maps of `node` hold, but for the memory of the way to the next hop, which the kernel's own packets change.
pub(crate) fn maps(node: &Node) -> Vec<String> {
    let dump = |name: &&str| {
        let mut command = node.overlay();
        command.args(["map", "dump", name, "-o", "json", "--run-dir"]).arg(node.run_dir());
        let output = command.output().expect("run overlay map dump");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).expect("text")
    };
    overlay_user::maps::NAMES.iter().filter(|name| **name != "NEIGHBOURS").map(dump).collect()
}

/// A UDP socket in the container of `node`.
pub(crate) fn udp_socket(node: &Node) -> UdpSocket {
    let container = node.container();
    let socket = container.netns.run(|| UdpSocket::bind((container.v4(), 0))).expect("a socket in a container");
    socket.set_read_timeout(Some(LIMIT)).expect("a time limit");
    socket
}

/// Where a socket receives.
pub(crate) fn end(socket: &UdpSocket) -> (Ipv4Addr, u16) {
    let SocketAddr::V4(address) = socket.local_addr().expect("an address") else { panic!("not IPv4") };
    (*address.ip(), address.port())
}

/// A packet from `near` to `far`, and one back.
pub(crate) fn exchange(near: &UdpSocket, far: &UdpSocket) {
    for (from, to) in [(near, far), (far, near)] {
        from.send_to(b"packet", end(to)).expect("send");
        to.recv(&mut [0; 16]).expect("receive");
    }
}
