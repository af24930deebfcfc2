//! [`Rules`]: keeps the netfilter rules in place as long as the agent runs.

use anyhow::{Context as _, Result};
use tokio::{sync::oneshot, task::JoinHandle};

use crate::{
    backoff::Backoff,
    masquerade::{RulesConfig, TrafficRules},
};

/// The netfilter rules and the task that sees to them.
///
/// Whoever takes the rules away has to [end](Self::end) the task first: `nft` goes on when the future that has started
/// it is dropped, and the task takes a removal by us for one by somebody else.
#[derive(Debug, Default)]
pub(super) struct Rules {
    task: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

impl Rules {
    /// Sets the rules and, if there are to be any, keeps them, whoever removes them.
    ///
    /// # Errors
    /// When they cannot be set; then nobody tries again.
    pub(super) async fn set(&mut self, config: RulesConfig) -> Result<()> {
        let (end, ended) = oneshot::channel();
        let (tell, told) = oneshot::channel();
        // Local: the compiler cannot see that futures of the nftables crate may change threads.
        let task = tokio::task::spawn_local(async move {
            let wanted = config.masquerade.is_some() || config.forward;
            let mut rules = TrafficRules::new(config);
            let set = rules.ensure().await;
            let kept = wanted && set.is_ok();
            // Nobody listens if the start was given up meanwhile.
            drop(tell.send(set));
            if let Err(error) = rules.remove_unused().await {
                tracing::warn!(%error, "rules of an address family that the network config had earlier not removed");
            }
            if kept {
                keep(rules, ended).await;
            }
        });
        self.task = Some((end, task));
        told.await.context("set the netfilter rules")??;
        Ok(())
    }

    /// Waits for a change under way and makes no other.
    pub(super) async fn end(&mut self) {
        if let Some((end, task)) = self.task.take() {
            drop(end);
            if let Err(error) = task.await {
                tracing::warn!(%error, "the task that keeps the netfilter rules failed");
            }
        }
    }
}

async fn keep(mut rules: TrafficRules, mut ended: oneshot::Receiver<()>) {
    let mut backoff = Backoff::default();
    while let Err(error) = rules.keep(&mut ended).await {
        tracing::warn!(%error, "netfilter rules not kept, trying again");
        tokio::select! {
            _ = &mut ended => return,
            () = backoff.wait() => {}
        }
    }
}
