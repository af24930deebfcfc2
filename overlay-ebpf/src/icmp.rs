//! The answer to a packet for a subnet that nobody leases.

use network_types::ip::{IpProto, Ipv4Hdr, Ipv6Hdr};
use overlay_common::{IpHeader as _, LocalNode, Reason, ipv4_checksum};

use crate::{
    Verdict, decap,
    inner::Inner,
    maps,
    packet::{Ethernet, L2, Packet as _, TcPacket},
};

/// How much of the packet is quoted behind its IP header: the eight bytes that RFC 792 asks for; or, where there is as much,
/// all of a TCP header, as the kernel wants it where it has left the checksum for later.
const SHORT_QUOTE: usize = 8;
const LONG_QUOTE: usize = 20;

/// TTL of the answer.
const TTL: u8 = 64;
/// The ECN bits of the TOS byte.
const ECN: u8 = 0b11;

/// IP and ICMP header of the answer.
#[repr(C)]
#[derive(Clone, Copy)]
struct Headers<I> {
    ip: I,
    icmp: Icmp,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Icmp {
    kind: u8,
    code: u8,
    checksum: [u8; 2],
    unused: [u8; 4],
}

const _: () = assert!(size_of::<Headers<Ipv4Hdr>>() == 28 && align_of::<Headers<Ipv4Hdr>>() == 1);
const _: () = assert!(size_of::<Headers<Ipv6Hdr>>() == 48 && align_of::<Headers<Ipv6Hdr>>() == 1);

/// An IP header whose sender can be told that there is no way.
trait Answered: Inner {
    /// "Network unreachable" or "no route to destination": type of the message and code 0.
    const UNREACHABLE: u8;

    /// Whether an error may be sent about the packet: not about errors, nor once for each fragment (RFC 1122, section 3.2.2;
    /// RFC 4443, section 2.4).
    fn may_be_answered(packet: &TcPacket) -> Result<bool, Reason>;

    /// The header of an answer with `length` bytes behind it.
    fn answer(&self, length: usize) -> Self;

    /// How much of a packet of `length` bytes is quoted, and the sum over that; `None` when it is too short.
    fn quote(packet: &TcPacket, length: usize) -> Result<Option<(usize, u32)>, Reason>;

    /// The sum over what the checksum of an answer with `length` bytes behind its IP header covers beside those.
    fn pseudo_header(packet: &TcPacket, length: usize) -> Result<u32, Reason>;
}

impl Answered for Ipv4Hdr {
    const UNREACHABLE: u8 = 3;

    #[inline(always)]
    fn may_be_answered(packet: &TcPacket) -> Result<bool, Reason> {
        const ECHO_REQUEST: u8 = 8;
        let ip = packet.header::<Self>(L2)?;
        if ip.frag_offset() != 0 || ip.header_len() != Self::LEN {
            return Ok(false);
        }
        Ok(ip.proto != IpProto::Icmp as u8 || *packet.header::<u8>(L2 + Self::LEN)? == ECHO_REQUEST)
    }

    #[inline(always)]
    fn answer(&self, length: usize) -> Self {
        let mut ip = Self {
            vihl: 0x45,
            tos: self.tos & !ECN,
            tot_len: ((Self::LEN + length) as u16).to_be_bytes(),
            id: self.id,
            frags: [0; 2],
            ttl: TTL,
            proto: IpProto::Icmp as u8,
            check: [0; 2],
            src_addr: self.dst_addr,
            dst_addr: self.src_addr,
        };
        ip.check = ipv4_checksum(&ip);
        ip
    }

    #[inline(always)]
    fn quote(packet: &TcPacket, length: usize) -> Result<Option<(usize, u32)>, Reason> {
        quote::<{ Self::LEN + SHORT_QUOTE }, { Self::LEN + LONG_QUOTE }>(packet, length)
    }

    #[inline(always)]
    fn pseudo_header(_: &TcPacket, _: usize) -> Result<u32, Reason> {
        Ok(0)
    }
}

impl Answered for Ipv6Hdr {
    const UNREACHABLE: u8 = 1;

    #[inline(always)]
    fn may_be_answered(packet: &TcPacket) -> Result<bool, Reason> {
        const ECHO_REQUEST: u8 = 128;
        match packet.header::<Self>(L2)?.transport() {
            Some(protocol) if protocol == IpProto::Ipv6Icmp as u8 => {
                Ok(*packet.header::<u8>(L2 + Self::LEN)? == ECHO_REQUEST)
            }
            transport => Ok(transport.is_some()),
        }
    }

    #[inline(always)]
    fn answer(&self, length: usize) -> Self {
        let mut ip = Self {
            vcf: [0x60, 0, 0, 0],
            payload_len: (length as u16).to_be_bytes(),
            next_hdr: IpProto::Ipv6Icmp as u8,
            hop_limit: TTL,
            src_addr: self.dst_addr,
            dst_addr: self.src_addr,
        };
        ip.set_tos_and_ttl(self.tos() & !ECN, TTL);
        ip
    }

    #[inline(always)]
    fn quote(packet: &TcPacket, length: usize) -> Result<Option<(usize, u32)>, Reason> {
        quote::<{ Self::LEN + SHORT_QUOTE }, { Self::LEN + LONG_QUOTE }>(packet, length)
    }

    #[inline(always)]
    fn pseudo_header(packet: &TcPacket, length: usize) -> Result<u32, Reason> {
        // Both addresses, which the answer has the other way round.
        let addresses = packet.sum::<32>(L2 + core::mem::offset_of!(Self, src_addr))?;
        let rest = u16::from_ne_bytes([0, IpProto::Ipv6Icmp as u8]);
        Ok(folded(addresses) + u32::from((length as u16).to_be()) + u32::from(rest))
    }
}

/// Turns the packet into an ICMP error to its sender, which comes in on the overlay device.
///
/// The answer bears the address that could not be reached: an address of our own would not be believed there.
#[inline(always)]
pub(crate) fn unreachable(packet: &mut TcPacket) -> Result<Verdict, Reason> {
    let node = maps::local_node().ok_or(Reason::NoRoute)?;
    match packet.header::<Ethernet>(0)?.ether_type {
        Ipv6Hdr::ETHER_TYPE if maps::has_ipv6(node) => answer::<Ipv6Hdr>(packet, node),
        _ => answer::<Ipv4Hdr>(packet, node),
    }
}

/// A function of its own for each family, with a stack of its own.
#[inline(never)]
fn answer<I: Answered>(packet: &mut TcPacket, node: &LocalNode) -> Result<Verdict, Reason> {
    if !I::may_be_answered(packet)? {
        return Err(Reason::NoRoute);
    }
    let inner = *packet.header::<I>(L2)?;
    // Not what may follow the packet.
    let length = if packet.is_gso() { packet.len() - L2 } else { inner.packet_len() };
    let Some((quote_len, sum)) = I::quote(packet, length)? else { return Err(Reason::NoRoute) };
    let icmp_len = size_of::<Icmp>() + quote_len;
    let icmp = icmp(I::UNREACHABLE, folded(sum) + I::pseudo_header(packet, icmp_len)?);
    packet.shorten(L2 + quote_len)?;
    packet.insert::<Headers<I>>()?;
    packet.store(L2, &Headers { ip: inner.answer(icmp_len), icmp })?;
    decap::enter_overlay_device::<I>(packet, node)
}

#[inline(always)]
fn quote<const SHORT: usize, const LONG: usize>(
    packet: &TcPacket,
    length: usize,
) -> Result<Option<(usize, u32)>, Reason> {
    Ok(if length >= LONG {
        Some((LONG, packet.sum::<LONG>(L2)?))
    } else if length >= SHORT {
        Some((SHORT, packet.sum::<SHORT>(L2)?))
    } else {
        None
    })
}

/// The ICMP header in front of a quote; `sum` is that over all else that its checksum covers.
#[inline(always)]
fn icmp(kind: u8, sum: u32) -> Icmp {
    let header = Icmp { kind, code: 0, checksum: [0; 2], unused: [0; 4] };
    // In the order of memory, as the helper sums.
    let first = u16::from_ne_bytes([header.kind, header.code]);
    let sum = folded(folded(sum) + u32::from(first));
    Icmp { checksum: (!(sum as u16)).to_ne_bytes(), ..header }
}

/// A sum in ones' complement, in 16 bits.
#[inline(always)]
fn folded(sum: u32) -> u32 {
    let sum = (sum & 0xffff) + (sum >> 16);
    (sum & 0xffff) + (sum >> 16)
}
