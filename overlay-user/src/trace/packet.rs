//! The packets that a trace sends: a container's, and the same in a tunnel as another node would send it.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, Result, anyhow, bail};
use etherparse::{
    Ethernet2Header, IpHeaders, IpNumber, PacketBuilder, PacketBuilderStep, SlicedPacket, TransportSlice,
};
use overlay_common::{Encapsulation, FlowKey, FlowLabel, LocalNode, Vtep};

use super::{header::Header, outer::VXLAN};
use crate::{cli::Protocol, maps::Family};

/// TTL of a packet that a container sends.
const TTL: u8 = 64;

/// The VXLAN flags byte: "VNI present" (RFC 7348, section 5).
const VXLAN_FLAGS: u8 = 0x08;

/// What an ephemeral port may be.
const EPHEMERAL: u16 = 40_000;

/// What the packet is to be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    pub(crate) protocol: Protocol,
    /// None: a new connection, from any port.
    pub(crate) source_port: Option<u16>,
    pub(crate) destination_port: u16,
    /// Length in bytes of the IP packet; None: as short as can be.
    pub(crate) size: Option<usize>,
}

/// An IP packet.
#[derive(Debug, Clone)]
pub(super) struct Packet {
    header: Header,
    bytes: Vec<u8>,
}

/// What a tunnel packet carries.
#[derive(Debug)]
pub(super) struct Tunnelled {
    /// VXLAN alone: the inner frame.
    pub(super) frame: Option<Vec<u8>>,
    /// The inner packet; `None` when it is no whole IP packet.
    pub(super) packet: Option<Packet>,
}

impl Packet {
    /// Makes the packet as a container would send it.
    ///
    /// # Errors
    /// When the size is too small for the headers, or the addresses are of two families.
    pub(super) fn make(wanted: &Wanted) -> Result<Self> {
        let ip = match (wanted.source, wanted.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                PacketBuilder::ipv4(source.octets(), destination.octets(), TTL)
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                PacketBuilder::ipv6(source.octets(), destination.octets(), TTL)
            }
            (source, destination) => {
                bail!("make a packet from {source} to {destination}: give two addresses of one family")
            }
        };
        let source_port = wanted.source_port.unwrap_or(EPHEMERAL);
        let mut bytes = Vec::new();
        let payload = |headers| payload(wanted.size, headers);
        match (wanted.protocol, wanted.source) {
            (Protocol::Icmp, IpAddr::V4(_)) => {
                let packet = ip.icmpv4_echo_request(1, 1);
                let payload = payload(packet.size(0))?;
                packet.write(&mut bytes, &payload)?;
            }
            (Protocol::Icmp, IpAddr::V6(_)) => {
                let packet = ip.icmpv6_echo_request(1, 1);
                let payload = payload(packet.size(0))?;
                packet.write(&mut bytes, &payload)?;
            }
            (Protocol::Udp, _) => {
                let packet = ip.udp(source_port, wanted.destination_port);
                let payload = payload(packet.size(0))?;
                packet.write(&mut bytes, &payload)?;
            }
            (Protocol::Tcp, _) => {
                let packet = ip.tcp(source_port, wanted.destination_port, 1, 64_000);
                // Of a flow that is named there may be an approval; any other is a new connection.
                let packet = if wanted.source_port.is_some() { packet.ack(1) } else { packet.syn() };
                let payload = payload(packet.size(0))?;
                packet.write(&mut bytes, &payload)?;
            }
        }
        Self::parse(bytes)
    }

    /// Takes the IP packet in `bytes`; what follows it goes.
    ///
    /// # Errors
    /// When they hold no whole one.
    pub(super) fn parse(mut bytes: Vec<u8>) -> Result<Self> {
        let header = Header::read(&bytes)?;
        let length = header.packet_len();
        if length > bytes.len() {
            return Err(anyhow!("the packet says that it has {length} bytes, and has {}", bytes.len()));
        }
        bytes.truncate(length);
        Ok(Self { header, bytes })
    }

    /// The IP packet in an Ethernet frame; `None` when it holds no whole one.
    pub(super) fn in_frame(frame: &[u8]) -> Option<Self> {
        let (header, packet) = Ethernet2Header::from_slice(frame).ok()?;
        Self::parse(packet.to_vec()).ok().filter(|packet| packet.header.ether_type() == header.ether_type)
    }

    pub(super) fn source(&self) -> IpAddr {
        self.header.source()
    }

    pub(super) fn destination(&self) -> IpAddr {
        self.header.destination()
    }

    /// Length in bytes.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(super) const fn may_be_fragmented(&self) -> bool {
        self.header.may_be_fragmented()
    }

    /// The flow as the container here sees it; `None` for what is neither TCP nor UDP, or of the other family.
    pub(super) fn flow<A: Family>(&self, outgoing: bool) -> Option<FlowKey<A>> {
        let ports = self.ports()?;
        let end = |address, port: u16| Some((A::of(A::pick(address)?), port.to_be_bytes()));
        let (source, destination) = (end(self.source(), ports.0)?, end(self.destination(), ports.1)?);
        let (local, remote) = if outgoing { (source, destination) } else { (destination, source) };
        Some(FlowKey::new(self.protocol().0, local, remote))
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
        let protocol = protocol(self.protocol());
        let ends = match self.ports() {
            Some((from, to)) => {
                format!("{} -> {}", SocketAddr::new(source, from), SocketAddr::new(destination, to))
            }
            None => format!("{source} -> {destination}"),
        };
        format!("{ends} {protocol}, {} bytes", self.len())
    }

    /// In an Ethernet frame.
    pub(super) fn frame(&self, destination: [u8; 6], source: [u8; 6]) -> Vec<u8> {
        let ethernet = Ethernet2Header { destination, source, ether_type: self.header.ether_type() };
        [&ethernet.to_bytes(), self.bytes.as_slice()].concat()
    }

    /// As a router hands it on: its TTL is lower by one.
    pub(super) fn forwarded(&self) -> Self {
        let header = self.header.forwarded();
        let mut bytes = header.to_bytes();
        bytes.extend_from_slice(&self.bytes[bytes.len()..]);
        Self { header, bytes }
    }

    /// In the tunnel from the node at `sender`, whose VTEP has the MAC address `mac`, to `node`: a frame on the underlay.
    ///
    /// # Errors
    /// When the packet is too long for a tunnel.
    pub(super) fn tunnelled(
        &self,
        node: &LocalNode,
        (sender, mac): (IpAddr, [u8; 6]),
        kind: Encapsulation,
    ) -> Result<Vec<u8>> {
        let ethernet = PacketBuilder::ethernet2([0; 6], [0; 6]);
        let (own_mac, outer): (_, PacketBuilderStep<IpHeaders>) = match sender {
            IpAddr::V4(sender) => {
                let Vtep { address, mac, .. } = node.vtep::<[u8; 4]>();
                (mac, ethernet.ipv4(sender.octets(), address.octets(), TTL))
            }
            IpAddr::V6(sender) => {
                let Vtep { address, mac, .. } = node.vtep::<[u8; 16]>();
                (mac, ethernet.ipv6(sender.octets(), address.octets(), TTL))
            }
        };
        let payload = match kind {
            Encapsulation::Udp => self.bytes.clone(),
            Encapsulation::Vxlan => {
                let [_, vni @ ..] = node.vni().to_be_bytes();
                [&[VXLAN_FLAGS, 0, 0, 0], vni.as_slice(), &[0], &self.frame(own_mac, mac)].concat()
            }
        };
        let hash = self.flow::<[u8; 4]>(false).map(|flow| flow.hash());
        let hash = hash.or_else(|| self.flow::<[u8; 16]>(false).map(|flow| flow.hash())).unwrap_or(0);
        let label = FlowLabel { hash, tos: 0, id: 0 };
        let mut frame = Vec::new();
        outer
            .udp(label.source_port(), node.port())
            .write(&mut frame, &payload)
            .context("put the packet into a tunnel")?;
        Ok(frame)
    }

    /// What it carries, behind IPv6's extensions.
    fn protocol(&self) -> IpNumber {
        let sliced = SlicedPacket::from_ip(&self.bytes).ok();
        let payload = sliced.as_ref().and_then(|sliced| sliced.net.as_ref()?.ip_payload_ref());
        payload.map_or_else(|| self.header.next(), |payload| payload.ip_number)
    }

    fn ports(&self) -> Option<(u16, u16)> {
        match SlicedPacket::from_ip(&self.bytes).ok()?.transport? {
            TransportSlice::Tcp(tcp) => Some((tcp.source_port(), tcp.destination_port())),
            TransportSlice::Udp(udp) => Some((udp.source_port(), udp.destination_port())),
            _ => None,
        }
    }
}

/// What fills a packet up to `size` bytes behind its headers, which are so long.
fn payload(size: Option<usize>, headers: usize) -> Result<Vec<u8>> {
    let size = size.unwrap_or(headers);
    let least = || format!("make a packet of {size} bytes: its headers alone take {headers}; give a larger --size");
    Ok(vec![0; size.checked_sub(headers).with_context(least)?])
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
