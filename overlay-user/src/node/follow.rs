//! What of the overlay on this node follows the underlay, the network config and the overlay devices while it runs.

use std::path::Path;

use anyhow::Result;

use super::{Fragments, Node, overlay_mtu, set_up_links};
use crate::{
    link::{self, LinkError, LinkKind, LinkWatch, OverlayLink, Tap},
    listener::Listener,
    network::Backend,
    underlay::Underlay,
};

impl Node {
    /// Gives the overlay devices the MTU that fits another MTU of the underlay. Returns it, in bytes.
    ///
    /// # Errors
    /// When it is too small, or the kernel refuses.
    pub async fn follow_mtu(&mut self, underlay_mtu: u32) -> Result<u32> {
        self.plan.underlay.mtu = underlay_mtu;
        let before = self.plan.mtu;
        self.plan.mtu = self.mtu_with(&self.plan.backend)?;
        // The fast path must not carry what the device refuses: it hears of a smaller MTU first, of a larger one last.
        if self.plan.mtu < before {
            self.tell_programs()?;
        }
        for link in &self.links {
            link::set_mtu(&self.handle, link.ifindex, self.plan.mtu).await?;
        }
        self.tell_programs()?;
        Ok(self.plan.mtu)
    }

    /// Works by another backend config, which differs from the one in force in the MTU and in nothing that packets show.
    ///
    /// # Errors
    /// When the MTU is too small, or the kernel refuses.
    pub async fn follow_backend(&mut self, backend: Backend) -> Result<()> {
        self.mtu_with(&backend)?;
        self.plan.backend = backend;
        self.follow_mtu(self.plan.underlay.mtu).await.map(drop)
    }

    fn mtu_with(&self, backend: &Backend) -> Result<u32> {
        overlay_mtu(&self.plan.underlay, backend, self.plan.ranges.ipv6.is_some())
    }

    /// Works on another underlay interface, or on the same with another address. Plain routes may have gone with the old one:
    /// see [`reconcile`](Self::reconcile).
    ///
    /// # Errors
    /// When it is inside the overlay network, its MTU is too small, or the kernel refuses.
    pub async fn follow_underlay(&mut self, underlay: Underlay) -> Result<()> {
        underlay.check_outside(self.plan.ranges.networks())?;
        let has_moved = (underlay.ipv4, underlay.ipv6) != (self.plan.underlay.ipv4, self.plan.underlay.ipv6);
        self.plan.underlay = underlay;
        self.plan.keep_advertised_routes()?;
        self.direct = self.plan.direct_routes(&self.handle);
        if self.plan.links().len() != self.links.len() {
            // The underlay has IPv6 now, or has it no more.
            self.plan.mtu = self.mtu_with(&self.plan.backend)?;
            return self.renew_devices().await;
        }
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
        for config in self.plan.links() {
            if let LinkKind::Vxlan(vxlan) = &config.kind {
                link::set_local(&self.handle, &config.name(), vxlan).await?;
            }
        }
        self.listen_anew().await
    }

    /// Takes in fragments at the underlay's address as it is now.
    async fn listen_anew(&mut self) -> Result<()> {
        let end = self.plan.underlay.ends().next();
        let Some((fragments, end)) = self.fragments.as_mut().zip(end) else { return Ok(()) };
        fragments.rebind(end.address, self.plan.backend.port()).await
    }

    /// Watches the overlay devices as they are now.
    ///
    /// # Errors
    /// When there is no socket to be had.
    pub fn watch_devices(&self) -> Result<Vec<LinkWatch>, LinkError> {
        self.plan.links().iter().zip(&self.links).map(|(config, link)| LinkWatch::new(config, link)).collect()
    }

    /// Sets up devices in place of those that somebody has removed, or that the underlay asks for no more.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn renew_devices(&mut self) -> Result<()> {
        self.links = set_up_links(&self.handle, &self.run_dir, &self.plan.links()).await?;
        if let (Some(fragments), Some(tap)) = (&mut self.fragments, take_tap(&mut self.links)) {
            fragments.replace_tap(tap);
            self.listen_anew().await?;
        }
        self.tell_programs()?;
        // A new device knows nobody.
        self.tell_device().await?;
        self.attach().await
    }

    /// Takes in what the kernel has to reassemble (`udp` encapsulation), on `listener`, until the process ends.
    ///
    /// # Errors
    /// When the maps cannot be read.
    pub fn serve_fragments(&mut self, listener: Listener, maps: &Path) -> Result<()> {
        let Some((tap, range)) = take_tap(&mut self.links).zip(self.plan.ranges.ipv4) else { return Ok(()) };
        let fragments = Fragments::new(tap, self.plan.macs.v4, range.subnet, maps);
        self.fragments.insert(fragments).serve(listener)
    }
}

/// The open TAP of `udp` encapsulation, which has one device.
fn take_tap(links: &mut [OverlayLink]) -> Option<Tap> {
    links.iter_mut().find_map(|link| link.tap.take())
}
