//! [`Filter`]: which entries are asked for.

use std::net::IpAddr;

use ipnetwork::IpNetwork;

use super::DumpError;
use crate::network::overlap;

/// Which entries are asked for: those that agree with all that is given.
#[derive(Debug, Clone, Copy, Default)]
pub struct Filter {
    /// Entries about this subnet, or a part of it.
    pub subnet: Option<IpNetwork>,
    /// Entries about the node with this underlay address.
    pub node: Option<IpAddr>,
    /// Entries about this container's address.
    pub address: Option<IpAddr>,
}

/// What an entry is about.
#[derive(Debug, Default)]
pub(super) struct About {
    /// Subnets, and single addresses as networks of their own.
    pub(super) networks: Vec<IpNetwork>,
    /// The node on the other side.
    pub(super) node: Option<IpAddr>,
}

impl Filter {
    /// Refuses what the entries of `map` have nothing of.
    pub(super) fn check(&self, map: &'static str) -> Result<(), DumpError> {
        let (by_network, by_node) = match map.trim_end_matches("_V6") {
            "ROUTES" | "NODES" | "TRAFFIC" | "FLOWS" | "CANDIDATES" => (true, true),
            "ENDPOINTS" => (true, false),
            "NEIGHBOURS" => (false, true),
            _ => (false, false),
        };
        let asked = [
            ("--subnet", self.subnet.is_some(), by_network),
            ("--address", self.address.is_some(), by_network),
            ("--node", self.node.is_some(), by_node),
        ];
        match asked.into_iter().find(|(_, given, possible)| *given && !possible) {
            Some((option, ..)) => Err(DumpError::NotFiltered { map, option }),
            None => Ok(()),
        }
    }

    /// Whether the entry is asked for.
    pub(super) fn admits(&self, about: &About) -> bool {
        let in_subnet = |subnet: IpNetwork| about.networks.iter().any(|network| overlap(subnet, *network));
        self.subnet.is_none_or(in_subnet)
            && self.address.is_none_or(|address| in_subnet(address.into()))
            && self.node.is_none_or(|node| about.node == Some(node))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about(network: &str) -> About {
        About { networks: vec![network.parse().unwrap()], node: Some(IpAddr::from([192, 0, 2, 7])) }
    }

    #[test]
    fn an_ipv6_address_finds_its_subnet_and_none_of_ipv4() {
        let address = Filter { address: Some("fd00:1::9".parse().unwrap()), ..Filter::default() };
        assert!(address.admits(&about("fd00:1::/64")) && !address.admits(&about("fd00:2::/64")));
        assert!(!address.admits(&about("0.0.0.0/0")));
    }

    #[test]
    fn an_address_finds_its_subnet_and_a_subnet_its_addresses() {
        let address = Filter { address: Some(IpAddr::from([10, 1, 15, 9])), ..Filter::default() };
        assert!(address.admits(&about("10.1.15.0/24")) && address.admits(&about("10.1.15.9/32")));
        assert!(!address.admits(&about("10.1.16.0/24")) && !address.admits(&about("10.1.15.8/32")));
        let subnet = Filter { subnet: Some("10.1.15.0/24".parse().unwrap()), ..Filter::default() };
        assert!(subnet.admits(&about("10.1.15.9/32")) && !subnet.admits(&about("10.1.16.9/32")));
    }

    #[test]
    fn an_entry_must_agree_with_everything_that_is_given() {
        let filter = Filter { node: Some(IpAddr::from([192, 0, 2, 8])), ..Filter::default() };
        assert!(!filter.admits(&about("10.1.15.0/24")));
        let filter = Filter {
            node: Some(IpAddr::from([192, 0, 2, 7])),
            address: Some(IpAddr::from([10, 1, 1, 1])),
            subnet: None,
        };
        assert!(!filter.admits(&about("10.1.15.0/24")) && filter.admits(&about("10.1.1.0/24")));
    }

    #[test]
    fn what_a_map_has_nothing_of_is_refused_with_the_option() {
        let filter = Filter { node: Some(IpAddr::from([192, 0, 2, 8])), ..Filter::default() };
        assert!(filter.check("ROUTES").is_ok());
        let error = filter.check("DROPS").unwrap_err().to_string();
        assert!(error.contains("DROPS") && error.contains("--node"), "{error}");
    }
}
