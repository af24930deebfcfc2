//! What the agent does about an overlay device that somebody changes or removes.

use tokio::time::{Instant, sleep_until};

use super::Agent;
use crate::{
    backoff::Backoff,
    link::{LinkError, LinkEvent, LinkWatch},
};

/// The overlay device, watched; or missing, and to be set up anew.
pub(super) struct Device {
    watch: LinkWatch,
    /// When to try again to set it up.
    retry: Option<Instant>,
    backoff: Backoff,
}

impl Device {
    pub(super) fn new(watch: LinkWatch) -> Self {
        Self { watch, retry: None, backoff: Backoff::default() }
    }

    /// Waits until something is wrong with the device, or could be mended now. Dropping the future loses nothing.
    pub(super) async fn next(&mut self) -> Result<LinkEvent, LinkError> {
        match self.retry {
            Some(at) => {
                sleep_until(at).await;
                Ok(LinkEvent::Gone)
            }
            None => self.watch.next().await,
        }
    }

    /// Takes note that the agent has given the device another MTU, in bytes.
    pub(super) const fn expect_mtu(&mut self, mtu: u32) {
        self.watch.expect_mtu(mtu);
    }
}

impl Agent<'_> {
    pub(super) async fn on_device(&mut self, event: Result<LinkEvent, LinkError>) {
        match event {
            Ok(LinkEvent::Repaired) => tracing::warn!("somebody changed the overlay device; it is as it was again"),
            Ok(LinkEvent::Gone) => self.renew_device().await,
            Err(LinkError::Socket(error)) => {
                tracing::warn!(%error, "overlay device not watched, trying again");
                self.watch_device();
            }
            // The next notice leads to the next try.
            Err(error) => tracing::warn!(%error, "somebody changed the overlay device, and it is not repaired"),
        }
    }

    async fn renew_device(&mut self) {
        match self.node.renew_device().await {
            Ok(()) => {
                self.health.device(true);
                tracing::warn!("somebody removed the overlay device; it is set up anew");
                self.watch_device();
            }
            Err(error) => {
                self.health.device(false);
                if self.device.retry.is_none() {
                    let error = format!("{error:#}");
                    tracing::warn!(error, "degraded: somebody removed the overlay device, and it is not set up");
                }
                self.device.retry = Some(Instant::now() + self.device.backoff.next_wait());
            }
        }
    }

    /// Watches the device as it is now.
    fn watch_device(&mut self) {
        match self.node.watch_device() {
            Ok(watch) => self.device = Device::new(watch),
            Err(error) => {
                tracing::warn!(%error, "overlay device not watched, trying again");
                self.device.retry = Some(Instant::now() + self.device.backoff.next_wait());
            }
        }
    }
}
