//! Which interface the agent would choose as underlay.

use rtnetlink::Handle;

use super::Finding;
use crate::{
    agent,
    config::AgentConfig,
    in_words::joined,
    network::NetworkConfig,
    underlay::{self, End, Underlay},
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
    let Underlay { name, mtu, .. } = underlay;
    let ends = underlay.ends().map(|End { address, public_ip }| match address == public_ip {
        true => address.to_string(),
        false => format!("{address}, published as {public_ip}"),
    });
    let found = format!("{name} with {}, MTU {mtu}", joined(ends));
    let interfaces = underlay::read(handle, config.underlay.iface_can_reach).await;
    let has_carrier = interfaces.is_ok_and(|(interfaces, _)| {
        interfaces.iter().any(|interface| interface.ifindex == underlay.ifindex && interface.carrier)
    });
    match has_carrier {
        true => Finding::green(CHECK, found),
        false => Finding::yellow(CHECK, format!("{found}, without carrier"), "plug in the cable, or see its other end"),
    }
}
