//! What an agent has attached on its node: pinned links, and the programs in them.

use std::{
    collections::BTreeMap,
    ffi::CString,
    fs, io, mem,
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

use anyhow::{Context, Result};
use aya::programs::links::{FdLink, PinnedLink};
use aya_obj::generated::{bpf_attr, bpf_cmd};

/// Where the agent pins its links, below its run directory.
const LINKS: &str = "bpf/v1/links";

/// A link in the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// The kernel's number of the link, which no other ever has.
    pub id: u32,
    /// The kernel's number of the program in it.
    pub program: u32,
}

/// The links pinned in `run_dir`, by the names of their pins.
///
/// # Errors
///
/// When they cannot be read.
pub fn links(run_dir: &Path) -> Result<BTreeMap<String, Link>> {
    let directory = run_dir.join(LINKS);
    let entries = fs::read_dir(&directory).with_context(|| format!("list {}", directory.display()))?;
    let mut links = BTreeMap::new();
    for entry in entries {
        let path = entry?.path();
        let link = PinnedLink::from_pin(&path).with_context(|| format!("open {}", path.display()))?;
        let info = FdLink::from(link).info().with_context(|| format!("ask for {}", path.display()))?;
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        links.insert(name, Link { id: info.id(), program: info.program_id() });
    }
    Ok(links)
}

/// Detaches the link with the pin `name` in `run_dir` as `bpftool link detach` does: it stays, and does nothing.
///
/// # Errors
///
/// When there is no such link.
pub fn detach(run_dir: &Path, name: &str) -> Result<()> {
    let pin = run_dir.join(LINKS).join(name);
    let path = CString::new(pin.as_os_str().as_bytes())?;
    // SAFETY: all zero is a value of each of the union's members.
    let (mut get, mut detach): (bpf_attr, bpf_attr) = unsafe { (mem::zeroed(), mem::zeroed()) };
    get.__bindgen_anon_4.pathname = path.as_ptr() as u64;
    let link = bpf(bpf_cmd::BPF_OBJ_GET, &get).with_context(|| format!("open {}", pin.display()))?;
    // SAFETY: the kernel has just opened it for us, and nobody else knows it.
    let link = unsafe { OwnedFd::from_raw_fd(link) };
    detach.link_detach.link_fd = link.as_raw_fd().cast_unsigned();
    bpf(bpf_cmd::BPF_LINK_DETACH, &detach).with_context(|| format!("detach {}", pin.display()))?;
    Ok(())
}

fn bpf(command: bpf_cmd, attributes: &bpf_attr) -> io::Result<i32> {
    // SAFETY: neither command writes to the attributes, and the path outlives the call.
    let returned = unsafe { libc::syscall(libc::SYS_bpf, command as u32, attributes, size_of::<bpf_attr>()) };
    if returned < 0 { Err(io::Error::last_os_error()) } else { Ok(returned as i32) }
}
