//! What the agent does about a new network config.

use anyhow::Result;

use super::Agent;
use crate::network::{ConfigChange, NetworkConfig};

impl Agent<'_> {
    /// Compares the network config in the datastore with the one in force. It is applied whole, where all of it can be while
    /// the agent runs (see [`ConfigChange`]), or not at all: half a config is what nobody has written.
    pub(super) async fn on_config(&mut self, value: Option<Vec<u8>>) {
        if self.judged == value {
            return;
        }
        self.judged.clone_from(&value);
        let Some(value) = value else {
            tracing::warn!("network config deleted; the one in force stays, but no agent can start");
            return;
        };
        let new = match NetworkConfig::parse(&value) {
            Ok(new) => new,
            Err(error) => {
                tracing::warn!(%error, "new network config refused; the one in force stays");
                return;
            }
        };
        let change = ConfigChange::for_node(&self.network, &new, &self.node.plan().ranges);
        if change.is_empty() {
            tracing::debug!("network config written anew; it means what is in force");
        } else if !change.restart.is_empty() {
            let keys = change.restart.join(", ");
            tracing::warn!(keys, "network config changed; nothing of it applies before a restart of the agent");
        } else if let Err(error) = self.apply(new).await {
            tracing::warn!(error = format!("{error:#}"), "new network config not applied");
        } else {
            let (keys, mtu) = (change.applied.join(", "), self.node.plan().mtu);
            tracing::info!(keys, mtu, "network config changed and applied");
        }
    }

    /// Works by `new`, which differs from the config in force only in what a running agent can follow.
    async fn apply(&mut self, new: NetworkConfig) -> Result<()> {
        if self.node.plan().backend != new.backend {
            self.node.follow_backend(new.backend.clone()).await?;
            self.publish_mtu()?;
        }
        self.network = new;
        Ok(())
    }
}
