//! The time, as maps keep it.

use aya_ebpf::helpers::bpf_ktime_get_coarse_ns;
use overlay_common::Ticks;

/// Ticks since boot, never 0.
#[inline(always)]
pub(crate) fn now() -> Ticks {
    // SAFETY: the helper takes nothing.
    let ticks = (unsafe { bpf_ktime_get_coarse_ns() } >> 20) as Ticks;
    if ticks == 0 { 1 } else { ticks }
}
