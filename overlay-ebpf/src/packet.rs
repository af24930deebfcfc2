//! Bounds-checked views of a packet, and the only code that resizes one.
//!
//! Views borrow the packet and resizing takes it mutably, so a view that outlives a resize does not compile.

mod tc;
mod xdp;

use network_types::eth::EthHdr;
use overlay_common::Reason;

pub(crate) use self::{
    tc::{OuterHeaders, TcPacket},
    xdp::XdpPacket,
};

/// Length in bytes of the link layer's header on every interface that we attach to.
pub(crate) const L2: usize = EthHdr::LEN;

/// Ethernet header in wire order; network-types' own is aligned to two bytes, packet data is not.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Ethernet {
    pub(crate) destination: [u8; 6],
    pub(crate) source: [u8; 6],
    pub(crate) ether_type: [u8; 2],
}

/// A packet that headers can be read from.
pub(crate) trait Packet {
    /// A view of the `T` at `offset` bytes from the start of the Ethernet header.
    fn header<T>(&self, offset: usize) -> Result<&T, Reason>;

    /// The same for a `T` that must end before `end`, where the bytes that are part of the packet end.
    #[inline(always)]
    fn header_within<T>(&self, offset: usize, end: usize) -> Result<&T, Reason> {
        if offset + size_of::<T>() > end {
            return Err(Reason::Truncated);
        }
        self.header(offset)
    }

    /// Overwrites the bytes at `offset`; `T` is a header field or header.
    fn store<T: Copy>(&mut self, offset: usize, value: &T) -> Result<(), Reason>;

    /// Length in bytes, Ethernet header included.
    fn len(&self) -> usize;

    /// Whether this is a super-packet that stands for several packets on the wire.
    fn is_gso(&self) -> bool;

    /// How many packets on the wire this is.
    fn wire_packets(&self) -> u64;

    /// Index of the interface whose hook the packet is on.
    fn interface(&self) -> u32;
}

/// The packet, in a function of its own that reads it. Otherwise LLVM reads the packet's bounds in front of the call and hands
/// them over as numbers, which the verifier does not take for bounds any more.
#[inline(always)]
pub(crate) fn opaque<P: Packet>(packet: &P) -> &P {
    core::hint::black_box(packet)
}

#[inline(always)]
fn view<'a, T>(data: usize, data_end: usize, offset: usize) -> Result<&'a T, Reason> {
    const { assert!(align_of::<T>() == 1, "packet data has no alignment") };
    let start = data + offset;
    if start + size_of::<T>() > data_end {
        return Err(Reason::Truncated);
    }
    // SAFETY: the bytes lie within the packet, checked above; `T` has alignment 1 and, being a header made of
    // bytes, no invalid values. The callers tie the lifetime to the packet.
    Ok(unsafe { &*(start as *const T) })
}
