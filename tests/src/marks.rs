//! [`Mark`]: what tells routers on the underlay one flow from another.

use anyhow::Result;

use crate::{
    node::{Node, UNDERLAY_DEVICE},
    packet_socket::{Frame, PacketSocket},
    packets::{Either, PROTO_UDP},
};

/// What an outer packet bears of its flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark {
    /// The outer source port.
    pub port: u16,
    /// The outer flow label, over IPv6.
    pub label: Option<u32>,
}

/// The marks of the packets that a node sends to another.
#[derive(Debug)]
pub struct Marks<'a> {
    to: &'a Node,
    sees: PacketSocket,
}

impl<'a> Marks<'a> {
    /// Looks at what `from` sends to `to` from now on.
    ///
    /// # Errors
    ///
    /// When the underlay interface cannot be listened to.
    pub fn watch(from: &Node, to: &'a Node) -> Result<Self> {
        Ok(Self { to, sees: PacketSocket::open(from.netns(), UNDERLAY_DEVICE)? })
    }

    /// Those of the packets that were sent since they were last asked for, a super-packet counting once.
    ///
    /// # Errors
    ///
    /// When the socket fails.
    pub fn take(&self) -> Result<Vec<Mark>> {
        self.sees.drain(|frame: &Frame| {
            let packet = Either::in_frame(&frame.bytes).filter(|packet| packet.protocol == PROTO_UDP)?;
            let port = u16::from_be_bytes(*packet.payload.first_chunk()?);
            let sent = frame.outgoing && self.to.addresses().contains(&packet.destination);
            sent.then_some(Mark { port, label: packet.label })
        })
    }
}
