//! [`SubnetEnv`]: what `subnet.env` says, read as strictly as its most careful reader would.

use std::{net::Ipv4Addr, str::FromStr};

use anyhow::{Context, Result, bail, ensure};
use ipnetwork::{IpNetwork, Ipv4Network};

/// The contents of a `subnet.env` without IPv6.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubnetEnv {
    /// `FLANNEL_NETWORK`: the overlay network, as it is written there.
    pub network: String,
    /// The address in `FLANNEL_SUBNET`: the first of the subnet, for the bridge.
    pub gateway: Ipv4Addr,
    /// The prefix length in `FLANNEL_SUBNET`.
    pub length: u8,
    /// `FLANNEL_MTU`, in bytes.
    pub mtu: u32,
    /// `FLANNEL_IPMASQ`.
    pub ip_masq: bool,
}

impl SubnetEnv {
    /// The network address of the subnet.
    #[must_use]
    pub fn subnet(&self) -> Ipv4Addr {
        let mask = u32::MAX.checked_shl(32 - u32::from(self.length)).unwrap_or(0);
        (u32::from(self.gateway) & mask).into()
    }

    /// `FLANNEL_SUBNET`: the gateway with the length of the subnet.
    ///
    /// # Panics
    ///
    /// When the length is none.
    #[must_use]
    pub fn gateway_network(&self) -> IpNetwork {
        Ipv4Network::new(self.gateway, self.length).expect("a length of at most 32").into()
    }

    /// The address `number` places after the network address of the subnet.
    #[must_use]
    pub fn address(&self, number: u32) -> Ipv4Addr {
        (u32::from(self.subnet()) + number).into()
    }
}

impl FromStr for SubnetEnv {
    type Err = anyhow::Error;

    /// Reads exactly flannel's four lines, in flannel's order.
    fn from_str(text: &str) -> Result<Self> {
        let names = ["FLANNEL_NETWORK", "FLANNEL_SUBNET", "FLANNEL_MTU", "FLANNEL_IPMASQ"];
        let lines: Vec<_> = text.lines().collect();
        ensure!(text.ends_with('\n') && lines.len() == names.len(), "not four full lines: {text:?}");
        let mut values = Vec::new();
        for (name, line) in names.iter().zip(lines) {
            let value = line.strip_prefix(name).and_then(|rest| rest.strip_prefix('='));
            values.push(value.with_context(|| format!("{line:?} instead of {name}"))?);
        }
        let [network, subnet, mtu, ip_masq] = values[..] else { bail!("four lines without four values") };
        let (gateway, length) = subnet.split_once('/').with_context(|| format!("no length in {subnet:?}"))?;
        Ok(Self {
            network: network.to_owned(),
            gateway: gateway.parse().with_context(|| format!("no address: {gateway:?}"))?,
            length: length.parse().with_context(|| format!("no length: {length:?}"))?,
            mtu: mtu.parse().with_context(|| format!("no MTU: {mtu:?}"))?,
            ip_masq: ip_masq.parse().with_context(|| format!("neither true nor false: {ip_masq:?}"))?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str =
        "FLANNEL_NETWORK=10.1.0.0/16\nFLANNEL_SUBNET=10.1.15.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n";

    #[test]
    fn flannels_own_file_is_read() {
        let env: SubnetEnv = TEXT.parse().unwrap();
        assert_eq!((env.network.as_str(), env.mtu, env.ip_masq), ("10.1.0.0/16", 1450, true));
        assert_eq!(env.subnet(), Ipv4Addr::new(10, 1, 15, 0));
        assert_eq!(env.address(2), Ipv4Addr::new(10, 1, 15, 2));
    }

    #[test]
    fn anything_else_is_refused() {
        for text in
            ["", TEXT.trim_end(), &TEXT.replace("MTU", "TTL"), &TEXT.replace("true", "yes"), &TEXT.replace("/24", "")]
        {
            assert!(text.parse::<SubnetEnv>().is_err(), "{text:?}");
        }
    }
}
