//! The UDP socket on the port of UDP encapsulation.
//!
//! The programs take tunnel packets before any socket sees them. The socket is there for the rest: it keeps the kernel
//! from answering with "port unreachable", it keeps other programs off the port, and it receives what the programs
//! leave to the kernel because it came in outer fragments. Reassembled, such a packet is checked as the programs check
//! theirs and written into the TAP, from where it goes on as if a program had decapsulated it.

mod holder;
mod receive;

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use bytes::{BufMut, BytesMut};
use overlay_common::{decapsulated_tos, updated_checksum};
use tokio::net::UdpSocket;

use crate::link::Tap;

use receive::Datagram;

const ETHERNET_HEADER: usize = 14;
const IPV4_HEADER: usize = 20;
/// The longest payload of a UDP datagram over IPv4.
const MAX_PAYLOAD: usize = 65_507;

/// Says from which node packets of which inner source may come. The route table, in the agent.
pub trait Sources {
    /// Whether `node` (an underlay address) is known and its subnet contains `inner_source`.
    fn accepts(&self, node: Ipv4Addr, inner_source: Ipv4Addr) -> bool;
    /// Whether `inner_destination` lies in this node's own subnet.
    fn is_ours(&self, inner_destination: Ipv4Addr) -> bool;
}

/// Why a received packet was not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Too short for an IPv4 header, or shorter than its header says.
    #[error("truncated")]
    Truncated,
    /// Not an IPv4 packet.
    #[error("not IPv4")]
    NotIpv4,
    /// From no node that we know, or not from that node's subnet.
    #[error("unknown sender")]
    UnknownSender,
    /// A router on the way has marked congestion, and the inner packet cannot tell its sender (RFC 6040).
    #[error("congestion")]
    Congestion,
    /// Not for our subnet.
    #[error("not for this node's subnet")]
    NotOurs,
}

/// The port could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum ListenerError {
    /// Another program has it.
    #[error("listen on {address}: port {}/udp is in use{}; stop that program or set another Port", .address.port(), by(.holder.as_deref()))]
    InUse {
        /// Address and port.
        address: SocketAddr,
        /// Name and process id of the program that has the port, when it can be found out.
        holder: Option<String>,
    },
    /// The socket could not be opened.
    #[error("listen on {address}/udp")]
    Bind {
        /// Address and port.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The socket failed for good.
    #[error("receive on {address}/udp")]
    Receive {
        /// Address and port.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
}

fn by(holder: Option<&str>) -> String {
    holder.map(|holder| format!(" by {holder}")).unwrap_or_default()
}

/// The bound socket.
#[derive(Debug)]
pub struct Listener {
    socket: UdpSocket,
    address: SocketAddr,
}

/// What the listener has done with what it received.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Received {
    /// Packets written into the TAP.
    pub accepted: u64,
    /// Packets dropped.
    pub refused: u64,
}

impl Listener {
    /// Binds `port` on the underlay address. Must be called in a tokio runtime.
    ///
    /// # Errors
    /// [`ListenerError::InUse`], [`ListenerError::Bind`].
    pub async fn bind(address: impl Into<IpAddr>, port: u16) -> Result<Self, ListenerError> {
        let ip = address.into();
        let address = SocketAddr::new(ip, port);
        match UdpSocket::bind(address).await {
            Ok(socket) => match receive::prepare(&socket) {
                Ok(()) => Ok(Self { socket, address }),
                Err(source) => Err(ListenerError::Bind { address, source }),
            },
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                Err(ListenerError::InUse { address, holder: holder::of_udp_port(ip, port) })
            }
            Err(source) => Err(ListenerError::Bind { address, source }),
        }
    }

    /// Receives for ever; `report` is told the totals after each packet that was accepted or refused.
    ///
    /// # Errors
    /// [`ListenerError::Receive`] when the socket fails for good.
    pub async fn run(
        &self,
        tap: &Tap,
        mac: [u8; 6],
        sources: &(impl Sources + Sync),
        mut report: impl FnMut(Received),
    ) -> Result<(), ListenerError> {
        let mut received = Received::default();
        let mut buffer = BytesMut::zeroed(MAX_PAYLOAD);
        let mut frame = BytesMut::with_capacity(ETHERNET_HEADER + MAX_PAYLOAD);
        loop {
            let datagram = match receive::receive(&self.socket, &mut buffer).await {
                Ok(datagram) => datagram,
                // An ICMP error about something sent earlier; this socket sends nothing, so it is a forged one.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => continue,
                Err(source) => return Err(ListenerError::Receive { address: self.address, source }),
            };
            match check(&buffer, datagram, sources) {
                Ok((packet, tos)) => {
                    build_frame(&mut frame, mac, packet, tos);
                    // Refused while the device is down: dropped, as packets are that arrive then.
                    match tap.send(&frame).await {
                        Ok(()) => received.accepted += 1,
                        Err(_) => received.refused += 1,
                    }
                }
                Err(reason) => {
                    tracing::debug!(sender = %datagram.sender, %reason, "reassembled packet refused");
                    received.refused += 1;
                }
            }
            report(received);
        }
    }
}

/// The inner packet, without what may follow it, and the TOS byte that it gets, if it may come in.
fn check<'a>(buffer: &'a [u8], datagram: Datagram, sources: &impl Sources) -> Result<(&'a [u8], u8), Refused> {
    let payload = buffer.get(..datagram.length).ok_or(Refused::Truncated)?;
    let header = payload.first_chunk::<IPV4_HEADER>().ok_or(Refused::Truncated)?;
    if header[0] >> 4 != 4 {
        return Err(Refused::NotIpv4);
    }
    let header_length = usize::from(header[0] & 0x0f) * 4;
    let total_length = usize::from(u16::from_be_bytes([header[2], header[3]]));
    if header_length < IPV4_HEADER || total_length < header_length {
        return Err(Refused::NotIpv4);
    }
    let packet = payload.get(..total_length).ok_or(Refused::Truncated)?;
    let [.., s0, s1, s2, s3, d0, d1, d2, d3] = *header;
    if !sources.accepts(datagram.sender, Ipv4Addr::new(s0, s1, s2, s3)) {
        return Err(Refused::UnknownSender);
    }
    if !sources.is_ours(Ipv4Addr::new(d0, d1, d2, d3)) {
        return Err(Refused::NotOurs);
    }
    let tos = decapsulated_tos(header[1], datagram.tos).map_err(|_| Refused::Congestion)?;
    Ok((packet, tos))
}

/// Puts an Ethernet header in front of `packet`: to the device itself, so that the stack takes it in.
fn build_frame(frame: &mut BytesMut, mac: [u8; 6], packet: &[u8], tos: u8) {
    frame.clear();
    frame.put_slice(&mac);
    frame.put_slice(&mac);
    frame.put_u16(0x0800);
    frame.put_slice(packet);
    set_tos(&mut frame[ETHERNET_HEADER..], tos);
}

/// Sets the TOS byte of an IPv4 packet and adapts the header checksum (RFC 1624).
fn set_tos(packet: &mut [u8], tos: u8) {
    let old = u16::from_be_bytes([packet[0], packet[1]]);
    let new = u16::from_be_bytes([packet[0], tos]);
    let checksum = u16::from_be_bytes([packet[10], packet[11]]);
    packet[1] = tos;
    // One word has changed; a second pair of equal ones changes nothing.
    packet[10..12].copy_from_slice(&updated_checksum(checksum, [old, 0], [new, 0]).to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: Ipv4Addr = Ipv4Addr::new(192, 168, 50, 2);

    /// One known node with 10.1.16.0/24; ours is 10.1.15.0/24.
    struct OneNode;

    impl Sources for OneNode {
        fn accepts(&self, node: Ipv4Addr, inner_source: Ipv4Addr) -> bool {
            node == NODE && inner_source.octets()[..3] == [10, 1, 16]
        }
        fn is_ours(&self, inner_destination: Ipv4Addr) -> bool {
            inner_destination.octets()[..3] == [10, 1, 15]
        }
    }

    fn packet(change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 24, 0, 0, 0, 0, 64, 17, 0, 0, 10, 1, 16, 2, 10, 1, 15, 2, 1, 2, 3, 4];
        change(&mut packet);
        packet
    }

    #[test]
    fn only_a_whole_ipv4_packet_from_its_node_to_us_is_let_in() {
        let datagram = |payload: &[u8], sender, tos| Datagram { length: payload.len(), sender, tos };
        let cases = [
            ("as it should be", packet(|_| ()), NODE, Ok(24)),
            ("padding behind it is cut off", packet(|packet| packet.extend([0; 9])), NODE, Ok(24)),
            ("no bytes", vec![], NODE, Err(Refused::Truncated)),
            ("half a header", packet(|packet| packet.truncate(19)), NODE, Err(Refused::Truncated)),
            ("shorter than it says", packet(|packet| packet.truncate(23)), NODE, Err(Refused::Truncated)),
            ("IPv6", packet(|packet| packet[0] = 0x65), NODE, Err(Refused::NotIpv4)),
            ("a header length below 20", packet(|packet| packet[0] = 0x44), NODE, Err(Refused::NotIpv4)),
            ("a total length inside the header", packet(|packet| packet[3] = 19), NODE, Err(Refused::NotIpv4)),
            ("an unknown node", packet(|_| ()), Ipv4Addr::new(192, 168, 50, 3), Err(Refused::UnknownSender)),
            ("another node's subnet", packet(|packet| packet[14] = 17), NODE, Err(Refused::UnknownSender)),
            ("for another node", packet(|packet| packet[18] = 16), NODE, Err(Refused::NotOurs)),
        ];
        for (name, payload, sender, expected) in cases {
            let checked = check(&payload, datagram(&payload, sender, 0), &OneNode);
            assert_eq!(checked.map(|(packet, _)| packet.len()), expected, "{name}");
        }
    }

    #[test]
    fn congestion_marked_on_the_way_reaches_the_inner_packet_or_drops_it() {
        let (not_ect, ect, ce) = (0, 2, 3);
        let checked = |inner: u8, outer| {
            let payload = packet(|packet| packet[1] = inner);
            let datagram = Datagram { length: payload.len(), sender: NODE, tos: outer };
            check(&payload, datagram, &OneNode).map(|(_, tos)| tos)
        };
        assert_eq!(checked(0xb8 | ect, ce), Ok(0xb8 | ce));
        assert_eq!(checked(not_ect, ce), Err(Refused::Congestion));
        assert_eq!(checked(0xb8, ect), Ok(0xb8));
    }

    #[test]
    fn a_frame_is_addressed_to_the_device_and_its_checksum_holds() {
        let sum = |header: &[u8]| {
            let words = header.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
            let sum: u32 = words.sum();
            (sum & 0xffff) + (sum >> 16)
        };
        for tos in [0, 1, 0xb8, 0xff] {
            let mut packet = packet(|packet| packet[1] = 2);
            let checksum = !u16::try_from(sum(&packet[..20])).unwrap();
            packet[10..12].copy_from_slice(&checksum.to_be_bytes());
            let mut frame = BytesMut::new();
            build_frame(&mut frame, [2, 0, 0, 0, 0, 7], &packet, tos);
            assert_eq!(&frame[..14], [2, 0, 0, 0, 0, 7, 2, 0, 0, 0, 0, 7, 8, 0]);
            assert_eq!((frame[15], sum(&frame[14..34])), (tos, 0xffff));
            assert_eq!(&frame[34..], [1, 2, 3, 4]);
        }
    }
}
