//! Which interface the agent would choose as underlay.

use rtnetlink::Handle;

use super::Finding;
use crate::{
    agent,
    config::AgentConfig,
    network::NetworkConfig,
    underlay::{self, Underlay},
};

const CHECK: &str = "underlay";

pub(super) async fn check(
    handle: &Handle,
    config: &AgentConfig,
    network: Option<&NetworkConfig>,
) -> (Finding, Option<Underlay>) {
    let chosen = match network {
        Some(network) => agent::choose_underlay(handle, config, network).await,
        // Whether it lies outside of the network cannot be told.
        None => underlay::select(handle, &config.underlay).await.map_err(Into::into),
    };
    match chosen {
        Ok(underlay) => (judge(handle, config, &underlay).await, Some(underlay)),
        Err(error) => (Finding::refused(CHECK, error, "name the right one with --iface; see `ip address`"), None),
    }
}

async fn judge(handle: &Handle, config: &AgentConfig, underlay: &Underlay) -> Finding {
    let Underlay { name, address, mtu, public_ip, .. } = underlay;
    let published = if public_ip == address { String::new() } else { format!(", published as {public_ip}") };
    let ipv6 = underlay.ipv6.as_ref().map_or_else(String::new, |end| match end.address == end.public_ip {
        true => format!(" and {}", end.address),
        false => format!(" and {}, published as {}", end.address, end.public_ip),
    });
    let found = format!("{name} with {address}{published}{ipv6}, MTU {mtu}");
    let interfaces = underlay::read(handle, config.underlay.iface_can_reach).await;
    let has_carrier = interfaces.is_ok_and(|(interfaces, _)| {
        interfaces.iter().any(|interface| interface.ifindex == underlay.ifindex && interface.carrier)
    });
    match has_carrier {
        true => Finding::green(CHECK, found),
        false => Finding::yellow(CHECK, format!("{found}, without carrier"), "plug in the cable, or see its other end"),
    }
}
