//! [`XdpPacket`]: a frame as the driver has received it.

use aya_ebpf::{
    helpers::{bpf_xdp_adjust_head, bpf_xdp_adjust_meta},
    programs::XdpContext,
};
use overlay_common::{Reason, XDP_DECAPSULATED};

use super::{Packet, view};

/// A frame on an XDP hook.
pub(crate) struct XdpPacket {
    ctx: XdpContext,
}

impl XdpPacket {
    #[inline(always)]
    pub(crate) fn new(ctx: XdpContext) -> Self {
        Self { ctx }
    }

    /// The program's context, for logging.
    #[inline(always)]
    pub(crate) fn context(&self) -> &XdpContext {
        &self.ctx
    }

    /// Marks the frame, in metadata that travels with it, as decapsulated by us. Fails where the driver has no
    /// room for metadata: then the frame must go on as it is.
    #[inline(always)]
    pub(crate) fn mark_decapsulated(&mut self) -> Result<(), Unmarked> {
        // SAFETY: the context pointer is valid for the run of the program.
        if unsafe { bpf_xdp_adjust_meta(self.ctx.ctx, -(size_of::<u32>() as i32)) } != 0 {
            return Err(Unmarked);
        }
        let (start, end) = (self.ctx.metadata(), self.ctx.data());
        if start + size_of::<u32>() > end {
            return Err(Unmarked);
        }
        // SAFETY: the four bytes lie within the metadata area, checked above.
        unsafe { (start as *mut u32).write_unaligned(XDP_DECAPSULATED) };
        Ok(())
    }

    /// Takes `len` bytes off the front; what was at `len` becomes the start of the frame.
    #[inline(always)]
    pub(crate) fn strip_front(&mut self, len: usize) -> Result<(), Reason> {
        // SAFETY: the context pointer is valid for the run of the program.
        match unsafe { bpf_xdp_adjust_head(self.ctx.ctx, len as i32) } {
            0 => Ok(()),
            _ => Err(Reason::DecapRefused),
        }
    }
}

/// The driver has no room for metadata.
pub(crate) struct Unmarked;

impl Packet for XdpPacket {
    #[inline(always)]
    fn header<T>(&self, offset: usize) -> Result<&T, Reason> {
        view(self.ctx.data(), self.ctx.data_end(), offset)
    }

    #[inline(always)]
    fn store<T: Copy>(&mut self, offset: usize, value: &T) -> Result<(), Reason> {
        let place: *const T = self.header::<T>(offset)?;
        // SAFETY: `header` checked the bounds, and `&mut self` means that no view is alive.
        unsafe { place.cast_mut().write_unaligned(*value) };
        Ok(())
    }

    #[inline(always)]
    fn len(&self) -> usize {
        self.ctx.data_end() - self.ctx.data()
    }

    #[inline(always)]
    fn is_gso(&self) -> bool {
        false
    }

    #[inline(always)]
    fn wire_packets(&self) -> u64 {
        1
    }

    #[inline(always)]
    fn interface(&self) -> u32 {
        self.ctx.ingress_ifindex() as u32
    }
}
