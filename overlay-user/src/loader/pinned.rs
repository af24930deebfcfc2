//! [`Pinned`]: what a pin below `links` holds.

use std::{os::fd::AsFd as _, path::Path};

use aya_obj::generated::bpf_link_type;

use super::syscall::{info, open_pin};

/// What a pin holds; programs by the kernel's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pinned {
    /// A link that holds a program in its place.
    Link(u32),
    /// A link without a place: its interface is gone, or somebody has detached it. It stays pinned, and does nothing.
    Detached,
    /// A program, which a filter holds in its place, or none.
    Program(u32),
}

impl Pinned {
    /// Looks at a pin. None: there is none.
    pub(super) fn read(pin: &Path) -> Option<Self> {
        let info = info(open_pin(pin).ok()?.as_fd()).ok()?;
        let anon = info.__bindgen_anon_1;
        let interface = match info.type_ {
            // SAFETY: the kernel has filled in the part for this type of link, and the rest is zero.
            kind if kind == bpf_link_type::BPF_LINK_TYPE_TCX as u32 => unsafe { anon.tcx.ifindex },
            // SAFETY: as above.
            kind if kind == bpf_link_type::BPF_LINK_TYPE_XDP as u32 => unsafe { anon.xdp.ifindex },
            // The type of a program for TC is no number of theirs; those for XDP are never pinned without a link.
            _ => return Some(Self::Program(info.id)),
        };
        Some(if interface == 0 { Self::Detached } else { Self::Link(info.prog_id) })
    }
}

/// The program in a pinned link that is attached.
pub(super) fn linked_program(pin: &Path) -> Option<u32> {
    match Pinned::read(pin)? {
        Pinned::Link(program) => Some(program),
        Pinned::Detached | Pinned::Program(_) => None,
    }
}
