//! [`SubnetEnv`]: what `subnet.env` says, read as strictly as its most careful reader would.

use std::{
    any::type_name,
    fmt::Display,
    net::Ipv4Addr,
    str::{FromStr, Lines},
};

use anyhow::{Context, Result, ensure};
use ipnetwork::{IpNetwork, Ipv4Network};

/// The contents of a `subnet.env`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubnetEnv {
    /// What the node has of each family of the overlay: IPv4 first.
    pub subnets: Vec<Subnet>,
    /// `FLANNEL_MTU`, in bytes.
    pub mtu: u32,
    /// `FLANNEL_IPMASQ`.
    pub ip_masq: bool,
}

/// The lines of one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subnet {
    /// `FLANNEL_NETWORK` or `FLANNEL_IPV6_NETWORK`: the overlay network.
    pub network: IpNetwork,
    /// `FLANNEL_SUBNET` or `FLANNEL_IPV6_SUBNET`: the first address of the subnet, for the bridge, and the subnet's length.
    pub gateway: IpNetwork,
}

impl SubnetEnv {
    /// The subnets, IPv4 first.
    pub fn networks(&self) -> impl Iterator<Item = IpNetwork> {
        self.subnets.iter().filter_map(|subnet| IpNetwork::new(subnet.gateway.network(), subnet.gateway.prefix()).ok())
    }
}

/// The IPv4 subnet.
///
/// # Panics
///
/// Each panics when there is none.
impl SubnetEnv {
    fn v4(&self) -> Ipv4Network {
        let v4 = |subnet: &Subnet| if let IpNetwork::V4(v4) = subnet.gateway { Some(v4) } else { None };
        self.subnets.iter().find_map(v4).expect("the node has an IPv4 subnet")
    }

    /// The first address, for the bridge.
    #[must_use]
    pub fn gateway(&self) -> Ipv4Addr {
        self.v4().ip()
    }

    /// The prefix length.
    #[must_use]
    pub fn length(&self) -> u8 {
        self.v4().prefix()
    }

    /// The network address.
    #[must_use]
    pub fn subnet(&self) -> Ipv4Addr {
        self.v4().network()
    }

    /// The address `number` places after the network address.
    #[must_use]
    pub fn address(&self, number: u32) -> Ipv4Addr {
        self.v4().nth(number).expect("the subnet has so many addresses")
    }
}

impl FromStr for SubnetEnv {
    type Err = anyhow::Error;

    /// Reads exactly flannel's lines, in flannel's order: two of each family that there is, and two of both.
    fn from_str(text: &str) -> Result<Self> {
        ensure!(text.ends_with('\n'), "no full lines: {text:?}");
        let mut lines = text.lines();
        let mut subnets = Vec::new();
        for (family, is_ipv4) in [("", true), ("IPV6_", false)] {
            let (network, subnet) = (format!("FLANNEL_{family}NETWORK"), format!("FLANNEL_{family}SUBNET"));
            if lines.clone().next().is_some_and(|line| value_of(&network, line).is_some()) {
                let subnet = Subnet { network: take(&mut lines, &network)?, gateway: take(&mut lines, &subnet)? };
                ensure!(subnet.network.is_ipv4() == is_ipv4 && subnet.gateway.is_ipv4() == is_ipv4, "{subnet:?}");
                subnets.push(subnet);
            }
        }
        ensure!(!subnets.is_empty(), "no subnet: {text:?}");
        let (mtu, ip_masq) = (take(&mut lines, "FLANNEL_MTU")?, take(&mut lines, "FLANNEL_IPMASQ")?);
        ensure!(lines.next().is_none(), "more lines than flannel has: {text:?}");
        Ok(Self { subnets, mtu, ip_masq })
    }
}

fn value_of<'a>(name: &str, line: &'a str) -> Option<&'a str> {
    line.strip_prefix(name)?.strip_prefix('=')
}

/// The value in the next line, which must be that of `name`, and written as we would write it.
fn take<T: FromStr + Display>(lines: &mut Lines<'_>, name: &str) -> Result<T> {
    let line = lines.next().with_context(|| format!("no {name}"))?;
    let text = value_of(name, line).with_context(|| format!("{line:?} instead of {name}"))?;
    let value = text.parse().ok().filter(|value: &T| value.to_string() == text);
    value.with_context(|| format!("{name} is no {}: {text:?}", type_name::<T>()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const V4: &str = "FLANNEL_NETWORK=10.1.0.0/16\nFLANNEL_SUBNET=10.1.15.1/24\n";
    const V6: &str = "FLANNEL_IPV6_NETWORK=fd00:10::/48\nFLANNEL_IPV6_SUBNET=fd00:10:0:f::1/64\n";
    const BOTH: &str = "FLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n";

    #[test]
    fn flannels_own_file_is_read() {
        let env: SubnetEnv = format!("{V4}{BOTH}").parse().unwrap();
        assert_eq!((env.mtu, env.ip_masq), (1450, true));
        assert_eq!(env.subnets[0].network.to_string(), "10.1.0.0/16");
        assert_eq!((env.gateway(), env.length()), (Ipv4Addr::new(10, 1, 15, 1), 24));
        assert_eq!((env.subnet(), env.address(2)), (Ipv4Addr::new(10, 1, 15, 0), Ipv4Addr::new(10, 1, 15, 2)));
    }

    #[test]
    fn flannels_own_file_with_ipv6_is_read() {
        for (text, gateways) in [
            (format!("{V4}{V6}{BOTH}"), ["10.1.15.1/24", "fd00:10:0:f::1/64"].as_slice()),
            (format!("{V6}{BOTH}"), &["fd00:10:0:f::1/64"]),
        ] {
            let env: SubnetEnv = text.parse().unwrap();
            let read: Vec<_> = env.subnets.iter().map(|subnet| subnet.gateway.to_string()).collect();
            assert_eq!(read, gateways);
        }
    }

    #[test]
    fn anything_else_is_refused() {
        let text = format!("{V4}{BOTH}");
        for text in [
            String::new(),
            BOTH.to_owned(),
            V4.to_owned(),
            text.trim_end().to_owned(),
            text.replace("MTU", "TTL"),
            text.replace("true", "yes"),
            text.replace("/24", ""),
            format!("{V6}{V4}{BOTH}"),
            format!("{text}FLANNEL_MORE=1\n"),
            format!("{V4}{V6}{BOTH}").replace("f::1/64", "0f::1/64"),
            format!("{V4}{BOTH}").replace("10.1.15.1/24", "fd00::1/64"),
        ] {
            assert!(text.parse::<SubnetEnv>().is_err(), "{text:?}");
        }
    }
}
