//! What the agent does about an overlay device that somebody changes or removes.

use futures::future::select_all;
use tokio::time::{Instant, sleep_until};

use super::Agent;
use crate::{
    backoff::Backoff,
    link::{LinkError, LinkEvent, LinkWatch},
};

/// The overlay devices, watched; or one of them missing, and to be set up anew.
pub(super) struct Devices {
    watches: Vec<LinkWatch>,
    /// When to try again to set them up.
    retry: Option<Instant>,
    backoff: Backoff,
}

impl Devices {
    pub(super) fn new(watches: Vec<LinkWatch>) -> Self {
        Self { watches, retry: None, backoff: Backoff::default() }
    }

    /// Waits until something is wrong with a device, or could be mended now. Dropping the future loses nothing.
    pub(super) async fn next(&mut self) -> Result<LinkEvent, LinkError> {
        match self.retry {
            Some(at) => {
                sleep_until(at).await;
                Ok(LinkEvent::Gone)
            }
            None => select_all(self.watches.iter_mut().map(|watch| Box::pin(watch.next()))).await.0,
        }
    }

    /// Takes note that the agent has given the devices another MTU, in bytes.
    pub(super) fn expect_mtu(&mut self, mtu: u32) {
        self.watches.iter_mut().for_each(|watch| watch.expect_mtu(mtu));
    }
}

impl Agent<'_> {
    pub(super) async fn on_device(&mut self, event: Result<LinkEvent, LinkError>) {
        match event {
            Ok(LinkEvent::Repaired) => tracing::warn!("somebody changed the overlay device; it is as it was again"),
            Ok(LinkEvent::Gone) => self.renew_devices().await,
            Err(LinkError::Socket(error)) => {
                tracing::warn!(%error, "overlay device not watched, trying again");
                self.watch_devices();
            }
            // The next notice leads to the next try.
            Err(error) => tracing::warn!(%error, "somebody changed the overlay device, and it is not repaired"),
        }
    }

    async fn renew_devices(&mut self) {
        match self.node.renew_devices().await {
            Ok(()) => {
                self.health.device(true);
                tracing::warn!("somebody removed the overlay device; it is set up anew");
                self.watch_devices();
            }
            Err(error) => {
                self.health.device(false);
                if self.devices.retry.is_none() {
                    let error = format!("{error:#}");
                    tracing::warn!(error, "degraded: somebody removed the overlay device, and it is not set up");
                }
                self.devices.retry = Some(Instant::now() + self.devices.backoff.next_wait());
            }
        }
    }

    /// Watches the devices as they are now.
    pub(super) fn watch_devices(&mut self) {
        match self.node.watch_devices() {
            Ok(watches) => self.devices = Devices::new(watches),
            Err(error) => {
                tracing::warn!(%error, "overlay device not watched, trying again");
                self.devices.retry = Some(Instant::now() + self.devices.backoff.next_wait());
            }
        }
    }
}
