//! The networks that the tests connect containers to: the packaged example, and what flannel's plugin makes of it.

use std::path::PathBuf;

use overlay_tests::node::Node;
use serde_json::{Value, json};

use crate::runtime::Runtime;

/// The configuration list that is packaged.
const EXAMPLE: &str = include_str!("../../packaging/cni/10-overlay.conflist");

/// Who writes the configuration of the plugin that connects containers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Writer {
    /// `overlay cni`, from the packaged example.
    Overlay,
    /// The test, as flannel's plugin would from our `subnet.env`.
    Test,
}

pub(crate) const WRITERS: [Writer; 2] = [Writer::Overlay, Writer::Test];

/// How containers are connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Delegate {
    Bridge,
    Ptp,
}

/// A runtime on `node` that connects containers by `delegate`.
pub(crate) fn runtime(node: &Node, writer: Writer, delegate: Delegate) -> Runtime<'_> {
    Runtime::new(
        node,
        match writer {
            Writer::Overlay => example(node, delegate),
            Writer::Test => generated(node, delegate),
        },
    )
}

/// The packaged example with the paths of this node, which has no machine of its own.
fn example(node: &Node, delegate: Delegate) -> Value {
    let mut list: Value = serde_json::from_str(EXAMPLE).unwrap();
    let ours = &mut list["plugins"][0];
    assert_eq!(ours["type"], "overlay-cni");
    ours["subnetFile"] = json!(node.subnet_file());
    ours["dataDir"] = json!(saved(node));
    ours["ipam"] = json!({"dataDir": reserved(node)});
    if delegate == Delegate::Ptp {
        ours["delegate"] = json!({"type": "ptp"});
        // A bridge makes these of isDefaultGateway.
        ours["ipam"]["routes"] = routes(defaults(node));
    }
    list
}

/// What flannel's plugin runs for the packaged example.
fn generated(node: &Node, delegate: Delegate) -> Value {
    let subnet = node.subnet();
    let ranges: Vec<_> = subnet.networks().map(|range| json!([{"subnet": range}])).collect();
    let ipam =
        |routes: Value| json!({"type": "host-local", "ranges": ranges, "routes": routes, "dataDir": reserved(node)});
    let networks = subnet.subnets.iter().map(|subnet| subnet.network.to_string());
    let connect = match delegate {
        Delegate::Bridge => json!({
            "type": "bridge", "hairpinMode": true, "isDefaultGateway": true, "isGateway": true,
            "ipMasq": !subnet.ip_masq, "mtu": subnet.mtu, "ipam": ipam(routes(networks)),
        }),
        Delegate::Ptp => json!({
            "type": "ptp", "ipMasq": !subnet.ip_masq, "mtu": subnet.mtu,
            "ipam": ipam(routes(defaults(node).chain(networks))),
        }),
    };
    // Plugins before 1.3 miss routes that have no gateway of their own, as flannel's have none; its plugin checks nothing.
    let map_ports = json!({"type": "portmap", "capabilities": {"portMappings": true}});
    json!({"cniVersion": "1.0.0", "name": "overlay", "disableCheck": true, "plugins": [connect, map_ports]})
}

/// The default routes of the families that the node's containers have.
fn defaults(node: &Node) -> impl Iterator<Item = String> {
    let default = |is_ipv4| if is_ipv4 { "0.0.0.0/0" } else { "::/0" }.to_owned();
    node.subnet().subnets.iter().map(move |subnet| default(subnet.network.is_ipv4()))
}

/// host-local's `routes`.
fn routes(destinations: impl Iterator<Item = String>) -> Value {
    destinations.map(|destination| json!({"dst": destination})).collect()
}

/// Where `overlay cni` keeps configurations.
pub(crate) fn saved(node: &Node) -> PathBuf {
    node.run_dir().join("cni/flannel")
}

/// Where host-local keeps addresses.
pub(crate) fn reserved(node: &Node) -> PathBuf {
    node.run_dir().join("cni/networks")
}
