//! How much of a packet is pulled into its linear part, where views can reach it, when a program begins.

use aya_ebpf::programs::TcContext;
use network_types::ip::{Ipv4Hdr, Ipv6Hdr};
use overlay_common::IpHeader as _;

use super::TcPacket;
use crate::{
    maps,
    outer::Outer,
    packet::{L2, Packet as _},
};

/// The most that decap looks at: outer Ethernet, IPv4 with all its options, UDP, VXLAN, inner Ethernet and IPv6. Over IPv6 it
/// is less, also with a fragment header.
const DECAP_HEADERS: usize = 14 + 60 + 8 + 8 + 14 + 40;

/// Length in bytes of a TCP header without options.
const TCP_LEN: usize = 20;

/// IPv6 as the context's `protocol` says it.
const PROTOCOL_IPV6: u32 = 0x86dd_u16.to_be() as u32;

/// The most that a program looks at in a packet that is not encapsulated: Ethernet, and IPv4 and TCP without options.
const BARE_HEADERS: usize = L2 + Ipv4Hdr::LEN + TCP_LEN;
/// The same of IPv6.
const BARE_HEADERS_V6: usize = L2 + Ipv6Hdr::LEN + TCP_LEN;

impl TcPacket {
    /// Takes a packet that may be an outer one. Its headers can be viewed, but no more is pulled than they are: where a TCP
    /// packet has its payload in pages, what follows would be moved out of its page, for each packet.
    #[inline(always)]
    pub(crate) fn from_wire(ctx: TcContext) -> Self {
        let packet = Self { ctx };
        if packet.is_ipv6() {
            packet.pull_tunnel::<Ipv6Hdr>();
        } else {
            packet.pull_tunnel::<Ipv4Hdr>();
        }
        packet
    }

    /// Takes a packet as a container sends or gets it. What a TCP sender hands down is shared with its queue: pulling more
    /// than the kernel has in the linear part would copy each packet.
    #[inline(always)]
    pub(crate) fn bare(ctx: TcContext) -> Self {
        let packet = Self { ctx };
        packet.pull(if packet.is_ipv6() { BARE_HEADERS_V6 } else { BARE_HEADERS });
        packet
    }

    /// Pulls the headers of a packet that may be a tunnel packet over the outer family `O`: up to the inner TCP header, without
    /// options, which is what the fast path looks at. Whether the inner packet is IPv6, which is longer, its Ethernet header
    /// says; of what is no tunnel packet, some bytes more or less do not matter.
    #[inline(always)]
    fn pull_tunnel<O: Outer>(&self) {
        let inner = L2 + usize::from(maps::encapsulation().overhead::<O::Address>());
        self.pull(inner + Ipv4Hdr::LEN + TCP_LEN);
        if self.header::<O>(L2).is_ok_and(O::has_options) {
            self.pull(DECAP_HEADERS);
        } else if self.header::<[u8; 2]>(inner - 2).is_ok_and(|ether_type| *ether_type == Ipv6Hdr::ETHER_TYPE) {
            self.pull(inner + Ipv6Hdr::LEN + TCP_LEN);
        }
    }

    /// Pulls the first `len` bytes, or all that there are, into the linear part, where views can reach them.
    #[inline(always)]
    fn pull(&self, len: usize) {
        let len = len as u32;
        let want = if self.ctx.len() < len { self.ctx.len() } else { len };
        if self.ctx.data() + want as usize > self.ctx.data_end() && self.ctx.pull_data(want).is_err() {
            // Out of memory: the headers cannot be seen, the views say "truncated" and the packet is dropped.
        }
    }

    /// Whether the packet is IPv6.
    #[inline(always)]
    fn is_ipv6(&self) -> bool {
        // SAFETY: the context pointer is valid for the run of the program; the verifier checks the field access.
        unsafe { (*self.ctx.skb.skb).protocol == PROTOCOL_IPV6 }
    }
}
