//! Where programs are attached, and the pins that tell of it.
//!
//! With tcx and XDP a link holds the program in its place, and the pin holds the link. Without tcx a filter holds the
//! program (see [`clsact`](super::clsact)); the pin, of the program then, is there so that the next agent finds what is
//! attached where.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use aya::programs::{
    LinkOrder, ProgramError, SchedClassifier, TcAttachType, Xdp, XdpMode,
    links::{FdLink, PinnedLink},
    tc::{SchedClassifierLink, TcAttachOptions},
    xdp::XdpLink,
};
use nix::errno::Errno;

use super::{Interface, LoadError, clsact::Clsact};
use crate::rundir::RunDir;

/// The programs whose hook is what leaves an interface; the others' is what comes in.
const AT_EGRESS: [&str; 2] = ["to_overlay", "to_container"];

/// The places of one overlay's programs.
#[derive(Debug)]
pub(super) struct Hooks {
    links: PathBuf,
    /// For kernels without tcx.
    clsact: Option<Clsact>,
}

/// Takes away what the removal of the run directory does not: filters.
///
/// # Errors
/// When the kernel refuses.
pub fn take_down(run_dir: &RunDir) -> Result<(), LoadError> {
    Clsact::new(run_dir).detach_everywhere()
}

impl Hooks {
    /// The hooks of the overlay that lives in `run_dir`: tcx where the kernel has it, unless `clsact` is to be taken anyway.
    pub(super) fn new(run_dir: &RunDir, clsact: bool) -> Self {
        Self { links: run_dir.links(), clsact: (clsact || !has_tcx()).then(|| Clsact::new(run_dir)) }
    }

    pub(super) const fn are_filters(&self) -> bool {
        self.clsact.is_some()
    }

    /// The names of all pins, `PROGRAM-IFINDEX`.
    pub(super) fn pinned(&self) -> Result<Vec<String>, LoadError> {
        pins(&self.links)
    }

    /// Detaches the program with this pin, be the interface there or gone.
    pub(super) fn detach(&self, pin: &str) -> Result<(), LoadError> {
        if let (Some(clsact), Some((program, index))) = (&self.clsact, pin.rsplit_once('-'))
            && let Ok(index) = index.parse()
        {
            clsact.detach(index, direction(program))?;
        }
        unpin(&self.links.join(pin))
    }

    /// Attaches a loaded program to one side of an interface, first of those there.
    pub(super) fn attach_tc(
        &self,
        name: &'static str,
        program: &mut SchedClassifier,
        interface: Interface<'_>,
    ) -> Result<(), LoadError> {
        let pin = self.pin_path(name, interface);
        if let Some(clsact) = &self.clsact {
            // Before the filter: what is attached is to be known.
            unpin(&pin)?;
            program.pin(&pin).map_err(|source| LoadError::Pin { path: pin, source })?;
            return clsact.attach(name, program, interface, direction(name));
        }
        let attach = |source| LoadError::Attach { program: name, interface: interface.name.to_owned(), source };
        let link = |source| LoadError::Link { program: name, interface: interface.name.to_owned(), source };
        if let Some(pinned) = pinned_link(&pin) {
            if let Ok(id) = program.attach_to_link(SchedClassifierLink::try_from(pinned).map_err(link)?) {
                // The pin alone holds the link: without it, the link is to go.
                drop(program.take_link(id).map_err(attach)?);
                return Ok(());
            }
            // The interface with this index is another one now: the old link is defunct.
            unpin(&pin)?;
        }
        // First in the chain: a program of others that ends it must not hide tunnel packets from ours.
        let options = TcAttachOptions::TcxOrder(LinkOrder::first());
        let id = program.attach_with_options(interface.name, direction(name), options).map_err(attach)?;
        let owned = program.take_link(id).map_err(attach)?;
        pin_link(owned.try_into().map_err(link)?, &pin)
    }

    /// Attaches a loaded program to an interface's driver.
    pub(super) fn attach_xdp(
        &self,
        name: &'static str,
        program: &mut Xdp,
        interface: Interface<'_>,
    ) -> Result<(), LoadError> {
        let pin = self.pin_path(name, interface);
        let attach = |source| LoadError::Attach { program: name, interface: interface.name.to_owned(), source };
        let link = |source| LoadError::Link { program: name, interface: interface.name.to_owned(), source };
        if let Some(pinned) = pinned_link(&pin) {
            if let Ok(id) = program.attach_to_link(XdpLink::try_from(pinned).map_err(link)?) {
                drop(program.take_link(id).map_err(attach)?);
                return Ok(());
            }
            unpin(&pin)?;
        }
        let id = program.attach(interface.name, XdpMode::Driver).map_err(attach)?;
        let owned = program.take_link(id).map_err(attach)?;
        pin_link(owned.try_into().map_err(link)?, &pin)
    }

    fn pin_path(&self, program: &str, interface: Interface<'_>) -> PathBuf {
        self.links.join(format!("{program}-{}", interface.index))
    }
}

/// The names of all pins in a directory.
pub(super) fn pins(links: &Path) -> Result<Vec<String>, LoadError> {
    let failed = |source| LoadError::Pins { path: links.to_owned(), source };
    let name = |entry: io::Result<fs::DirEntry>| Ok(entry.map_err(failed)?.file_name().to_string_lossy().into_owned());
    fs::read_dir(links).map_err(failed)?.map(name).collect()
}

/// Whether the kernel has tcx: before, it knew no such place to ask about.
fn has_tcx() -> bool {
    let asked = SchedClassifier::query_tcx("lo", TcAttachType::Ingress);
    !matches!(asked, Err(ProgramError::SyscallError(error)) if error.io_error.raw_os_error() == Some(Errno::EINVAL as i32))
}

/// On which side of an interface a program sits.
pub(super) fn direction(program: &str) -> TcAttachType {
    if AT_EGRESS.contains(&program) { TcAttachType::Egress } else { TcAttachType::Ingress }
}

fn pinned_link(path: &Path) -> Option<FdLink> {
    PinnedLink::from_pin(path).ok().map(FdLink::from)
}

fn pin_link(link: FdLink, path: &Path) -> Result<(), LoadError> {
    match link.pin(path) {
        // The pin holds the link now; our own handle may go.
        Ok(pinned) => drop(pinned),
        Err(source) => return Err(LoadError::Pin { path: path.to_owned(), source }),
    }
    Ok(())
}

fn unpin(path: &Path) -> Result<(), LoadError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(LoadError::Pins { path: path.to_owned(), source })
        }
        _ => Ok(()),
    }
}
