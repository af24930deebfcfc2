//! What the agent knows of itself, as `/readyz` and `overlay status` say it.

use std::fmt;

use prometheus_client::{collector::Collector, encoding::DescriptorEncoder};

use super::families::{alone, counter, gauge};
use crate::{agent::state::StateHandle, health::Health};

/// Looks at what the agent knows at each scrape.
#[derive(Debug)]
pub(super) struct Agent {
    pub(super) health: Health,
    pub(super) state: StateHandle,
}

impl Collector for Agent {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let ready = u64::from(self.health.obstacle().is_none());
        gauge(&mut encoder, "ready", "Whether traffic can flow, as /readyz says it", alone(ready))?;
        let state = self.state.now();
        if let Some(expires) = state.lease.expires {
            let help = "When our lease expires if nobody renews it; absent for a reservation";
            gauge(&mut encoder, "lease_expiry_timestamp_seconds", help, alone(expires))?;
        }
        let up = u64::from(state.datastore.silent.is_none());
        gauge(&mut encoder, "datastore_up", "Whether the watch of the leases is up", alone(up))?;
        let help = "How often the watch of the leases was lost and had to be set up again";
        counter(&mut encoder, ("datastore_losses", None), help, alone(state.datastore.losses))
    }
}
