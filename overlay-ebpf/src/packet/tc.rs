//! [`TcPacket`]: a socket buffer.

mod pull;

use aya_ebpf::{
    bindings::{
        BPF_F_ADJ_ROOM_ENCAP_L2_ETH, BPF_F_ADJ_ROOM_ENCAP_L4_UDP, BPF_F_ADJ_ROOM_FIXED_GSO, BPF_F_INGRESS,
        BPF_FIB_LKUP_RET_SUCCESS, BPF_FIB_LOOKUP_OUTPUT, bpf_adj_room_mode::BPF_ADJ_ROOM_MAC,
        bpf_fib_lookup as FibLookup,
    },
    helpers::{
        bpf_csum_diff, bpf_fib_lookup, bpf_redirect, bpf_redirect_neigh, bpf_redirect_peer, bpf_skb_change_tail,
    },
    programs::TcContext,
};
use network_types::eth::EthHdr;
use overlay_common::{
    Address as _, LocalNode, Reason, Step, UdpHeaders, UnderlayAddress, VxlanHeaders, XDP_DECAPSULATED,
};

use super::{Packet, view};
use crate::{Verdict, inner::Inner, maps, outer::Outer, trace};

/// The VLAN's number in a tag.
const VLAN_ID: u32 = 0x0fff;

/// Value of `tc_index` on a packet that `from_underlay` lets in: "ov".
const ACCEPTED: u32 = 0x6f76;

/// `BPF_F_ADJ_ROOM_ENCAP_L2(14)`: the kernel derives the inner MAC header from it, so it is the length of the
/// inner Ethernet header alone; software segmentation goes wrong with the VXLAN header counted in.
const ENCAP_L2_ETHERNET: u64 = (EthHdr::LEN as u64) << 56;

/// Outer headers that can be put in front of a packet.
pub(crate) trait OuterHeaders: Copy {
    /// What `bpf_skb_adjust_room` must know about them beside UDP.
    const ROOM: u64;
}

impl<O: Outer> OuterHeaders for UdpHeaders<O> {
    const ROOM: u64 = O::ENCAP;
}

impl<O: Outer> OuterHeaders for VxlanHeaders<O> {
    const ROOM: u64 = O::ENCAP | ENCAP_L2_ETHERNET | BPF_F_ADJ_ROOM_ENCAP_L2_ETH as u64;
}

/// A socket buffer on a TC hook.
pub(crate) struct TcPacket {
    ctx: TcContext,
}

impl TcPacket {
    /// The program's context, for logging.
    #[inline(always)]
    pub(crate) fn context(&self) -> &TcContext {
        &self.ctx
    }

    /// Whether the packet belongs to a VLAN: then it is for a VLAN device on top, not for us. A tag with VLAN 0 gives
    /// only a priority, and the kernel takes such a packet in as if it had none.
    #[inline(always)]
    pub(crate) fn is_in_vlan(&self) -> bool {
        // SAFETY: the context pointer is valid for the run of the program; the verifier checks the field access.
        unsafe { (*self.ctx.skb.skb).vlan_present != 0 && (*self.ctx.skb.skb).vlan_tci & VLAN_ID != 0 }
    }

    /// Leaves a mark that the packet may come in on the overlay device, also after the kernel has decapsulated or
    /// reassembled it.
    #[inline(always)]
    pub(crate) fn mark_accepted(&mut self) {
        // SAFETY: as above. `tc_index` is the one field that survives on the way, that packets from another network
        // namespace cannot bring along without the right to load programs, and that nobody else uses: `mark` belongs
        // to the administrator.
        unsafe { (*self.ctx.skb.skb).tc_index = ACCEPTED };
    }

    /// Takes the mark of [`mark_accepted`](Self::mark_accepted) off, and says whether there was one.
    #[inline(always)]
    pub(crate) fn take_accepted_mark(&mut self) -> bool {
        // SAFETY: as above.
        let marked = unsafe { (*self.ctx.skb.skb).tc_index } == ACCEPTED;
        // SAFETY: as above.
        unsafe { (*self.ctx.skb.skb).tc_index = 0 };
        marked
    }

    /// Whether the tag that the interface has taken off was a priority tag: VLAN 0, which receivers see through.
    #[inline(always)]
    pub(crate) fn has_priority_tag(&self) -> bool {
        // SAFETY: as above.
        unsafe { (*self.ctx.skb.skb).vlan_present != 0 && (*self.ctx.skb.skb).vlan_tci & VLAN_ID == 0 }
    }

    /// Whether `xdp_decap` has taken off this packet's outer headers. Only XDP programs write metadata.
    #[inline(always)]
    pub(crate) fn is_xdp_decapsulated(&self) -> bool {
        // SAFETY: as above.
        let (start, end) = unsafe { ((*self.ctx.skb.skb).data_meta as usize, self.ctx.data()) };
        if start + size_of::<u32>() > end {
            return false;
        }
        // SAFETY: the four bytes lie within the metadata area, checked above.
        unsafe { (start as *const u32).read_unaligned() == XDP_DECAPSULATED }
    }

    /// Makes room for outer headers `H` between the Ethernet header and the IP packet.
    #[inline(always)]
    pub(crate) fn grow<H: OuterHeaders>(&mut self) -> Result<(), Reason> {
        // FIXED_GSO: the segments of a super-packet keep their size, the overlay MTU leaves room for the headers.
        let flags = u64::from(BPF_F_ADJ_ROOM_FIXED_GSO | BPF_F_ADJ_ROOM_ENCAP_L4_UDP) | H::ROOM;
        self.ctx.adjust_room(size_of::<H>() as i32, BPF_ADJ_ROOM_MAC, flags).map_err(|_| Reason::EncapRefused)
    }

    /// Takes `len` bytes away between the Ethernet header and the IP packet, which is of the family that it was before.
    #[inline(always)]
    pub(crate) fn strip(&mut self, len: usize) -> Result<(), Reason> {
        self.strip_with(len, 0)
    }

    /// The same where the packet becomes one of the other family, that of `I`. Kernels before 6.3 refuse.
    #[inline(always)]
    pub(crate) fn strip_to<I: Inner>(&mut self, len: usize) -> Result<(), Reason> {
        self.strip_with(len, I::DECAP)
    }

    #[inline(always)]
    fn strip_with(&mut self, len: usize, flags: u64) -> Result<(), Reason> {
        self.ctx
            .adjust_room(-(len as i32), BPF_ADJ_ROOM_MAC, u64::from(BPF_F_ADJ_ROOM_FIXED_GSO) | flags)
            .map_err(|_| Reason::DecapRefused)
    }

    /// Makes room for a `T` between the Ethernet header and the IP packet.
    #[inline(always)]
    pub(crate) fn insert<T>(&mut self) -> Result<(), Reason> {
        self.ctx.adjust_room(size_of::<T>() as i32, BPF_ADJ_ROOM_MAC, 0).map_err(|_| Reason::EncapRefused)
    }

    /// Cuts the packet off behind `len` bytes.
    #[inline(always)]
    pub(crate) fn shorten(&mut self, len: usize) -> Result<(), Reason> {
        // SAFETY: the helper takes no pointer but the valid context.
        match unsafe { bpf_skb_change_tail(self.ctx.skb.skb, len as u32, 0) } {
            0 => Ok(()),
            _ => Err(Reason::EncapRefused),
        }
    }

    /// The sum for an internet checksum over `N` bytes at `offset`, a multiple of four: 32 bits, not folded.
    #[inline(always)]
    pub(crate) fn sum<const N: usize>(&self, offset: usize) -> Result<u32, Reason> {
        const { assert!(N.is_multiple_of(4), "the helper sums words") };
        let bytes = self.header::<[u8; N]>(offset)?;
        // SAFETY: the helper reads the `N` bytes that `header` has checked, and nothing of the null pointer's 0 bytes.
        let sum = unsafe { bpf_csum_diff(core::ptr::null_mut(), 0, bytes.as_ptr().cast_mut().cast(), N as u32, 0) };
        Ok(sum as u32)
    }

    /// Sends the frame out of interface `ifindex` as it is.
    #[inline(always)]
    pub(crate) fn redirect_out(&mut self, ifindex: u32) -> Verdict {
        trace::tell(Step::Out, ifindex, [0; 6]);
        // SAFETY: the helper takes no pointers. It cannot fail; errors show at delivery.
        unsafe { bpf_redirect(ifindex, 0) };
        Verdict::Redirect
    }

    /// MAC addresses, destination and source, of frames that go to `next_hop` on the underlay interface, if the kernel has
    /// them at hand.
    #[inline(always)]
    pub(crate) fn look_up_neighbour<O: Outer>(
        &self,
        node: &LocalNode,
        next_hop: UnderlayAddress,
    ) -> Option<([u8; 6], [u8; 6])> {
        let lookup = maps::scratch::<FibLookup>()?;
        // SAFETY: integers and byte arrays; zero is "not given" for each.
        unsafe { core::ptr::write_bytes(lookup, 0, 1) };
        lookup.family = O::SOCKET_FAMILY;
        lookup.ifindex = node.underlay_ifindex;
        let (source, destination) = (&raw mut lookup.__bindgen_anon_3, &raw mut lookup.__bindgen_anon_4);
        // SAFETY: both have room for an address of either family, at their start.
        unsafe { source.cast::<O::Address>().write_unaligned(node.address()) };
        // SAFETY: as above.
        unsafe { destination.cast::<O::Address>().write_unaligned(O::Address::from_underlay(next_hop)) };
        let (context, size) = (self.ctx.skb.skb.cast(), size_of::<FibLookup>() as i32);
        // SAFETY: the context is valid, and the helper writes within `lookup`.
        let found = unsafe { bpf_fib_lookup(context, lookup, size, BPF_FIB_LOOKUP_OUTPUT) };
        let usable = found == i64::from(BPF_FIB_LKUP_RET_SUCCESS) && lookup.ifindex == node.underlay_ifindex;
        usable.then_some((lookup.dmac, lookup.smac))
    }

    /// Sends the packet out of interface `ifindex`; the kernel finds the route and the neighbour's MAC address.
    #[inline(always)]
    pub(crate) fn redirect_to_neighbour(&mut self, ifindex: u32) -> Verdict {
        trace::tell(Step::ToNeighbour, ifindex, [0; 6]);
        // SAFETY: without parameters the helper reads no memory of ours. It cannot fail; errors show at delivery.
        unsafe { bpf_redirect_neigh(ifindex, core::ptr::null_mut(), 0, 0) };
        Verdict::Redirect
    }

    /// Puts the packet into the namespace behind `ifindex`, the node's side of a veth, as if the other side had received
    /// it: past everything that is attached to this side.
    #[inline(always)]
    pub(crate) fn redirect_into_peer(&mut self, ifindex: u32) -> Verdict {
        trace::tell(Step::IntoPeer, ifindex, [0; 6]);
        // SAFETY: the helper takes no pointers. It cannot fail; errors show at delivery.
        unsafe { bpf_redirect_peer(ifindex, 0) };
        Verdict::Redirect
    }

    /// Size in bytes of the payload of a super-packet's segments, 0 for other packets.
    #[inline(always)]
    pub(crate) fn gso_size(&self) -> u32 {
        // SAFETY: the context pointer is valid for the run of the program; the verifier checks the field access.
        unsafe { (*self.ctx.skb.skb).gso_size }
    }

    /// Lets the packet come in on interface `ifindex`, as if it had been received there.
    #[inline(always)]
    pub(crate) fn redirect_in(&mut self, ifindex: u32) -> Verdict {
        trace::tell(Step::In, ifindex, [0; 6]);
        // SAFETY: the helper takes no pointers. It cannot fail; errors show at delivery.
        unsafe { bpf_redirect(ifindex, u64::from(BPF_F_INGRESS)) };
        Verdict::Redirect
    }
}

impl Packet for TcPacket {
    #[inline(always)]
    fn header<T>(&self, offset: usize) -> Result<&T, Reason> {
        view(self.ctx.data(), self.ctx.data_end(), offset)
    }

    #[inline(always)]
    fn store<T: Copy>(&mut self, offset: usize, value: &T) -> Result<(), Reason> {
        self.ctx.store(offset, value, 0).map_err(|_| Reason::Truncated)
    }

    #[inline(always)]
    fn len(&self) -> usize {
        self.ctx.len() as usize
    }

    #[inline(always)]
    fn is_gso(&self) -> bool {
        self.gso_size() != 0
    }

    #[inline(always)]
    fn wire_packets(&self) -> u64 {
        // SAFETY: as above.
        let segments = unsafe { (*self.ctx.skb.skb).gso_segs };
        if segments == 0 { 1 } else { u64::from(segments) }
    }

    #[inline(always)]
    fn interface(&self) -> u32 {
        // SAFETY: as above.
        unsafe { (*self.ctx.skb.skb).ifindex }
    }
}
