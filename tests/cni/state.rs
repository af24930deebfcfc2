//! What a container may leave behind on its node.

use std::{collections::BTreeSet, fs, net::IpAddr, path::Path, time::Duration};

use overlay_tests::{
    node::Node,
    process::{output, wait_until},
};

use serde_json::Value;

use crate::{
    networks::{reserved, saved},
    runtime::Runtime,
};

const LIMIT: Duration = Duration::from_secs(20);

/// Everything on a node that belongs to containers.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct State {
    devices: BTreeSet<String>,
    /// Attached programs, as the agent has pinned them.
    links: BTreeSet<String>,
    /// Entries of ENDPOINTS.
    endpoints: BTreeSet<IpAddr>,
    /// Addresses that host-local has given away.
    reserved: BTreeSet<IpAddr>,
    /// Configurations that `overlay cni` keeps.
    pub(crate) saved: BTreeSet<String>,
    /// Routes to single containers.
    routes: BTreeSet<String>,
    /// Rules of portmap and of plugins that masquerade.
    pub(crate) nat: String,
}

impl State {
    pub(crate) fn of(node: &Node) -> Self {
        let netns = node.netns();
        let lines = |text: String| text.lines().map(str::to_owned).collect::<BTreeSet<_>>();
        let device = |line: String| line.split([' ', '@']).next().unwrap_or_default().to_owned();
        let nat = |program| output(netns.command(program).args(["-t", "nat"])).unwrap();
        let nat = nat("iptables-save") + &nat("ip6tables-save");
        let counters = node.counters();
        let ipv4 = counters.endpoints_of::<[u8; 4]>().unwrap().into_keys().map(IpAddr::from);
        let ipv6 = counters.endpoints_of::<[u8; 16]>().unwrap().into_keys().map(IpAddr::from);
        Self {
            devices: lines(netns.ip("-br link").unwrap()).into_iter().map(device).collect(),
            links: names(&node.run_dir().join("bpf/v1/links")),
            endpoints: ipv4.chain(ipv6).collect(),
            reserved: names(&reserved(node).join("overlay")).iter().filter_map(|name| name.parse().ok()).collect(),
            saved: names(&saved(node)),
            routes: lines(netns.ip("-4 route show scope host").unwrap() + &netns.ip("-6 route show").unwrap())
                .into_iter()
                .filter(|route| route.split(' ').next().is_some_and(|to| !to.contains('/')))
                .collect(),
            nat: nat.lines().filter(|line| line.starts_with("-A")).collect::<Vec<_>>().join("\n"),
        }
    }

    /// The state of `runtime`'s node after its first container has come and gone: that leaves a bridge, and portmap's
    /// chains if it had `ports`.
    pub(crate) fn after_first(runtime: &Runtime<'_>, ports: &Value) -> Self {
        runtime.del(&runtime.pod("first", ports.clone())).unwrap();
        let state = Self::of(runtime.node);
        assert!(state.reserved.is_empty() && state.saved.is_empty(), "{state:#?}");
        state
    }

    /// Waits until `node` is in this state again.
    #[track_caller]
    pub(crate) fn wait(&self, node: &Node, when: &str) {
        wait_until("nothing to be left", LIMIT, || State::of(node) == *self)
            .unwrap_or_else(|error| panic!("{when}: {error}: {:#?}, not {self:#?}", State::of(node)));
    }
}

/// The names in a directory, none if there is no such.
fn names(directory: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(directory).into_iter().flatten();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}
