//! What the agent has chosen and why, for whoever reads the log of a start.

use super::Settled;
use crate::{
    cli::Decap, config::AgentConfig, holder::Origin, in_words::joined, lease::SubnetKey, network::Backend, node,
    underlay,
};

/// Logs a line for each choice but the place of decapsulation, which is made, and logged, with each attachment.
pub(super) fn tell(config: &AgentConfig, settled: &Settled, subnets: SubnetKey, origin: Origin) {
    let Settled { network, underlay, mtu, .. } = settled;
    let backend = &network.backend;
    let networks = joined(network.networks());
    tracing::info!(network = %networks, datastore = %config.datastore, "network config read");
    tracing::info!(
        interface = underlay.name, address = %underlay.local_text(), public_ip = %underlay.public_text(),
        why = underlay::why(underlay, &config.underlay), "underlay chosen"
    );
    tracing::info!(
        backend = backend.name(),
        port = backend.port(),
        vni = backend.vni(),
        why = "as the network config says",
        "backend chosen"
    );
    tracing::info!(mtu, why = why_mtu(settled), "MTU chosen");
    let fast_path = if config.flow_ttl == 0 { "off" } else { "on" };
    let why = if config.decap == Decap::Kernel { "--decap kernel leaves none" } else { "as --fast-path says" };
    tracing::info!(fast_path, why, "fast path chosen");
    tracing::info!(subnet = %joined(subnets.subnets()), why = origin.why(), "subnet taken");
}

fn why_mtu(settled: &Settled) -> String {
    let overhead = node::overhead(&settled.underlay, &settled.network.backend);
    match settled.network.backend {
        Backend::Vxlan { mtu: Some(mtu), .. } => {
            format!("{mtu} by the network config, less {overhead} of outer headers")
        }
        _ => format!("{} of {}, less {overhead} of outer headers", settled.underlay.mtu, settled.underlay.name),
    }
}
