//! System calls that aya has not, or has for itself: it updates links without asking what is in them, and does not say which
//! interface a link is attached to.

use std::{
    ffi::CString,
    io, mem,
    os::{
        fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

use aya_obj::generated::{BPF_F_REPLACE, bpf_attr, bpf_cmd, bpf_link_info};

/// Opens a program that is in the kernel.
pub(super) fn open_program(id: u32) -> io::Result<OwnedFd> {
    // SAFETY: all zero is a value of each of the union's members.
    let mut attributes: bpf_attr = unsafe { mem::zeroed() };
    attributes.__bindgen_anon_6.__bindgen_anon_1.prog_id = id;
    opened(bpf_cmd::BPF_PROG_GET_FD_BY_ID, &mut attributes)
}

/// Opens what is pinned.
pub(super) fn open_pin(pin: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(pin.as_os_str().as_bytes())?;
    // SAFETY: as above.
    let mut attributes: bpf_attr = unsafe { mem::zeroed() };
    attributes.__bindgen_anon_4.pathname = path.as_ptr() as u64;
    opened(bpf_cmd::BPF_OBJ_GET, &mut attributes)
}

/// Puts `new` into the link, if `old` is in it.
pub(super) fn update(link: BorrowedFd<'_>, old: BorrowedFd<'_>, new: BorrowedFd<'_>) -> io::Result<()> {
    let number = |descriptor: BorrowedFd<'_>| descriptor.as_raw_fd().cast_unsigned();
    // SAFETY: as above.
    let mut attributes: bpf_attr = unsafe { mem::zeroed() };
    attributes.link_update.link_fd = number(link);
    attributes.link_update.__bindgen_anon_1.new_prog_fd = number(new);
    attributes.link_update.__bindgen_anon_2.old_prog_fd = number(old);
    attributes.link_update.flags = BPF_F_REPLACE;
    bpf(bpf_cmd::BPF_LINK_UPDATE, &mut attributes).map(drop)
}

/// What the kernel tells of a link. Asked about a program, it tells of that: its number is then where a link's is.
pub(super) fn info(descriptor: BorrowedFd<'_>) -> io::Result<bpf_link_info> {
    // SAFETY: as above; what the kernel does not fill in stays zero.
    let (mut info, mut attributes): (bpf_link_info, bpf_attr) = unsafe { (mem::zeroed(), mem::zeroed()) };
    attributes.info.bpf_fd = descriptor.as_raw_fd().cast_unsigned();
    attributes.info.info_len = size_of_val(&info) as u32;
    attributes.info.info = &raw mut info as u64;
    bpf(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &mut attributes)?;
    Ok(info)
}

/// What a command that opens something has opened.
fn opened(command: bpf_cmd, attributes: &mut bpf_attr) -> io::Result<OwnedFd> {
    let descriptor = bpf(command, attributes)?;
    // SAFETY: the kernel has just opened it for us, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// The system call; what it returns is a descriptor, or of no use.
fn bpf(command: bpf_cmd, attributes: &mut bpf_attr) -> io::Result<RawFd> {
    // SAFETY: the attributes are ours alone, and what they point to belongs to the caller, who waits.
    let returned = unsafe { libc::syscall(libc::SYS_bpf, command as u32, attributes, size_of::<bpf_attr>()) };
    if returned < 0 { Err(io::Error::last_os_error()) } else { Ok(returned as RawFd) }
}
