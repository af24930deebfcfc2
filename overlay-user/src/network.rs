//! [`NetworkConfig`]: the JSON at `PREFIX/config`, parsed and checked once. Pure.

mod backend;
mod change;
mod pool;
mod range;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;

pub use self::backend::Backend;
pub use self::change::ConfigChange;
pub(crate) use self::pool::host_mask;
pub use self::pool::{Address, Pool};
pub(crate) use self::range::overlap;
pub use self::range::{Range, Ranges};
use crate::{
    json::{Object, WrongType, shortened},
    link::{MAX_NAME, ipv6_device_name},
};

/// The largest network config that is read, in bytes.
pub const MAX_CONFIG: usize = 64 * 1024;

/// The cluster's network config: which addresses the overlay has, how they are split, how packets travel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkConfig {
    /// The IPv4 network and its subnets; absent when `EnableIPv4` is false.
    pub ipv4: Option<Pool<Ipv4Addr>>,
    /// The IPv6 network and its subnets; present when `EnableIPv6` is true.
    pub ipv6: Option<Pool<Ipv6Addr>>,
    /// `EnableNFTables`: flannel's choice between iptables and nftables. Ours is always nftables.
    pub enable_nftables: bool,
    /// How packets travel between nodes.
    pub backend: Backend,
}

/// Why a network config is refused. One line, fit for an operator.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// It is no JSON object.
    #[error("network config: {0}")]
    Json(String),
    /// A key that must be there is not.
    #[error("network config: {key} is missing: {rule}")]
    Missing {
        /// The key's name.
        key: &'static str,
        /// When and why it must be there.
        rule: &'static str,
    },
    /// A key's value breaks a rule.
    #[error("network config: {key} {value}: {rule}")]
    Rule {
        /// The key's name.
        key: &'static str,
        /// The value as written, shortened to fit a line.
        value: String,
        /// What the value must be.
        rule: String,
    },
}

impl ConfigError {
    pub(crate) fn rule(key: &'static str, value: &impl ToString, rule: impl Into<String>) -> Self {
        Self::Rule { key, value: shortened(&value.to_string()), rule: rule.into() }
    }

    pub(crate) fn wrong_type(key: &'static str, error: &WrongType) -> Self {
        Self::rule(key, &error.found, format!("must be {}", error.wants))
    }
}

impl NetworkConfig {
    /// Parses and checks the value of `PREFIX/config`.
    ///
    /// # Errors
    /// [`ConfigError`] names the first key that breaks a rule, its value and the rule.
    pub fn parse(json: &[u8]) -> Result<Self, ConfigError> {
        let object = Object::parse(json, MAX_CONFIG).map_err(ConfigError::Json)?;
        let flag = |key| object.bool(key).map_err(|error| ConfigError::wrong_type(key, &error));
        let ipv4 = flag("EnableIPv4")?.unwrap_or(true);
        let ipv6 = flag("EnableIPv6")?.unwrap_or(false);
        if !ipv4 && !ipv6 {
            return Err(ConfigError::rule("EnableIPv4", &false, "EnableIPv4 or EnableIPv6 must be true"));
        }
        let config = Self {
            ipv4: ipv4.then(|| Pool::parse(&object)).transpose()?,
            ipv6: ipv6.then(|| Pool::parse(&object)).transpose()?,
            enable_nftables: flag("EnableNFTables")?.unwrap_or(false),
            backend: Backend::parse(&object)?,
        };
        match config.backend {
            Backend::Udp { .. } if ipv6 => {
                let rule =
                    "must be false with the udp backend, which carries IPv4 alone; IPv6 needs Backend.Type vxlan";
                Err(ConfigError::rule("EnableIPv6", &true, rule))
            }
            Backend::Vxlan { vni, .. } if ipv6 && ipv6_device_name(vni).len() > MAX_NAME => {
                let device = ipv6_device_name(vni);
                let rule =
                    format!("must be at most 9999 with EnableIPv6: no device can have a name as long as {device}");
                Err(ConfigError::rule("Backend.VNI", &vni, rule))
            }
            _ => Ok(config),
        }
    }

    /// The overlay networks, IPv4's first.
    pub fn networks(&self) -> impl Iterator<Item = IpNetwork> {
        let (ipv4, ipv6) = (self.ipv4.map(|pool| pool.network().into()), self.ipv6.map(|pool| pool.network().into()));
        ipv4.into_iter().chain(ipv6)
    }

    /// The overlay as a node sees it that has the first subnets that may be leased.
    #[must_use]
    pub fn first_subnets(&self) -> Ranges {
        fn first<A: Address>(pool: Pool<A>) -> Range<A::Network> {
            Range { network: pool.network(), subnet: pool.min().network(pool.subnet_len()) }
        }
        Ranges { ipv4: self.ipv4.map(first), ipv6: self.ipv6.map(first) }
    }

    /// Whether `subnet` lies in the network of its family.
    #[must_use]
    pub fn contains(&self, subnet: IpNetwork) -> bool {
        match subnet.ip() {
            IpAddr::V4(first) => self.ipv4.is_some_and(|pool| pool.contains(first)),
            IpAddr::V6(first) => self.ipv6.is_some_and(|pool| pool.contains(first)),
        }
    }

    /// The prefix length of the subnets of the family of `subnet`, if the overlay has that.
    #[must_use]
    pub fn subnet_len(&self, subnet: IpNetwork) -> Option<u8> {
        if subnet.is_ipv4() { self.ipv4.map(|pool| pool.subnet_len()) } else { self.ipv6.map(|pool| pool.subnet_len()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(json: &str) -> Result<NetworkConfig, ConfigError> {
        NetworkConfig::parse(json.as_bytes())
    }

    fn ipv4(json: &str) -> Pool<Ipv4Addr> {
        parse(json).unwrap().ipv4.unwrap()
    }

    #[test]
    fn the_least_config_is_flannels_defaults() {
        let config = parse(r#"{"Network": "10.1.0.0/16"}"#).unwrap();
        let pool = config.ipv4.unwrap();
        assert_eq!((pool.subnet_len(), pool.min(), pool.max()), (24, [10, 1, 1, 0].into(), [10, 1, 255, 0].into()));
        assert_eq!(config.ipv6, None);
        assert_eq!(config.backend, Backend::Udp { port: 8285 });
        assert!(!config.enable_nftables);
    }

    #[test]
    fn small_networks_are_split_in_four() {
        for (network, len) in [("10.1.0.0/22", 24), ("10.1.0.0/23", 25), ("10.1.0.0/24", 26), ("10.1.0.0/28", 30)] {
            assert_eq!(ipv4(&format!(r#"{{"Network": "{network}"}}"#)).subnet_len(), len, "{network}");
        }
    }

    #[test]
    fn a_network_at_the_top_of_the_address_space_has_a_last_subnet() {
        assert_eq!(ipv4(r#"{"Network": "240.0.0.0/4"}"#).max(), Ipv4Addr::new(255, 255, 255, 0));
        assert_eq!(ipv4(r#"{"Network": "0.0.0.0/0", "SubnetLen": 8}"#).max(), Ipv4Addr::new(255, 0, 0, 0));
    }

    #[test]
    fn key_names_match_in_any_case_and_unknown_keys_are_ignored() {
        let config =
            parse(r#"{"network":"10.1.0.0/16","SUBNETLEN":26,"hello":[1],"backend":{"type":"VXLAN","vni":7,"x":{}}}"#);
        let config = config.unwrap();
        assert_eq!(config.ipv4.unwrap().subnet_len(), 26);
        assert!(matches!(config.backend, Backend::Vxlan { vni: 7, port: 8472, .. }));
    }

    #[test]
    fn host_bits_of_the_network_are_cut_as_flannel_cuts_them() {
        assert_eq!(ipv4(r#"{"Network": "10.1.2.3/16"}"#).network().to_string(), "10.1.0.0/16");
    }

    #[test]
    fn dual_stack_and_ipv6_alone_are_read() {
        let dual =
            parse(r#"{"Network":"10.1.0.0/16","EnableIPv6":true,"IPv6Network":"fd00:1::/48","EnableNFTables":true,"Backend":{"Type":"vxlan"}}"#)
                .unwrap();
        let pool = dual.ipv6.unwrap();
        assert_eq!(
            (pool.subnet_len(), pool.min().to_string(), pool.max().to_string()),
            (64, "fd00:1:0:1::".into(), "fd00:1:0:ffff::".into())
        );
        assert!(dual.ipv4.is_some() && dual.enable_nftables);
        let alone =
            parse(r#"{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fd00::/64","Backend":{"Type":"vxlan"}}"#)
                .unwrap();
        assert_eq!((alone.ipv4, alone.ipv6.unwrap().subnet_len()), (None, 66));
    }

    #[test]
    fn every_broken_rule_names_key_value_and_rule() {
        let cases = [
            (r"{}", "Network is missing: EnableIPv4 is true"),
            (r#"{"Network":"10.1.0.0"}"#, "Network 10.1.0.0: must be"),
            (r#"{"Network":"10.1.0.0/33"}"#, "Network 10.1.0.0/33: must be"),
            (r#"{"Network":7}"#, "Network 7: must be a string"),
            (r#"{"Network":"10.1.0.0/29"}"#, "Network 10.1.0.0/29: must be /28 or larger"),
            (r#"{"Network":"10.1.0.0/16","SubnetLen":31}"#, "SubnetLen 31: must be at most 30"),
            (r#"{"Network":"10.1.0.0/16","SubnetLen":17}"#, "SubnetLen 17: must be at least 18"),
            (r#"{"Network":"10.1.0.0/16","SubnetLen":-1}"#, "SubnetLen -1: must be a whole number"),
            (r#"{"Network":"10.1.0.0/16","SubnetLen":4294967320}"#, "SubnetLen 4294967320: must be at most 30"),
            (
                r#"{"Network":"10.1.0.0/16","SubnetMin":"10.2.0.0"}"#,
                "SubnetMin 10.2.0.0: must be inside Network 10.1.0.0/16",
            ),
            (r#"{"Network":"10.1.0.0/16","SubnetMax":"10.2.0.0"}"#, "SubnetMax 10.2.0.0: must be inside"),
            (r#"{"Network":"10.1.0.0/16","SubnetMin":"10.1.1.1"}"#, "SubnetMin 10.1.1.1: must be a multiple of /24"),
            (r#"{"Network":"10.1.0.0/16","SubnetMin":"x"}"#, "SubnetMin x: must be an IPv4 address"),
            (
                r#"{"Network":"10.1.0.0/16","SubnetMin":"10.1.9.0","SubnetMax":"10.1.8.0"}"#,
                "SubnetMin 10.1.9.0: must not be above SubnetMax 10.1.8.0",
            ),
            (r#"{"EnableIPv4":false}"#, "EnableIPv4 false: EnableIPv4 or EnableIPv6 must be true"),
            (r#"{"EnableIPv4":"yes"}"#, "EnableIPv4 \"yes\": must be true or false"),
            (r#"{"Network":"10.1.0.0/16","EnableIPv6":true}"#, "IPv6Network is missing: EnableIPv6 is true"),
            (
                r#"{"Network":"10.1.0.0/16","EnableIPv6":true,"IPv6Network":"fd00::/125"}"#,
                "IPv6Network fd00::/125: must be /124 or larger",
            ),
            (
                r#"{"Network":"10.1.0.0/16","EnableIPv6":true,"IPv6Network":"fd00::/64","IPv6SubnetLen":127}"#,
                "IPv6SubnetLen 127: must be at most 126",
            ),
            (
                r#"{"Network":"10.1.0.0/16","EnableIPv6":true,"IPv6Network":"fd00::/48"}"#,
                "EnableIPv6 true: must be false with the udp backend",
            ),
            (r#"{"Network":"10.1.0.0/16","Backend":{}}"#, "Backend.Type is missing"),
            (r#"{"Network":"10.1.0.0/16","Backend":null}"#, "Backend.Type is missing"),
            (r#"{"Network":"10.1.0.0/16","Backend":"udp"}"#, "Backend \"udp\": must be an object"),
            (r#"{"Network":"10.1.0.0/16","Backend":{"Type":"host-gw"}}"#, "Backend.Type host-gw: must be udp or vxlan"),
            (
                r#"{"Network":"10.1.0.0/16","Backend":{"Type":"udp","Port":65536}}"#,
                "Backend.Port 65536: must be at most 65535",
            ),
            (
                r#"{"Network":"10.1.0.0/16","Backend":{"Type":"vxlan","VNI":16777216}}"#,
                "Backend.VNI 16777216: must be at most 16777215",
            ),
            (
                r#"{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fd00::/48","Backend":{"Type":"vxlan","VNI":10000}}"#,
                "Backend.VNI 10000: must be at most 9999 with EnableIPv6: no device can have a name as long as overlay-v6.10000",
            ),
            (r#"{"Network":"10.1.0.0/16","Backend":{"Type":"vxlan","GBP":true}}"#, "Backend.GBP true: "),
            (r#"{"Network":"10.1.0.0/16","Backend":{"Type":"vxlan","MTU":40}}"#, "Backend.MTU 40: must be"),
            ("[]", "not a JSON object"),
            ("{", "not JSON: EOF"),
        ];
        for (json, expected) in cases {
            let error = parse(json).unwrap_err().to_string();
            assert!(error.starts_with("network config: ") && error.contains(expected), "{json}\n  gave {error}");
            assert!(!error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn zero_and_empty_mean_the_default() {
        let pool = ipv4(r#"{"Network":"10.1.0.0/16","SubnetLen":0,"SubnetMin":null}"#);
        assert_eq!((pool.subnet_len(), pool.min()), (24, Ipv4Addr::new(10, 1, 1, 0)));
        let config = parse(r#"{"Network":"10.1.0.0/16","Backend":{"Type":"vxlan","Port":0,"MTU":0}}"#).unwrap();
        assert_eq!(config.backend.port(), 8472);
    }

    #[test]
    fn invalid_utf8_and_huge_configs_are_refused() {
        assert!(NetworkConfig::parse(b"{\"Network\":\"\xff\"}").is_err());
        assert!(NetworkConfig::parse(&vec![b' '; 10 << 20]).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes: Vec<u8>) {
            let _refused = NetworkConfig::parse(&bytes);
        }

        #[test]
        fn whatever_is_accepted_has_subnets_inside_the_network(prefix in 0u8..=32, len in 0u64..=32, base: u32) {
            let json = format!(r#"{{"Network":"{}/{prefix}","SubnetLen":{len}}}"#, Ipv4Addr::from(base));
            if let Ok(config) = parse(&json) {
                let pool = config.ipv4.unwrap();
                prop_assert!(pool.admits(pool.min(), pool.subnet_len()));
                prop_assert!(pool.admits(pool.max(), pool.subnet_len()));
                prop_assert!(pool.count() >= 3);
            }
        }
    }
}
