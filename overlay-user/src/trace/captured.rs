//! [`Captured`]: a frame that was captured, and what is in it.

use overlay_common::{Encapsulation, LocalNode};

use super::packet::{Packet, Tunnelled};

/// A captured frame.
#[derive(Debug)]
pub(super) struct Captured {
    pub(super) frame: Vec<u8>,
    /// The IP packet in it; `None` when it holds no whole one.
    pub(super) packet: Option<Packet>,
    /// What that carries, if it is a tunnel packet.
    pub(super) tunnelled: Option<Tunnelled>,
}

impl Captured {
    /// Looks into a frame, on `node`, whose tunnels are of this kind.
    pub(super) fn new(frame: Vec<u8>, node: &LocalNode, kind: Encapsulation) -> Self {
        let packet = Packet::in_frame(&frame);
        let tunnelled = packet.as_ref().and_then(|packet| packet.in_tunnel(node, kind));
        Self { frame, packet, tunnelled }
    }

    /// A container's packet: the one in the tunnel, or the one that came without. `None` when it is no whole IP packet.
    pub(super) fn carried(&self) -> Option<&Packet> {
        self.tunnelled.as_ref().map_or(self.packet.as_ref(), |tunnelled| tunnelled.packet.as_ref())
    }

    /// In words.
    pub(super) fn describe(&self) -> String {
        let described = self.carried().or(self.packet.as_ref()).map(Packet::describe);
        described.unwrap_or_else(|| format!("frame of {} bytes, no whole IP packet in it", self.frame.len()))
    }
}
