//! What the agent does about changes of the underlay interface.

use anyhow::Result;

use super::Agent;
use crate::underlay::{Underlay, UnderlayEvent};

impl Agent<'_> {
    pub(super) async fn on_underlay(&mut self, event: UnderlayEvent) -> Result<()> {
        match event {
            UnderlayEvent::MtuChanged(underlay_mtu) => {
                let mtu = self.node.follow_mtu(underlay_mtu).await?;
                tracing::info!(underlay_mtu, mtu, "MTU followed; running containers keep theirs");
                self.publish_mtu()?;
            }
            UnderlayEvent::Back(underlay) => {
                self.follow(underlay.clone()).await?;
                tracing::info!(interface = underlay.name, address = %underlay.local_text(), "underlay interface is back");
                self.health.underlay(None);
            }
            UnderlayEvent::AddressChanged(underlay) => {
                self.follow(underlay.clone()).await?;
                tracing::info!(interface = underlay.name, address = %underlay.local_text(), "underlay address changed");
                self.health.underlay(None);
            }
            UnderlayEvent::Gone => {
                tracing::warn!("underlay interface is gone; nothing is forwarded until it is back");
                self.health.underlay(Some("gone"));
            }
            UnderlayEvent::AddressGone => {
                let address = self.node.plan().underlay.local_text();
                tracing::warn!(%address, "degraded: underlay address is gone; the lease stays until there is another");
                self.health.underlay(Some("without an address"));
            }
            UnderlayEvent::Down => {
                tracing::warn!("underlay interface is down");
                self.health.underlay(Some("down"));
            }
            UnderlayEvent::Up => {
                tracing::info!("underlay interface is up");
                // The kernel has dropped plain routes.
                self.node.reconcile(self.table.routes()).await?;
                self.health.underlay(None);
            }
            UnderlayEvent::Renamed(name) => {
                tracing::info!(name, "underlay interface renamed");
                self.node.rename_underlay(name);
            }
            // The programs ask the kernel for the way to each neighbour again after a moment: there is nothing of ours to refresh.
            UnderlayEvent::MacChanged(_) | UnderlayEvent::RoutesChanged => {}
        }
        Ok(())
    }

    /// Works on `underlay` from now on, and tells the other nodes if they reach us at another address.
    async fn follow(&mut self, underlay: Underlay) -> Result<()> {
        let before = self.node.plan().mtu;
        let devices = self.node.plan().links().len();
        self.node.follow_underlay(underlay).await?;
        if self.node.plan().links().len() != devices {
            self.watch_devices();
        }
        let presented = self.node.plan().presented();
        if presented != *self.presented.borrow() {
            let changes = self.table.move_to(presented.clone());
            self.change_routes(changes).await;
            self.presented.send_replace(presented);
        }
        self.node.reconcile(self.table.routes()).await?;
        if self.node.plan().mtu != before { self.publish_mtu() } else { Ok(()) }
    }

    /// Tells Docker and CNI, and our own watch of the overlay device, which MTU the device has now.
    pub(super) fn publish_mtu(&mut self) -> Result<()> {
        self.devices.expect_mtu(self.node.plan().mtu);
        self.write_subnet_file()
    }
}
