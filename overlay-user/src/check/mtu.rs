//! The MTU of the overlay, which is the underlay's or the network config's less what encap adds.

use super::Finding;
use crate::{network::NetworkConfig, node, underlay::Underlay};

const CHECK: &str = "mtu";

pub(super) fn check(underlay: &Underlay, network: &NetworkConfig) -> (Finding, Option<u32>) {
    let Underlay { name, mtu: underlay_mtu, .. } = underlay;
    let mtu = match node::overlay_mtu(underlay, &network.backend, network.ipv6.is_some()) {
        Ok(mtu) => mtu,
        Err(error) => {
            return (Finding::refused(CHECK, error, format!("raise the MTU of {name}, or Backend.MTU")), None);
        }
    };
    let wire = mtu + node::overhead(underlay, &network.backend);
    let found = format!("overlay {mtu}; {name} {underlay_mtu}");
    let finding = match wire < *underlay_mtu {
        true => Finding::green(CHECK, format!("{found}, of which Backend.MTU uses {wire}")),
        false => Finding::green(CHECK, found),
    };
    (finding, Some(mtu))
}
