//! [`Inner`]: the IP header of a container's packet, of either family.

use aya_ebpf::bindings::{BPF_F_ADJ_ROOM_DECAP_L3_IPV4, BPF_F_ADJ_ROOM_DECAP_L3_IPV6};
use network_types::ip::{Ipv4Hdr, Ipv6Hdr};
use overlay_common::{IpHeader, LocalNode, Reason};

use crate::{discovery, flow::Remembered, maps::Key, packet::TcPacket};

/// The IP header of a container's packet: what of it is not alike in both families.
pub(crate) trait Inner: IpHeader<Address: Key + Remembered> {
    /// What `bpf_skb_adjust_room` is told of a packet that has this header in front when outer headers have been taken away.
    const DECAP: u64;

    /// What the header says stands behind it.
    fn protocol(&self) -> u8;

    /// The protocol of TCP, UDP or whatever follows at once; `None` where options, extension headers or a fragment are in
    /// the way.
    fn transport(&self) -> Option<u8>;

    /// Whether one host can have the destination, and others reach it through routers.
    fn is_for_one_host(&self) -> bool;

    /// Refuses what a container may not say about its neighbours' addresses on the link, in a packet of this family.
    fn check_discovery(packet: &TcPacket, node: &LocalNode) -> Result<(), Reason>;
}

impl Inner for Ipv4Hdr {
    const DECAP: u64 = BPF_F_ADJ_ROOM_DECAP_L3_IPV4 as u64;

    #[inline(always)]
    fn protocol(&self) -> u8 {
        self.proto
    }

    #[inline(always)]
    fn transport(&self) -> Option<u8> {
        let whole = self.vihl == 0x45 && self.frag_offset() == 0 && self.frag_flags() & 0b001 == 0;
        whole.then_some(self.proto)
    }

    /// Not "this network", loopback, link-local, multicast or reserved.
    #[inline(always)]
    fn is_for_one_host(&self) -> bool {
        !matches!(self.dst_addr, [0 | 127 | 224..=255, ..] | [169, 254, ..])
    }

    /// IPv4 has ARP for that.
    #[inline(always)]
    fn check_discovery(_: &TcPacket, _: &LocalNode) -> Result<(), Reason> {
        Ok(())
    }
}

/// IPv6's extension headers, as the header in front of them calls them (RFC 8200, section 4): hop-by-hop options, routing,
/// fragment, authentication and destination options.
pub(crate) const HOP_BY_HOP: u8 = 0;
pub(crate) const ROUTING: u8 = 43;
pub(crate) const FRAGMENT: u8 = 44;
pub(crate) const AUTHENTICATION: u8 = 51;
pub(crate) const DESTINATION_OPTIONS: u8 = 60;

impl Inner for Ipv6Hdr {
    const DECAP: u64 = BPF_F_ADJ_ROOM_DECAP_L3_IPV6 as u64;

    #[inline(always)]
    fn protocol(&self) -> u8 {
        self.next_hdr
    }

    #[inline(always)]
    fn transport(&self) -> Option<u8> {
        match self.next_hdr {
            HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION_OPTIONS => None,
            protocol => Some(protocol),
        }
    }

    /// Not unspecified or loopback, IPv4-mapped, link-local or multicast.
    #[inline(always)]
    fn is_for_one_host(&self) -> bool {
        !matches!(self.dst_addr, [0, 0, 0, 0, 0, 0, 0, 0, ..] | [0xfe, 0x80..=0xbf, ..] | [0xff, ..])
    }

    #[inline(always)]
    fn check_discovery(packet: &TcPacket, node: &LocalNode) -> Result<(), Reason> {
        discovery::check(packet, node)
    }
}
