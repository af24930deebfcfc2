//! A container runtime as small as can be: it runs a chain of CNI plugins, as the specification's section 3 says.

use std::{
    env,
    io::Write as _,
    net::{IpAddr, Ipv4Addr},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use overlay_tests::{cluster::agent_program, families::v4_among, netns::Netns, node::Node};
use serde_json::{Map, Value, json};

/// Where Debian has the CNI project's plugins.
pub(crate) const PLUGINS: &str = "/usr/lib/cni";

/// What a container's first interface is called.
pub(crate) const INTERFACE: &str = "eth0";

/// A plugin's error result.
#[derive(Debug)]
pub(crate) struct CniError {
    pub(crate) plugin: String,
    pub(crate) code: u64,
    pub(crate) result: Value,
}

/// The runtime of one node, and one network of its.
#[derive(Debug)]
pub(crate) struct Runtime<'a> {
    pub(crate) node: &'a Node,
    network: Value,
    path: String,
}

/// A container, connected or not.
#[derive(Debug, Clone)]
pub(crate) struct Pod {
    pub(crate) id: String,
    pub(crate) interface: &'static str,
    /// Its namespace, unless it has ended.
    pub(crate) netns: Option<Netns>,
    /// `portMappings`.
    pub(crate) ports: Value,
    /// The result of the last ADD.
    pub(crate) result: Value,
}

impl Pod {
    /// A container with a namespace, not connected.
    pub(crate) fn new(id: impl Into<String>) -> Self {
        let netns = Some(Netns::new().unwrap());
        Self { id: id.into(), interface: INTERFACE, netns, ports: json!([]), result: Value::Null }
    }

    pub(crate) fn netns(&self) -> &Netns {
        self.netns.as_ref().expect("a container that has not ended")
    }

    /// Its addresses, by the result of ADD.
    pub(crate) fn addresses(&self) -> Vec<IpAddr> {
        let address = |ip: &Value| ip["address"].as_str()?.split('/').next()?.parse().ok();
        let addresses = self.result["ips"].as_array().and_then(|ips| ips.iter().map(address).collect());
        addresses.unwrap_or_else(|| panic!("no addresses in {}", self.result))
    }

    /// Its IPv4 address, by the result of ADD.
    pub(crate) fn address(&self) -> Ipv4Addr {
        v4_among(&self.addresses()).unwrap_or_else(|| panic!("no IPv4 address in {}", self.result))
    }
}

impl<'a> Runtime<'a> {
    /// A runtime that knows the network of the configuration list `network`.
    pub(crate) fn new(node: &'a Node, network: Value) -> Self {
        let ours = ours(&node.run_dir().join("cni-bin"));
        Self { node, network, path: format!("{}:{PLUGINS}", ours.display()) }
    }

    /// Connects `pod`.
    pub(crate) fn add(&self, pod: &mut Pod) -> Result<(), CniError> {
        let mut result = None;
        for plugin in self.plugins() {
            result = Some(self.call("ADD", plugin, pod, result.as_ref())?);
        }
        pod.result = result.expect("a plugin");
        Ok(())
    }

    /// Connects a new container and waits until the agent knows it.
    pub(crate) fn pod(&self, id: &str, ports: Value) -> Pod {
        let mut pod = Pod { ports, ..Pod::new(id) };
        self.add(&mut pod).unwrap();
        pod.addresses().into_iter().for_each(|address| self.node.wait_endpoint(address).unwrap());
        pod
    }

    /// Asks whether `pod` is connected as it was.
    pub(crate) fn check(&self, pod: &Pod) -> Result<(), CniError> {
        if self.network["disableCheck"] == true {
            return Ok(());
        }
        self.plugins().iter().try_for_each(|plugin| self.call("CHECK", plugin, pod, Some(&pod.result)).map(drop))
    }

    /// Disconnects `pod`.
    pub(crate) fn del(&self, pod: &Pod) -> Result<(), CniError> {
        self.plugins().iter().rev().try_for_each(|plugin| self.call("DEL", plugin, pod, Some(&pod.result)).map(drop))
    }

    fn plugins(&self) -> &Vec<Value> {
        self.network["plugins"].as_array().expect("a list of plugins")
    }

    fn call(&self, command: &str, plugin: &Value, pod: &Pod, previous: Option<&Value>) -> Result<Value, CniError> {
        let name = plugin["type"].as_str().expect("a plugin's type");
        let netns = pod.netns.as_ref().map(|netns| netns.path().display().to_string()).unwrap_or_default();
        let mut call = self.node.netns().command(find(name, &self.path));
        call.env("CNI_COMMAND", command).env("CNI_CONTAINERID", &pod.id).env("CNI_NETNS", netns);
        call.env("CNI_IFNAME", pod.interface).env("CNI_PATH", &self.path);
        call.env("CNI_ARGS", format!("IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME={}", pod.id));
        let output = run(&mut call, &self.request(plugin, pod, previous).to_string());
        let said = String::from_utf8_lossy(&output.stdout);
        if output.status.success() {
            return Ok(serde_json::from_str(&said).unwrap_or(Value::Null));
        }
        let result: Value = serde_json::from_str(&said)
            .unwrap_or_else(|_| panic!("{name} {command}: no error result but {said:?}, {output:?}"));
        let code = result["code"].as_u64().unwrap_or_else(|| panic!("{name} {command}: no code in {result}"));
        Err(CniError { plugin: name.to_owned(), code, result })
    }

    /// The configuration for one plugin.
    fn request(&self, plugin: &Value, pod: &Pod, previous: Option<&Value>) -> Value {
        let mut request: Map<String, Value> = plugin.as_object().expect("a plugin's configuration").clone();
        let can_map = request.remove("capabilities").is_some_and(|can| can["portMappings"] == true);
        if can_map {
            request.insert("runtimeConfig".to_owned(), json!({"portMappings": pod.ports}));
        }
        if let Some(previous) = previous.filter(|previous| !previous.is_null()) {
            request.insert("prevResult".to_owned(), previous.clone());
        }
        for key in ["cniVersion", "name"] {
            request.insert(key.to_owned(), self.network[key].clone());
        }
        request.into()
    }
}

/// A directory for `CNI_PATH` where our program is a plugin.
pub(crate) fn ours(directory: &Path) -> PathBuf {
    std::fs::create_dir_all(directory).unwrap();
    let plugin = directory.join("overlay-cni");
    if !plugin.exists() {
        symlink(agent_program().unwrap(), plugin).unwrap();
    }
    directory.to_owned()
}

/// Runs a plugin with `input` on its standard input.
pub(crate) fn run(command: &mut Command, input: &str) -> Output {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("start {command:?}: {error}"));
    // One that fails early does not read it.
    child.stdin.take().expect("its standard input").write_all(input.as_bytes()).ok();
    child.wait_with_output().unwrap()
}

fn find(plugin: &str, path: &str) -> PathBuf {
    let found = env::split_paths(path).map(|directory| directory.join(plugin)).find(|program| program.exists());
    found.unwrap_or_else(|| panic!("no CNI plugin {plugin} in {path}: `cargo xtask setup` installs Debian's"))
}
