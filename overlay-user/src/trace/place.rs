//! [`Place`]: where a captured frame meets the data path.

use anyhow::{Context as _, Result, bail};
use nix::net::if_::if_nametoindex;
use overlay_common::{Device, Endpoint, Program};

use super::{captured::Captured, journey::Journey, packet::Packet};

/// Where a frame is given to the first program.
#[derive(Debug)]
pub(super) enum Place {
    /// It comes in from the container behind the veth with this index.
    Container(u32),
    /// It goes out of this overlay device.
    Overlay(Device),
    /// It comes in on the underlay interface.
    Underlay,
    /// It comes in on another interface, with this index.
    Elsewhere(u32),
    /// Nowhere as it is: this packet, which it carries or is, goes the way of one that was made up.
    MadeUp(Packet),
}

impl Place {
    /// The place on the interface that was named.
    ///
    /// # Errors
    /// When there is no such interface.
    pub(super) fn on(interface: &str, journey: &Journey) -> Result<Self> {
        let index = if_nametoindex(interface)
            .with_context(|| format!("find interface {interface}; `ip link` names those of this node"))?;
        Ok(if index == journey.known.node.underlay_ifindex {
            Self::Underlay
        } else if let Some(device) = journey.known.node.devices().find(|device| index == device.ifindex) {
            Self::Overlay(device)
        } else if journey.has(Program::FromContainer, index) {
            Self::Container(index)
        } else {
            Self::Elsewhere(index)
        })
    }

    /// The place that the frame's addresses tell of.
    ///
    /// # Errors
    /// When they tell of none.
    pub(super) fn guess(captured: &Captured, journey: &Journey) -> Result<Self> {
        let Captured { frame, packet, tunnelled } = captured;
        if let (Some(packet), Some(tunnelled)) = (packet, tunnelled) {
            // What this node has sent is sent once more.
            return Ok(match &tunnelled.packet {
                Some(inner) if journey.known.is_vtep(packet.source()) => Self::MadeUp(inner.clone()),
                _ => Self::Underlay,
            });
        }
        let mac = frame.get(6..).and_then(<[u8]>::first_chunk::<6>).filter(|mac| **mac != [0; 6]);
        let by_mac = journey.known.endpoints.values().find(|endpoint| mac == Some(&endpoint.mac()));
        let by_address = packet.as_ref().and_then(|packet| journey.known.endpoints.get(&packet.source()));
        let veth = by_mac.or(by_address).map(Endpoint::ifindex).filter(|index| *index != 0);
        match (veth, packet) {
            (Some(veth), _) => Ok(Self::Container(veth)),
            (None, Some(packet)) => Ok(Self::MadeUp(packet.clone())),
            (None, None) => bail!(
                "its MAC address is no container's here, and it holds no whole IP packet; say with --on where it was \
                 captured"
            ),
        }
    }
}
