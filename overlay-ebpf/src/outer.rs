//! [`Outer`]: the IP header of a packet between nodes, of either family.

use aya_ebpf::bindings::{BPF_F_ADJ_ROOM_ENCAP_L3_IPV4, BPF_F_ADJ_ROOM_ENCAP_L3_IPV6};
use network_types::ip::{Ipv4Hdr, Ipv6Hdr};
use overlay_common::IpHeader;

use crate::{
    inner::FRAGMENT,
    maps::Key,
    packet::{L2, Packet},
};

const PROTO_UDP: u8 = 17;
const MORE_FRAGMENTS: u8 = 0b001;

/// The UDP header behind an outer IP header.
#[derive(Clone, Copy)]
pub(crate) struct Datagram {
    /// Where it begins, in bytes from the IP header.
    pub(crate) offset: usize,
    /// The packet is the first of several fragments.
    pub(crate) fragment: bool,
}

/// The IP header of a packet between nodes: what of it is not alike in both families.
pub(crate) trait Outer: IpHeader<Address: Key> {
    /// What `bpf_skb_adjust_room` is told of a packet that gets such a header in front.
    const ENCAP: u64;
    /// The family's number, as sockets know it.
    const SOCKET_FAMILY: u8;

    /// Whether more than this header may stand in front of the UDP header: options, or a fragment header.
    fn has_options(&self) -> bool;

    /// The UDP datagram that the packet carries, or of which it is the first fragment, if it is valid.
    fn datagram(&self, packet: &impl Packet) -> Option<Datagram>;
}

impl Outer for Ipv4Hdr {
    const ENCAP: u64 = BPF_F_ADJ_ROOM_ENCAP_L3_IPV4 as u64;
    const SOCKET_FAMILY: u8 = 2;

    #[inline(always)]
    fn has_options(&self) -> bool {
        matches!(self.vihl, 0x46..=0x4f)
    }

    #[inline(always)]
    fn datagram(&self, _: &impl Packet) -> Option<Datagram> {
        let is_datagram = self.is_valid() && self.proto == PROTO_UDP && self.frag_offset() == 0;
        is_datagram.then(|| Datagram { offset: self.header_len(), fragment: self.frag_flags() & MORE_FRAGMENTS != 0 })
    }
}

/// IPv6's fragment header (RFC 8200, section 4.5).
#[repr(C)]
struct FragmentHeader {
    next_header: u8,
    _reserved: u8,
    offset_and_flags: [u8; 2],
    _id: [u8; 4],
}

impl Outer for Ipv6Hdr {
    const ENCAP: u64 = BPF_F_ADJ_ROOM_ENCAP_L3_IPV6 as u64;
    const SOCKET_FAMILY: u8 = 10;

    #[inline(always)]
    fn has_options(&self) -> bool {
        self.next_hdr == FRAGMENT
    }

    #[inline(always)]
    fn datagram(&self, packet: &impl Packet) -> Option<Datagram> {
        if !self.is_valid() {
            return None;
        }
        match self.next_hdr {
            PROTO_UDP => Some(Datagram { offset: Self::LEN, fragment: false }),
            FRAGMENT => {
                let fragment = packet.header::<FragmentHeader>(L2 + Self::LEN).ok()?;
                // The lowest bit is "more fragments": the kernel's either way, which takes the header off.
                let is_first = u16::from_be_bytes(fragment.offset_and_flags) >> 3 == 0;
                (fragment.next_header == PROTO_UDP && is_first)
                    .then_some(Datagram { offset: Self::LEN + size_of::<FragmentHeader>(), fragment: true })
            }
            _ => None,
        }
    }
}
