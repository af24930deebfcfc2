//! The packets that a trace sends: a container's, and the same in a tunnel as another node would send it.

use std::net::Ipv4Addr;

use anyhow::{Context as _, Result, anyhow};
use etherparse::{EtherType, Ethernet2Header, IpNumber, Ipv4Header, PacketBuilder, SlicedPacket, TransportSlice};
use overlay_common::{Encapsulation, FlowKey, FlowLabel, LocalNode};

use super::outer::VXLAN;
use crate::cli::Protocol;

/// TTL of a packet that a container sends.
const TTL: u8 = 64;

/// The VXLAN flags byte: "VNI present" (RFC 7348, section 5).
const VXLAN_FLAGS: u8 = 0x08;

/// What an ephemeral port may be.
const EPHEMERAL: u16 = 40_000;

/// What the packet is to be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted {
    pub(crate) source: Ipv4Addr,
    pub(crate) destination: Ipv4Addr,
    pub(crate) protocol: Protocol,
    /// None: a new connection, from any port.
    pub(crate) source_port: Option<u16>,
    pub(crate) destination_port: u16,
    /// Length in bytes of the IP packet; None: as short as can be.
    pub(crate) size: Option<usize>,
}

/// An IPv4 packet.
#[derive(Debug, Clone)]
pub(super) struct Packet {
    header: Ipv4Header,
    bytes: Vec<u8>,
}

/// What a tunnel packet carries.
#[derive(Debug)]
pub(super) struct Tunnelled {
    /// VXLAN alone: the inner frame.
    pub(super) frame: Option<Vec<u8>>,
    /// The inner packet; `None` when it is no whole IPv4 packet.
    pub(super) packet: Option<Packet>,
}

impl Packet {
    /// Makes the packet as a container would send it.
    ///
    /// # Errors
    /// When the size is too small for the headers.
    pub(super) fn make(wanted: &Wanted) -> Result<Self> {
        let ip = PacketBuilder::ipv4(wanted.source.octets(), wanted.destination.octets(), TTL);
        let source_port = wanted.source_port.unwrap_or(EPHEMERAL);
        let payload = |headers: usize| {
            let size = wanted.size.unwrap_or(headers);
            let length = size.checked_sub(headers);
            let least =
                || format!("make a packet of {size} bytes: its headers alone take {headers}; give a larger --size");
            length.map(|length| vec![0; length]).with_context(least)
        };
        let mut bytes = Vec::new();
        match wanted.protocol {
            Protocol::Icmp => {
                let packet = ip.icmpv4_echo_request(1, 1);
                let payload = payload(packet.size(0))?;
                packet.write(&mut bytes, &payload)?;
            }
            Protocol::Udp => {
                let packet = ip.udp(source_port, wanted.destination_port);
                let payload = payload(packet.size(0))?;
                packet.write(&mut bytes, &payload)?;
            }
            Protocol::Tcp => {
                let packet = ip.tcp(source_port, wanted.destination_port, 1, 64_000);
                // Of a flow that is named there may be an approval; any other is a new connection.
                let packet = if wanted.source_port.is_some() { packet.ack(1) } else { packet.syn() };
                let payload = payload(packet.size(0))?;
                packet.write(&mut bytes, &payload)?;
            }
        }
        Self::parse(bytes)
    }

    /// Takes the IPv4 packet in `bytes`; what follows it goes.
    ///
    /// # Errors
    /// When they hold no whole one.
    pub(super) fn parse(mut bytes: Vec<u8>) -> Result<Self> {
        let (header, _) = Ipv4Header::from_slice(&bytes).context("read the IPv4 header")?;
        let length = usize::from(header.total_len);
        if length > bytes.len() {
            return Err(anyhow!("the packet says that it has {length} bytes, and has {}", bytes.len()));
        }
        bytes.truncate(length);
        Ok(Self { header, bytes })
    }

    /// The IPv4 packet in an Ethernet frame; `None` when it holds no whole one.
    pub(super) fn in_frame(frame: &[u8]) -> Option<Self> {
        let (header, packet) = Ethernet2Header::from_slice(frame).ok()?;
        (header.ether_type == EtherType::IPV4).then(|| Self::parse(packet.to_vec()).ok())?
    }

    pub(super) fn source(&self) -> Ipv4Addr {
        self.header.source.into()
    }

    pub(super) fn destination(&self) -> Ipv4Addr {
        self.header.destination.into()
    }

    /// Length in bytes.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn may_be_fragmented(&self) -> bool {
        !self.header.dont_fragment
    }

    /// The flow as the container `here` sees it; `None` for what is neither TCP nor UDP.
    pub(super) fn flow(&self, outgoing: bool) -> Option<FlowKey> {
        let ports = self.ports()?;
        let (source, destination) = ((self.header.source, ports.0), (self.header.destination, ports.1));
        let (local, remote) = if outgoing { (source, destination) } else { (destination, source) };
        let end = |(address, port): ([u8; 4], u16)| (address, port.to_be_bytes());
        Some(FlowKey::new(self.header.protocol.0, end(local), end(remote)))
    }

    /// What follows the outer headers, if this is a tunnel packet of the network of `node`.
    pub(super) fn in_tunnel(&self, node: &LocalNode, kind: Encapsulation) -> Option<Tunnelled> {
        let Some(TransportSlice::Udp(udp)) = SlicedPacket::from_ip(&self.bytes).ok()?.transport else { return None };
        let payload = Some(udp.payload()).filter(|_| udp.destination_port() == node.port())?;
        Some(match kind {
            Encapsulation::Udp => Tunnelled { frame: None, packet: Self::parse(payload.to_vec()).ok() },
            Encapsulation::Vxlan => {
                let frame = payload.get(VXLAN..)?;
                Tunnelled { frame: Some(frame.to_vec()), packet: Self::in_frame(frame) }
            }
        })
    }

    /// In words: addresses, ports, protocol, length.
    pub(super) fn describe(&self) -> String {
        let (source, destination) = (self.source(), self.destination());
        let protocol = protocol(self.header.protocol);
        let ends = match self.ports() {
            Some((from, to)) => format!("{source}:{from} -> {destination}:{to}"),
            None => format!("{source} -> {destination}"),
        };
        format!("{ends} {protocol}, {} bytes", self.len())
    }

    /// In an Ethernet frame.
    pub(super) fn frame(&self, destination: [u8; 6], source: [u8; 6]) -> Vec<u8> {
        let ethernet = Ethernet2Header { destination, source, ether_type: EtherType::IPV4 };
        [&ethernet.to_bytes(), self.bytes.as_slice()].concat()
    }

    /// As a router hands it on: its TTL is lower by one.
    pub(super) fn forwarded(&self) -> Self {
        let mut header = self.header.clone();
        header.time_to_live = header.time_to_live.saturating_sub(1);
        header.header_checksum = header.calc_header_checksum();
        let mut bytes = header.to_bytes().to_vec();
        bytes.extend_from_slice(&self.bytes[header.header_len()..]);
        Self { header, bytes }
    }

    /// In the tunnel from the node at `sender`, whose VTEP has the MAC address `mac`, to `node`: a frame on the underlay.
    ///
    /// # Errors
    /// When the packet is too long for a tunnel.
    pub(super) fn tunnelled(
        &self,
        node: &LocalNode,
        (sender, mac): (Ipv4Addr, [u8; 6]),
        kind: Encapsulation,
    ) -> Result<Vec<u8>> {
        let vtep = node.vtep::<[u8; 4]>();
        let payload = match kind {
            Encapsulation::Udp => self.bytes.clone(),
            Encapsulation::Vxlan => {
                let [_, vni @ ..] = vtep.vni.to_be_bytes();
                [&[VXLAN_FLAGS, 0, 0, 0], vni.as_slice(), &[0], &self.frame(vtep.mac, mac)].concat()
            }
        };
        let label = FlowLabel { hash: self.flow(false).map_or(0, |flow| flow.hash()), tos: 0, id: 0 };
        let outer = PacketBuilder::ethernet2([0; 6], [0; 6]).ipv4(sender.octets(), vtep.address.octets(), TTL);
        let mut frame = Vec::new();
        outer
            .udp(label.source_port(), vtep.port)
            .write(&mut frame, &payload)
            .context("put the packet into a tunnel")?;
        Ok(frame)
    }

    fn ports(&self) -> Option<(u16, u16)> {
        match SlicedPacket::from_ip(&self.bytes).ok()?.transport? {
            TransportSlice::Tcp(tcp) => Some((tcp.source_port(), tcp.destination_port())),
            TransportSlice::Udp(udp) => Some((udp.source_port(), udp.destination_port())),
            _ => None,
        }
    }
}

/// The name of an IP protocol, as `--proto` takes it if it does, or its number.
pub(super) fn protocol(number: IpNumber) -> String {
    match number {
        IpNumber::ICMP => "icmp".to_owned(),
        IpNumber::IPV6_ICMP => "icmpv6".to_owned(),
        IpNumber::TCP => "tcp".to_owned(),
        IpNumber::UDP => "udp".to_owned(),
        IpNumber(other) => format!("protocol {other}"),
    }
}
