//! Whether somebody else has the tunnel's UDP port.

use super::Finding;
use crate::{
    agent::{self, Adopted, Settled},
    network::Backend,
};

const CHECK: &str = "port";

/// `agent` is the running agent's process id, `adopted` the overlay devices that are there.
pub(super) async fn check(settled: &Settled, agent: Option<&str>, adopted: &Adopted) -> Finding {
    let backend = &settled.network.backend;
    let (port, has_device) = (backend.port(), adopted.names().next().is_some());
    if let (Backend::Udp { .. }, Some(pid)) = (backend, agent) {
        return Finding::green(CHECK, format!("{port}/udp is the running agent's (pid {pid})"));
    }
    match agent::claim_port(backend, &settled.underlay, adopted).await {
        Ok(_) if has_device && matches!(backend, Backend::Vxlan { .. }) => {
            Finding::green(CHECK, format!("{port}/udp is the overlay device's"))
        }
        Ok(_) => Finding::green(CHECK, format!("{port}/udp is free")),
        Err(error) => Finding::refused(CHECK, error, "stop that program, or set another Backend.Port for all nodes"),
    }
}
