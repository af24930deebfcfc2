//! [`SubnetKey`]: the subnet in a lease's key.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};

use crate::json::shortened;
use crate::network::{Address, NetworkConfig, Range, Ranges, overlap};

/// The longest text that can be a key: an IPv4 and an IPv6 network.
const MAX_KEY: usize = 64;

/// The subnet of a lease. Prints and parses as the last part of the lease's datastore key: `10.1.15.0-24`, or for dual
/// stack `10.12.13.0-24&fd00:12:13::-56`.
///
/// Ordered by IPv4 subnet, and there the key without an IPv6 subnet comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubnetKey {
    /// The IPv4 subnet; 0.0.0.0/0 when the node has only IPv6.
    pub v4: Ipv4Network,
    /// The IPv6 subnet of a dual-stack lease.
    pub v6: Option<Ipv6Network>,
}

/// A key that names no subnet, and why. One line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("key {key}: {rule}")]
pub struct KeyError {
    key: String,
    rule: &'static str,
}

impl SubnetKey {
    /// The subnets, IPv4's first.
    pub fn subnets(&self) -> impl Iterator<Item = IpNetwork> + use<> {
        let v4 = (self.v4.prefix() > 0).then_some(self.v4.into());
        v4.into_iter().chain(self.v6.map(Into::into))
    }

    /// Whether a subnet of this key and one of `other` have addresses in common.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        self.subnets().any(|ours| other.subnets().any(|theirs| overlap(ours, theirs)))
    }

    /// The overlay of `network` as the node with these subnets sees it.
    #[must_use]
    pub fn ranges(&self, network: &NetworkConfig) -> Ranges {
        Ranges {
            ipv4: network.ipv4.map(|pool| Range { network: pool.network(), subnet: self.v4 }),
            ipv6: network.ipv6.zip(self.v6).map(|(pool, subnet)| Range { network: pool.network(), subnet }),
        }
    }
}

impl fmt::Display for SubnetKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.v4.ip(), self.v4.prefix())?;
        match self.v6 {
            Some(v6) => write!(f, "&{}-{}", v6.ip(), v6.prefix()),
            None => Ok(()),
        }
    }
}

impl FromStr for SubnetKey {
    type Err = KeyError;

    /// Reads exactly what [`Display`](fmt::Display) writes, so that no two keys name one subnet.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text).map_err(|rule| KeyError { key: shortened(text), rule })
    }
}

fn parse(text: &str) -> Result<SubnetKey, &'static str> {
    const FORM: &str = "not of the form 10.1.15.0-24 or 10.1.15.0-24&fd00:1:15::-64";
    if text.len() > MAX_KEY {
        return Err(FORM);
    }
    let (v4, v6) = text.split_once('&').map_or((text, None), |(v4, v6)| (v4, Some(v6)));
    let key = SubnetKey {
        // flannel's length has five bits.
        v4: network::<Ipv4Addr>(v4, 31).ok_or(FORM)?,
        v6: v6.map(|v6| network::<Ipv6Addr>(v6, 127).ok_or(FORM)).transpose()?,
    };
    if key.v4.network() != key.v4.ip() || key.v6.is_some_and(|v6| v6.network() != v6.ip()) {
        return Err("the address has bits set behind the prefix length");
    }
    if key.to_string() != text {
        return Err("not spelled the canonical way");
    }
    Ok(key)
}

fn network<A: Address>(text: &str, max: u8) -> Option<A::Network> {
    let (address, len) = text.split_once('-')?;
    let address: A = address.parse().ok()?;
    let len: u8 = len.parse().ok().filter(|&len| len <= max)?;
    Some(address.network(len))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn flannels_own_examples_survive() {
        for text in ["10.5.52.0-24", "10.12.13.0-24&fd00:12:13::-56", "0.0.0.0-0&fd00::-64", "10.0.0.0-8"] {
            assert_eq!(text.parse::<SubnetKey>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn anything_else_is_refused_in_one_line() {
        let long = format!("10.1.0.0-24{}", "0".repeat(1 << 20));
        let bad = [
            "",
            "x",
            "10.1.0.0",
            "10.1.0.0/24",
            "10.1.0.0-32",
            "10.1.0.0-33",
            "10.1.0.0-024",
            "10.1.0.0-+24",
            "10.1.0.0- 24",
            "10.1.0.1-24",
            "10.1.00.0-24",
            "10.1.0.0-24&",
            "10.1.0.0-24&fd00::",
            "10.1.0.0-24&fd00::1-64",
            "10.1.0.0-24&FD00::-64",
            "10.1.0.0-24&fd00:0::-64",
            "10.1.0.0-24&fd00::-128",
            "10.1.0.0-24&fd00::-64&fd00::-64",
            "10.1.0.0-24\n",
            "fd00::-64",
            "10.1.0.0-24/x",
            &long,
        ];
        for text in bad {
            let error = text.parse::<SubnetKey>().unwrap_err().to_string();
            assert!(error.len() < 300 && !error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn the_rule_that_a_key_breaks_is_named() {
        let error = "10.1.0.1-24".parse::<SubnetKey>().unwrap_err().to_string();
        assert_eq!(error, "key 10.1.0.1-24: the address has bits set behind the prefix length");
    }

    fn any_key() -> impl Strategy<Value = SubnetKey> {
        let v6 = proptest::option::of((any::<u128>(), 0u8..=127));
        (any::<u32>(), 0u8..=31, v6).prop_map(|(v4, len, v6)| {
            let v4 = Ipv4Network::new(Ipv4Addr::from(v4), len).unwrap();
            let v6 = v6.map(|(v6, len)| Ipv6Network::new(Ipv6Addr::from(v6), len).unwrap());
            SubnetKey {
                v4: Ipv4Network::new(v4.network(), len).unwrap(),
                v6: v6.map(|v6| Ipv6Network::new(v6.network(), v6.prefix()).unwrap()),
            }
        })
    }

    proptest! {
        #[test]
        fn every_key_survives_text(key in any_key()) {
            prop_assert_eq!(key.to_string().parse::<SubnetKey>(), Ok(key));
        }

        #[test]
        fn what_parses_is_what_would_be_written(text in "[0-9.]{1,16}-[0-9]{1,3}(&[0-9a-f:]{1,20}-[0-9]{1,3})?") {
            if let Ok(key) = text.parse::<SubnetKey>() {
                prop_assert_eq!(key.to_string(), text);
            }
        }

        #[test]
        fn no_text_panics(text: String) {
            let _parsed = text.parse::<SubnetKey>();
        }
    }
}
