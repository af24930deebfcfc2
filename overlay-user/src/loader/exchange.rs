//! [`Exchange`]: another program in a pinned link, and the way back, each in one step and only if nobody else was there.
//!
//! System calls that aya has not, or has for itself: it updates links without asking what is in them.

use std::{
    ffi::CString,
    io, mem,
    os::{
        fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd},
        unix::ffi::OsStrExt as _,
    },
    path::{Path, PathBuf},
};

use aya_obj::generated::{BPF_F_REPLACE, bpf_attr, bpf_cmd};
use nix::errno::Errno;

use super::LoadError;

/// A program that is to take the place of another in a link.
#[derive(Debug)]
pub struct Exchange {
    pin: PathBuf,
    original: Held,
    replacement: Held,
}

/// A program that stays in the kernel as long as this is held.
#[derive(Debug)]
struct Held {
    id: u32,
    descriptor: OwnedFd,
}

impl Exchange {
    /// Holds both programs, named by the kernel's numbers; changes nothing yet.
    ///
    /// # Errors
    /// When one of them is gone.
    pub fn hold(pin: PathBuf, original: u32, replacement: u32) -> Result<Self, LoadError> {
        Ok(Self { pin, original: Held::new(original)?, replacement: Held::new(replacement)? })
    }

    /// The pin of the link.
    #[must_use]
    pub fn pin(&self) -> &Path {
        &self.pin
    }

    /// The kernel's numbers of the program that was there and of the one that takes its place.
    #[must_use]
    pub fn ids(&self) -> (u32, u32) {
        (self.original.id, self.replacement.id)
    }

    /// Puts the replacement into the link. `false`: the original is not there any more, and nothing has changed.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn replace(&self) -> Result<bool, LoadError> {
        self.update(&self.original, &self.replacement)
    }

    /// Puts the original back. `false`: somebody has put something else there meanwhile, which stays, or the link is gone.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn restore(&self) -> Result<bool, LoadError> {
        self.update(&self.replacement, &self.original)
    }

    fn update(&self, old: &Held, new: &Held) -> Result<bool, LoadError> {
        let updated =
            open_link(&self.pin).and_then(|link| update(link.as_fd(), old.descriptor.as_fd(), new.descriptor.as_fd()));
        match updated.map_err(|error| error.raw_os_error().map(Errno::from_raw).ok_or(error)) {
            Ok(()) => Ok(true),
            // Another program is there; the pin is gone; the interface is gone, and the link does nothing any more.
            Err(Ok(Errno::EPERM | Errno::ENOENT | Errno::ENOLINK)) => Ok(false),
            Err(Ok(errno)) => Err(LoadError::Pins { path: self.pin.clone(), source: errno.into() }),
            Err(Err(source)) => Err(LoadError::Pins { path: self.pin.clone(), source }),
        }
    }
}

impl Held {
    fn new(id: u32) -> Result<Self, LoadError> {
        let gone = |_| LoadError::Query(format!("program {id} is gone; try again"));
        Ok(Self { id, descriptor: open_program(id).map_err(gone)? })
    }
}

/// Opens a program that is in the kernel.
fn open_program(id: u32) -> io::Result<OwnedFd> {
    // SAFETY: all zero is a value of each of the union's members.
    let mut attributes: bpf_attr = unsafe { mem::zeroed() };
    attributes.__bindgen_anon_6.__bindgen_anon_1.prog_id = id;
    opened(bpf_cmd::BPF_PROG_GET_FD_BY_ID, &attributes)
}

/// Opens a pinned link.
fn open_link(pin: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(pin.as_os_str().as_bytes())?;
    // SAFETY: as above.
    let mut attributes: bpf_attr = unsafe { mem::zeroed() };
    attributes.__bindgen_anon_4.pathname = path.as_ptr() as u64;
    opened(bpf_cmd::BPF_OBJ_GET, &attributes)
}

/// Puts `new` into the link, if `old` is in it.
fn update(link: BorrowedFd<'_>, old: BorrowedFd<'_>, new: BorrowedFd<'_>) -> io::Result<()> {
    let number = |descriptor: BorrowedFd<'_>| descriptor.as_raw_fd().cast_unsigned();
    // SAFETY: as above.
    let mut attributes: bpf_attr = unsafe { mem::zeroed() };
    attributes.link_update.link_fd = number(link);
    attributes.link_update.__bindgen_anon_1.new_prog_fd = number(new);
    attributes.link_update.__bindgen_anon_2.old_prog_fd = number(old);
    attributes.link_update.flags = BPF_F_REPLACE;
    bpf(bpf_cmd::BPF_LINK_UPDATE, &attributes).map(drop)
}

/// What a command that opens something has opened.
fn opened(command: bpf_cmd, attributes: &bpf_attr) -> io::Result<OwnedFd> {
    let descriptor = bpf(command, attributes)?;
    // SAFETY: the kernel has just opened it for us, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// The system call; what it returns is a descriptor, or of no use.
fn bpf(command: bpf_cmd, attributes: &bpf_attr) -> io::Result<RawFd> {
    // SAFETY: none of the commands writes to the attributes, and what they point to lives as long as the caller's path.
    let returned = unsafe { libc::syscall(libc::SYS_bpf, command as u32, attributes, size_of::<bpf_attr>()) };
    if returned < 0 { Err(io::Error::last_os_error()) } else { Ok(returned as RawFd) }
}
