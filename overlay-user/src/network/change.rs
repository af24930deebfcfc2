//! [`ConfigChange`]: what a new network config means to those who work by an old one. Pure.

use std::fmt;

use super::{Backend, NetworkConfig, Pool, Range, Ranges, pool::Address};

/// The keys in which two network configs differ, by what that means to a running agent. Spelling is no difference, nor
/// is a default that is written out.
///
/// Applied while running:
/// - `SubnetMin`, `SubnetMax` (and their IPv6 kin): they say which subnets may be *taken*. What is leased stays where it is.
/// - `Backend.MTU`: the overlay device and `subnet.env` follow; running containers keep theirs.
/// - `EnableNFTables`, `Backend.Learning`: we have no use for them.
///
/// All else changes what peers must agree on, packet by packet, and takes a restart.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConfigChange {
    /// Keys that a running agent follows.
    pub applied: Vec<&'static str>,
    /// Keys that apply after a restart.
    pub restart: Vec<&'static str>,
}

impl ConfigChange {
    /// Compares two configs in meaning.
    #[must_use]
    pub fn between(old: &NetworkConfig, new: &NetworkConfig) -> Self {
        let mut change = Self::default();
        change.family(old.ipv4.as_ref(), new.ipv4.as_ref(), "EnableIPv4");
        change.family(old.ipv6.as_ref(), new.ipv6.as_ref(), "EnableIPv6");
        change.note(old.enable_nftables != new.enable_nftables, "EnableNFTables", true);
        change.backend(&old.backend, &new.backend);
        change
    }

    /// The same for the node that holds the subnets in `held`: a `SubnetMin` or `SubnetMax` that shuts one out makes it move,
    /// which takes a restart.
    #[must_use]
    pub fn for_node(old: &NetworkConfig, new: &NetworkConfig, held: &Ranges) -> Self {
        let mut change = Self::between(old, new);
        change.shut_out(new.ipv4.as_ref(), held.ipv4);
        change.shut_out(new.ipv6.as_ref(), held.ipv6);
        change
    }

    /// Whether the configs mean the same.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.applied.is_empty() && self.restart.is_empty()
    }

    fn note(&mut self, differs: bool, key: &'static str, applied: bool) {
        if differs {
            if applied { &mut self.applied } else { &mut self.restart }.push(key);
        }
    }

    fn family<A: Address + PartialEq>(&mut self, old: Option<&Pool<A>>, new: Option<&Pool<A>>, enabled: &'static str)
    where
        A::Network: PartialEq,
    {
        let (Some(old), Some(new)) = (old, new) else {
            return self.note(old.is_some() != new.is_some(), enabled, false);
        };
        let (network, len) = (old.network() != new.network(), old.subnet_len() != new.subnet_len());
        self.note(network, A::KEYS.network(), false);
        self.note(len, A::KEYS.subnet_len(), false);
        // Bounds that nobody wrote move with the network.
        if !network && !len {
            let (min, max) = A::KEYS.bounds();
            self.note(old.min() != new.min(), min, true);
            self.note(old.max() != new.max(), max, true);
        }
    }

    fn shut_out<A: Address>(&mut self, new: Option<&Pool<A>>, held: Option<Range<A::Network>>) {
        let Some((pool, (first, len))) = new.zip(held.map(|range| A::parts(range.subnet))) else { return };
        if !pool.admits(first, len) {
            let (min, max) = A::KEYS.bounds();
            self.restart.extend(self.applied.extract_if(.., |key| *key == min || *key == max));
        }
    }

    fn backend(&mut self, old: &Backend, new: &Backend) {
        if old.name() != new.name() {
            return self.note(true, "Backend.Type", false);
        }
        self.note(old.port() != new.port(), "Backend.Port", false);
        if let (
            Backend::Vxlan { vni, direct_routing, mtu, learning, .. },
            Backend::Vxlan { vni: new_vni, direct_routing: new_direct, mtu: new_mtu, learning: new_learning, .. },
        ) = (old, new)
        {
            self.note(vni != new_vni, "Backend.VNI", false);
            self.note(direct_routing != new_direct, "Backend.DirectRouting", false);
            self.note(mtu != new_mtu, "Backend.MTU", true);
            self.note(learning != new_learning, "Backend.Learning", true);
        }
    }
}

impl fmt::Display for ConfigChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts =
            [("applied by running agents", &self.applied), ("applied after a restart of each agent", &self.restart)];
        let parts = parts.iter().filter(|(_, keys)| !keys.is_empty());
        let parts: Vec<String> = parts.map(|(what, keys)| format!("{} {what}", keys.join(", "))).collect();
        f.write_str(&parts.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = r#"{"Network":"10.1.0.0/16","Backend":{"Type":"vxlan"}}"#;

    fn config(json: &str) -> NetworkConfig {
        NetworkConfig::parse(json.as_bytes()).unwrap()
    }

    fn change(new: &str) -> (Vec<&'static str>, Vec<&'static str>) {
        let held = Range { network: "10.1.0.0/16".parse().unwrap(), subnet: "10.1.15.0/24".parse().unwrap() };
        let change = ConfigChange::for_node(&config(OLD), &config(new), &Ranges { ipv4: Some(held), ipv6: None });
        (change.applied, change.restart)
    }

    fn vxlan(more: &str) -> String {
        format!(r#"{{"Network":"10.1.0.0/16","Backend":{{"Type":"vxlan",{more}}}}}"#)
    }

    #[test]
    fn spelling_and_written_out_defaults_change_nothing() {
        for same in [
            r#" {"backend":{"type":"VXLAN","Port":8472,"VNI":1},"NETWORK":"10.1.2.3/16","SubnetLen":24} "#,
            r#"{"Network":"10.1.0.0/16","SubnetMin":"10.1.1.0","SubnetMax":"10.1.255.0","EnableIPv4":true,"x":1,"Backend":{"Type":"vxlan","MTU":0}}"#,
        ] {
            assert_eq!(change(same), (vec![], vec![]), "{same}");
        }
    }

    #[test]
    fn what_is_safe_is_applied() {
        let bounds = r#"{"Network":"10.1.0.0/16","SubnetMin":"10.1.2.0","SubnetMax":"10.1.15.0","EnableNFTables":true,"Backend":{"Type":"vxlan"}}"#;
        assert_eq!(change(bounds), (vec!["SubnetMin", "SubnetMax", "EnableNFTables"], vec![]));
        assert_eq!(change(&vxlan(r#""MTU":1400,"Learning":true"#)), (vec!["Backend.MTU", "Backend.Learning"], vec![]));
    }

    #[test]
    fn bounds_that_shut_our_subnet_out_take_a_restart() {
        let bounds = r#"{"Network":"10.1.0.0/16","SubnetMin":"10.1.16.0","Backend":{"Type":"vxlan"}}"#;
        assert_eq!(change(bounds), (vec![], vec!["SubnetMin"]));
    }

    #[test]
    fn what_peers_must_agree_on_takes_a_restart() {
        let cases: [(&str, &[&str]); 6] = [
            (r#"{"Network":"10.0.0.0/8","Backend":{"Type":"vxlan"}}"#, &["Network"]),
            (r#"{"Network":"10.1.0.0/16","SubnetLen":26,"Backend":{"Type":"vxlan"}}"#, &["SubnetLen"]),
            (r#"{"Network":"10.1.0.0/16"}"#, &["Backend.Type"]),
            (
                &vxlan(r#""Port":4789,"VNI":7,"DirectRouting":true"#),
                &["Backend.Port", "Backend.VNI", "Backend.DirectRouting"],
            ),
            (
                r#"{"EnableIPv6":true,"IPv6Network":"fd00::/48","EnableIPv4":false,"Backend":{"Type":"vxlan"}}"#,
                &["EnableIPv4", "EnableIPv6"],
            ),
            (
                r#"{"Network":"10.1.0.0/16","EnableIPv6":true,"IPv6Network":"fd00::/48","Backend":{"Type":"vxlan"}}"#,
                &["EnableIPv6"],
            ),
        ];
        for (new, keys) in cases {
            assert_eq!(change(new), (vec![], keys.to_vec()), "{new}");
        }
    }

    #[test]
    fn a_change_reads_as_one_line() {
        let text = ConfigChange::between(&config(OLD), &config(&vxlan(r#""MTU":1400,"VNI":2"#))).to_string();
        assert_eq!(text, "Backend.MTU applied by running agents; Backend.VNI applied after a restart of each agent");
    }
}
