//! The answer to a packet for a subnet that nobody leases.

use network_types::ip::{IpProto, Ipv4Hdr};
use overlay_common::{Reason, ipv4_checksum};

use crate::{
    Verdict, decap, maps,
    packet::{L2, Packet as _, TcPacket},
};

const ECHO_REQUEST: u8 = 8;
const DESTINATION_UNREACHABLE: u8 = 3;
const NETWORK: u8 = 0;

/// How much of the packet is quoted: its header without options and the eight bytes that RFC 792 asks for; or, where
/// there is as much, all of a TCP header, as the kernel wants it where it has left the checksum for later.
const SHORT_QUOTE: usize = 20 + 8;
const LONG_QUOTE: usize = 20 + 20;

/// IPv4 and ICMP header of the answer.
#[repr(C)]
#[derive(Clone, Copy)]
struct Headers {
    ip: Ipv4Hdr,
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

const _: () = assert!(size_of::<Headers>() == 28 && align_of::<Headers>() == 1);

/// Turns the packet into an ICMP "network unreachable" to its sender, which comes in on the overlay device.
///
/// The answer bears the address that could not be reached: an address of our own would not be believed there.
#[inline(always)]
pub(crate) fn net_unreachable(packet: &mut TcPacket) -> Result<Verdict, Reason> {
    let node = maps::local_node().ok_or(Reason::NoRoute)?;
    let inner = *packet.header::<Ipv4Hdr>(L2)?;
    if !may_be_answered(packet, &inner)? {
        return Err(Reason::NoRoute);
    }
    // Not what may follow the packet.
    let length = if packet.is_gso() { packet.len() - L2 } else { inner.tot_len() as usize };
    let (quote_len, sum) = if length >= LONG_QUOTE {
        (LONG_QUOTE, packet.sum::<LONG_QUOTE>(L2)?)
    } else if length >= SHORT_QUOTE {
        (SHORT_QUOTE, packet.sum::<SHORT_QUOTE>(L2)?)
    } else {
        return Err(Reason::NoRoute);
    };
    packet.shorten(L2 + quote_len)?;
    packet.insert::<Headers>()?;
    packet.store(L2, &Headers { ip: ip(&inner, quote_len), icmp: icmp(sum) })?;
    decap::deliver(packet, node)
}

/// Whether an error may be sent about the packet (RFC 1122, section 3.2.2): not about errors, nor once for each fragment.
#[inline(always)]
fn may_be_answered(packet: &TcPacket, inner: &Ipv4Hdr) -> Result<bool, Reason> {
    if inner.frag_offset() != 0 || inner.ihl() as usize != Ipv4Hdr::LEN {
        return Ok(false);
    }
    Ok(inner.proto != IpProto::Icmp as u8 || *packet.header::<u8>(L2 + Ipv4Hdr::LEN)? == ECHO_REQUEST)
}

#[inline(always)]
fn ip(inner: &Ipv4Hdr, quote_len: usize) -> Ipv4Hdr {
    let mut ip = Ipv4Hdr {
        vihl: 0x45,
        tos: inner.tos & !ECN,
        tot_len: ((size_of::<Headers>() + quote_len) as u16).to_be_bytes(),
        id: inner.id,
        frags: [0; 2],
        ttl: 64,
        proto: IpProto::Icmp as u8,
        check: [0; 2],
        src_addr: inner.dst_addr,
        dst_addr: inner.src_addr,
    };
    ip.check = ipv4_checksum(&ip);
    ip
}

/// The ECN bits of the TOS byte.
const ECN: u8 = 0b11;

/// The ICMP header in front of a quote with the given sum.
#[inline(always)]
fn icmp(sum: u32) -> Icmp {
    let header = Icmp { kind: DESTINATION_UNREACHABLE, code: NETWORK, checksum: [0; 2], unused: [0; 4] };
    // In the order of memory, as the helper sums.
    let first = u16::from_ne_bytes([header.kind, header.code]);
    let sum = (sum & 0xffff) + (sum >> 16) + u32::from(first);
    let sum = (sum & 0xffff) + (sum >> 16);
    let folded = (sum & 0xffff) + (sum >> 16);
    Icmp { checksum: (!(folded as u16)).to_ne_bytes(), ..header }
}
