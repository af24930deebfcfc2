//! Outer headers, decoded.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

use etherparse::{SlicedPacket, TransportSlice};
use overlay_common::Encapsulation;
use serde::Serialize;

use super::header::Header;
use crate::mac::Mac;

/// Length in bytes of the VXLAN header.
pub(super) const VXLAN: usize = 8;

/// What stands in front of an inner packet on the wire.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Outer {
    /// MAC addresses of the frame; all zero where the kernel fills them in.
    frame_source: String,
    frame_destination: String,
    source: IpAddr,
    destination: IpAddr,
    source_port: u16,
    destination_port: u16,
    /// Length in bytes of the outer IP packet.
    pub(super) length: usize,
    ttl: u8,
    tos: u8,
    /// VXLAN alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    vxlan: Option<Vxlan>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Vxlan {
    vni: u32,
    inner_source: String,
    inner_destination: String,
}

impl Outer {
    /// Reads the outer headers of a frame; `None` when there are none.
    pub(super) fn read(frame: &[u8], kind: Encapsulation) -> Option<Self> {
        let packet = SlicedPacket::from_ethernet(frame).ok()?;
        let Some(TransportSlice::Udp(udp)) = &packet.transport else { return None };
        let ip = Header::read(packet.ether_payload()?.payload).ok()?;
        let vxlan = match kind {
            Encapsulation::Udp => None,
            Encapsulation::Vxlan => Some(Vxlan::read(udp.payload())?),
        };
        let (destination, rest) = frame.split_first_chunk::<6>()?;
        Some(Self {
            frame_source: Mac(*rest.first_chunk()?).to_string(),
            frame_destination: Mac(*destination).to_string(),
            source: ip.source(),
            destination: ip.destination(),
            source_port: udp.source_port(),
            destination_port: udp.destination_port(),
            length: ip.packet_len(),
            ttl: ip.ttl(),
            tos: ip.tos(),
            vxlan,
        })
    }
}

impl Vxlan {
    fn read(payload: &[u8]) -> Option<Self> {
        let (header, frame) = payload.split_first_chunk::<VXLAN>()?;
        let [_, _, _, _, a, b, c, _] = *header;
        let (destination, rest) = frame.split_first_chunk()?;
        Some(Self {
            vni: u32::from_be_bytes([0, a, b, c]),
            inner_source: Mac(*rest.first_chunk()?).to_string(),
            inner_destination: Mac(*destination).to_string(),
        })
    }
}

impl fmt::Display for Outer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { source, destination, source_port, destination_port, length, ttl, .. } = self;
        let [from, to] = [(*source, *source_port), (*destination, *destination_port)].map(SocketAddr::from);
        write!(f, "{from} -> {to} udp, {length} bytes, TTL {ttl}")?;
        match &self.vxlan {
            Some(Vxlan { vni, inner_source, inner_destination }) => {
                write!(f, ", VNI {vni}, inner frame {inner_source} -> {inner_destination}")
            }
            None => Ok(()),
        }
    }
}
