//! [`Fragments`]: takes in what the kernel has to reassemble (`udp` encapsulation).

use std::{
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Result;
use ipnetwork::Ipv4Network;
use tokio::task::JoinHandle;

use crate::{
    link::Tap,
    listener::{Listener, Sources},
    maps::Routes,
};

/// The listener on the tunnel's port, and what it needs to start again.
pub(super) struct Fragments {
    tap: Arc<Tap>,
    mac: [u8; 6],
    subnet: Ipv4Network,
    maps: PathBuf,
    task: Option<JoinHandle<()>>,
}

impl Fragments {
    /// Lets reassembled packets for `subnet` in on `tap`, whose MAC address is `mac`, as the routes pinned in `maps` allow.
    pub(super) fn new(tap: Tap, mac: [u8; 6], subnet: Ipv4Network, maps: &Path) -> Self {
        Self { tap: Arc::new(tap), mac, subnet, maps: maps.to_owned(), task: None }
    }

    /// Lets them in on another TAP from the next start on.
    pub(super) fn replace_tap(&mut self, tap: Tap) {
        self.tap = Arc::new(tap);
    }

    /// Starts anew on `port` of `address`.
    ///
    /// # Errors
    /// When the port is in use, or the maps cannot be read; then nothing is received.
    pub(super) async fn rebind(&mut self, address: IpAddr, port: u16) -> Result<()> {
        if let Some(task) = self.task.take() {
            task.abort();
            // With the task its socket is gone. That it was cancelled is no news.
            drop(task.await);
        }
        self.serve(Listener::bind(address, port).await?)
    }

    /// Starts on `listener`.
    ///
    /// # Errors
    /// When the maps cannot be read.
    pub(super) fn serve(&mut self, listener: Listener) -> Result<()> {
        let sources = MapSources { routes: Routes::open(&self.maps, self.subnet.prefix())?, subnet: self.subnet };
        let (tap, mac) = (Arc::clone(&self.tap), self.mac);
        self.task = Some(tokio::spawn(async move {
            let outcome = listener
                .run(&tap, mac, &sources, |received| {
                    tracing::debug!(accepted = received.accepted, refused = received.refused, "reassembled packets");
                })
                .await;
            if let Err(error) = outcome {
                tracing::warn!(%error, "fragmented outer packets no longer come in");
            }
        }));
        Ok(())
    }
}

/// The check of reassembled packets, by the routes in the maps.
struct MapSources {
    routes: Routes,
    subnet: Ipv4Network,
}

impl Sources for MapSources {
    fn accepts(&self, node: Ipv4Addr, inner_source: Ipv4Addr) -> bool {
        self.routes.owns(node, inner_source).unwrap_or(false)
    }

    fn is_ours(&self, inner_destination: Ipv4Addr) -> bool {
        self.subnet.contains(inner_destination)
    }
}
