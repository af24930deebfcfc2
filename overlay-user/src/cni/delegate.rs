//! The configuration of the delegate: pure.

use rscni_types::{error::Error, version::SpecVersion};
use serde_json::{Map, Value, json};

use super::request::Config;
use crate::subnet_file::SubnetFile;

/// The plugin that connects containers unless the configuration names another.
const DEFAULT_TYPE: &str = "bridge";

/// The plugin that gives addresses unless the configuration names another.
const HOST_LOCAL: &str = "host-local";

/// What we set in the delegate's configuration, so that nobody else may.
const GENERATED: [&str; 2] = ["name", "ipam"];

/// A delegate's configuration, and its type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Delegate {
    pub(super) plugin: String,
    pub(super) config: Map<String, Value>,
}

impl Delegate {
    /// The delegate for a container of this node's subnet.
    ///
    /// # Errors
    /// When the network configuration asks for what cannot be.
    pub(super) fn new(network: &Config, version: SpecVersion, subnet: &SubnetFile) -> Result<Self, Error> {
        let mut config = network.delegate.clone().unwrap_or_default();
        for key in GENERATED {
            if let Some(value) = config.get(key) {
                let details = format!("delegate.{key} is {value}, but it is generated: remove it");
                return Err(Error::UnsupportedNetworkConfiguration(details));
            }
        }
        let ipam = ipam(network.ipam.clone().unwrap_or_default(), subnet)?;
        config.entry("type").or_insert_with(|| DEFAULT_TYPE.into());
        config.insert("name".to_owned(), json!(network.name));
        config.insert("cniVersion".to_owned(), json!(version));
        config.insert("ipam".to_owned(), ipam.into());
        // Exactly one of agent and plugin must do it.
        config.entry("ipMasq").or_insert_with(|| (!subnet.ip_masq).into());
        config.entry("mtu").or_insert_with(|| subnet.mtu.into());
        if config["type"] == DEFAULT_TYPE {
            config.entry("isGateway").or_insert(true.into());
        }
        if let Some(runtime) = &network.runtime_config {
            config.insert("runtimeConfig".to_owned(), runtime.clone().into());
        }
        let mut delegate = Self::parse(config)?;
        delegate.set_request(network, version);
        Ok(delegate)
    }

    /// A configuration that was kept.
    ///
    /// # Errors
    /// When it names no plugin.
    pub(super) fn parse(config: Map<String, Value>) -> Result<Self, Error> {
        let plugin = match config.get("type") {
            Some(Value::String(plugin)) if !plugin.is_empty() && !plugin.contains('/') => plugin.clone(),
            other => {
                let found = other.unwrap_or(&Value::Null);
                return Err(Error::InvalidNetworkConfig(format!("delegate.type is {found}, not the name of a plugin")));
            }
        };
        Ok(Self { plugin, config })
    }

    /// Puts in what a request has of its own.
    pub(super) fn set_request(&mut self, network: &Config, version: SpecVersion) {
        self.config.insert("cniVersion".to_owned(), json!(version));
        if let Some(result) = &network.prev_result {
            self.config.insert("prevResult".to_owned(), result.clone());
        }
    }

    /// Whether the delegate takes its addresses from this node's subnet.
    pub(super) fn is_of(&self, subnet: &SubnetFile) -> bool {
        self.config.get("ipam").and_then(|ipam| ipam.get("ranges")) == Some(&ranges(subnet))
    }
}

/// `ipam` with this node's subnet, and a route to the overlay network behind those that were given.
fn ipam(mut ipam: Map<String, Value>, subnet: &SubnetFile) -> Result<Map<String, Value>, Error> {
    ipam.entry("type").or_insert_with(|| HOST_LOCAL.into());
    ipam.insert("ranges".to_owned(), ranges(subnet));
    let is_host_local = ipam["type"] == HOST_LOCAL;
    let routes = ipam.entry("routes").or_insert_with(|| json!([]));
    let found = routes.to_string();
    let Some(routes) = routes.as_array_mut() else {
        return Err(Error::InvalidNetworkConfig(format!("ipam.routes is {found}, not a list")));
    };
    for (network, gateway) in subnet.ranges.networks().zip(subnet.gateways()) {
        let mut route = json!({"dst": network});
        if is_host_local {
            // host-local's gateway anyway; but CHECK of plugins before 1.3 finds no route that has none of its own.
            route["gw"] = json!(gateway);
        }
        routes.push(route);
    }
    Ok(ipam)
}

/// host-local's `ranges`: a set for each address that a container gets.
fn ranges(subnet: &SubnetFile) -> Value {
    subnet.ranges.subnets().map(|subnet| json!([{"subnet": subnet}])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::subnet_file::PreviousSubnetFile;

    const VERSION: SpecVersion = SpecVersion::new(1, 0, 0);

    fn subnet() -> SubnetFile {
        read("FLANNEL_NETWORK=10.1.0.0/16\nFLANNEL_SUBNET=10.1.15.1/24\n")
    }

    /// A subnet file with these lines of its families.
    fn read(families: &str) -> SubnetFile {
        let text = format!("{families}FLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n");
        PreviousSubnetFile::parse(&text).try_into().unwrap()
    }

    fn generated(network: Value, subnet: &SubnetFile) -> Result<Value, u32> {
        let network: Config = serde_json::from_value(network).unwrap();
        Delegate::new(&network, VERSION, subnet).map(|delegate| delegate.config.into()).map_err(|error| (&error).into())
    }

    #[test]
    fn the_smallest_configuration_becomes_a_bridge_that_routes_to_the_network() {
        let expected = json!({
            "name": "net", "type": "bridge", "cniVersion": "1.0.0", "mtu": 1450, "ipMasq": false, "isGateway": true,
            "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.1.15.0/24"}]], "routes": [{"dst": "10.1.0.0/16", "gw": "10.1.15.1"}]},
        });
        assert_eq!(generated(json!({"name": "net"}), &subnet()), Ok(expected));
    }

    #[test]
    fn what_the_configuration_says_is_kept() {
        let network = json!({
            "name": "net", "runtimeConfig": {"mac": "02:00:00:00:00:01"}, "prevResult": {"ips": []},
            "delegate": {"type": "ptp", "mtu": 1400, "ipMasq": true, "hairpinMode": true},
            "ipam": {"type": "other", "dataDir": "/x", "routes": [{"dst": "0.0.0.0/0"}]},
        });
        let expected = json!({
            "name": "net", "type": "ptp", "cniVersion": "1.0.0", "mtu": 1400, "ipMasq": true, "hairpinMode": true,
            "runtimeConfig": {"mac": "02:00:00:00:00:01"}, "prevResult": {"ips": []},
            "ipam": {
                "type": "other", "dataDir": "/x", "ranges": [[{"subnet": "10.1.15.0/24"}]],
                "routes": [{"dst": "0.0.0.0/0"}, {"dst": "10.1.0.0/16"}],
            },
        });
        assert_eq!(generated(network, &subnet()), Ok(expected));
    }

    #[test]
    fn a_delegate_masquerades_exactly_when_the_agent_does_not() {
        for ip_masq in [true, false] {
            let config = generated(json!({"name": "net"}), &SubnetFile { ip_masq, ..subnet() }).unwrap();
            assert_eq!(config["ipMasq"], !ip_masq);
        }
    }

    #[test]
    fn a_dual_stack_subnet_gives_two_ranges_and_two_routes() {
        let dual_stack = read(
            "FLANNEL_NETWORK=10.1.0.0/16\nFLANNEL_SUBNET=10.1.15.1/24\n\
             FLANNEL_IPV6_NETWORK=fd00:1::/48\nFLANNEL_IPV6_SUBNET=fd00:1:0:15::1/64\n",
        );
        let config = generated(json!({"name": "net"}), &dual_stack).unwrap();
        let ranges = json!([[{"subnet": "10.1.15.0/24"}], [{"subnet": "fd00:1:0:15::/64"}]]);
        assert_eq!(config["ipam"]["ranges"], ranges);
        assert_eq!(
            config["ipam"]["routes"],
            json!([{"dst": "10.1.0.0/16", "gw": "10.1.15.1"}, {"dst": "fd00:1::/48", "gw": "fd00:1:0:15::1"}])
        );
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for (network, code) in [
            (json!({"delegate": {"name": "other"}}), 2),
            (json!({"delegate": {"ipam": {}}}), 2),
            (json!({"delegate": {"type": 7}}), 7),
            (json!({"delegate": {"type": ""}}), 7),
            (json!({"delegate": {"type": "../../bin/sh"}}), 7),
            (json!({"ipam": {"routes": "all"}}), 7),
        ] {
            assert_eq!(generated(network.clone(), &subnet()), Err(code), "{network}");
        }
    }

    #[test]
    fn a_delegate_of_another_subnet_is_told() {
        let network = Config { name: Some("net".to_owned()), ..Config::default() };
        let delegate = Delegate::new(&network, VERSION, &subnet()).unwrap();
        assert!(delegate.is_of(&subnet()));
        assert!(!delegate.is_of(&read("FLANNEL_NETWORK=10.1.0.0/16\nFLANNEL_SUBNET=10.1.16.1/24\n")));
    }
}
