//! What of the overlay on this node follows the underlay, the network config and the overlay device while it runs.

use std::path::Path;

use anyhow::Result;

use super::{Fragments, Node, overlay_mtu};
use crate::{
    link::{self, LinkError, LinkKind, LinkWatch},
    listener::Listener,
    network::Backend,
    underlay::Underlay,
};

impl Node {
    /// Gives the overlay device the MTU that fits another MTU of the underlay. Returns it, in bytes.
    ///
    /// # Errors
    /// When it is too small, or the kernel refuses.
    pub async fn follow_mtu(&mut self, underlay_mtu: u32) -> Result<u32> {
        self.plan.underlay.mtu = underlay_mtu;
        let before = self.plan.mtu;
        self.plan.mtu = overlay_mtu(&self.plan.underlay, &self.plan.backend)?;
        // The fast path must not carry what the device refuses: it hears of a smaller MTU first, of a larger one last.
        if self.plan.mtu < before {
            self.tell_programs()?;
        }
        link::set_mtu(&self.handle, self.link.ifindex, self.plan.mtu).await?;
        self.tell_programs()?;
        Ok(self.plan.mtu)
    }

    /// Works by another backend config, which differs from the one in force in the MTU and in nothing that packets show.
    ///
    /// # Errors
    /// When the MTU is too small, or the kernel refuses.
    pub async fn follow_backend(&mut self, backend: Backend) -> Result<()> {
        overlay_mtu(&self.plan.underlay, &backend)?;
        self.plan.backend = backend;
        self.follow_mtu(self.plan.underlay.mtu).await.map(drop)
    }

    /// Works on another underlay interface, or on the same with another address. Plain routes may have gone with the old one:
    /// see [`reconcile`](Self::reconcile).
    ///
    /// # Errors
    /// When it is inside the overlay network, its MTU is too small, or the kernel refuses.
    pub async fn follow_underlay(&mut self, underlay: Underlay) -> Result<()> {
        underlay.check_outside(self.plan.network)?;
        let has_moved = underlay.address != self.plan.underlay.address;
        self.plan.underlay = underlay;
        self.direct = self.plan.direct_routes(&self.handle);
        self.attach().await?;
        self.follow_mtu(self.plan.underlay.mtu).await?;
        if has_moved && let Err(error) = self.follow_address().await {
            // What the programs take needs neither.
            tracing::warn!(error = format!("{error:#}"), "fragmented outer packets do not come in");
        }
        Ok(())
    }

    /// Takes note that the underlay interface has another name.
    pub fn rename_underlay(&mut self, name: String) {
        self.plan.underlay.name = name;
    }

    /// Gives the tunnel's port the underlay's address. The programs have been told.
    async fn follow_address(&mut self) -> Result<()> {
        if let LinkKind::Vxlan(vxlan) = self.plan.link().kind {
            link::set_local(&self.handle, &self.link.name, &vxlan).await?;
        }
        if let Some(fragments) = &mut self.fragments {
            fragments.rebind(self.plan.underlay.address, self.plan.backend.port()).await?;
        }
        Ok(())
    }

    /// Watches the overlay device as it is now.
    ///
    /// # Errors
    /// When there is no socket to be had.
    pub fn watch_device(&self) -> Result<LinkWatch, LinkError> {
        LinkWatch::new(&self.plan.link(), &self.link)
    }

    /// Sets up a device in place of one that somebody has removed.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn renew_device(&mut self) -> Result<()> {
        self.link = link::set_up(&self.handle, &self.plan.link()).await?;
        if let (Some(fragments), Some(tap)) = (&mut self.fragments, self.link.tap.take()) {
            fragments.replace_tap(tap);
            fragments.rebind(self.plan.underlay.address, self.plan.backend.port()).await?;
        }
        self.tell_programs()?;
        self.attach().await
    }

    /// Takes in what the kernel has to reassemble (`udp` encapsulation), on `listener`, until the process ends.
    ///
    /// # Errors
    /// When the maps cannot be read.
    pub fn serve_fragments(&mut self, listener: Listener, maps: &Path) -> Result<()> {
        let Some(tap) = self.link.tap.take() else { return Ok(()) };
        let fragments = Fragments::new(tap, self.link.mac, self.plan.subnet, maps);
        self.fragments.insert(fragments).serve(listener)
    }
}
