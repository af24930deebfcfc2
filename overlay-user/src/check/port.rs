//! Whether somebody else has the tunnel's UDP port.

use super::Finding;
use crate::{
    agent::{self, Settled},
    network::Backend,
};

const CHECK: &str = "port";

/// `agent` is the running agent's process id, `has_device` whether the overlay device is there.
pub(super) async fn check(settled: &Settled, agent: Option<&str>, has_device: bool) -> Finding {
    let port = settled.backend.port();
    if let (Backend::Udp { .. }, Some(pid)) = (&settled.backend, agent) {
        return Finding::green(CHECK, format!("{port}/udp is the running agent's (pid {pid})"));
    }
    match agent::claim_port(&settled.backend, settled.underlay.address, has_device).await {
        Ok(_) if has_device && matches!(settled.backend, Backend::Vxlan { .. }) => {
            Finding::green(CHECK, format!("{port}/udp is the overlay device's"))
        }
        Ok(_) => Finding::green(CHECK, format!("{port}/udp is free")),
        Err(error) => Finding::refused(CHECK, error, "stop that program, or set another Backend.Port for all nodes"),
    }
}
