//! The run directory: where the data path lives while no agent does.
//!
//! ```text
//! RUNDIR/agent.lock          held by the one agent of this node; its pid is inside
//! RUNDIR/trace.lock          held by `overlay trace --live`, of which there is one at a time
//! RUNDIR/agent.sock          where the agent says what it knows
//! RUNDIR/device              the names of the overlay devices, a line each
//! RUNDIR/conntrack           what nf_conntrack_tcp_be_liberal was before the agent set it
//! RUNDIR/clsact/IFINDEX      the agent has made the clsact qdisc of this interface (kernels without tcx)
//! RUNDIR/bpf/                a bpffs, mounted here unless the directory is on one already
//! RUNDIR/bpf/v1/maps/NAME    the maps that programs and agent share
//! RUNDIR/bpf/v1/new/NAME     maps of another layout, as long as they are filled to take the place of those
//! RUNDIR/bpf/v1/links/PROGRAM-IFINDEX   attached programs
//! ```
//!
//! `v1` is the version of the layout. What is made here is root's alone, whatever the umask is.

mod error;
mod layout;
mod lock;
mod notes;
pub(crate) mod private;

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    mount::{MntFlags, MsFlags, mount, umount2},
    sys::statfs::{BPF_FS_MAGIC, statfs},
};

pub use self::{error::RunDirError, lock::RunDirLock};

/// The run directory of one overlay on this node.
#[derive(Debug, Clone)]
pub struct RunDir {
    path: PathBuf,
}

impl RunDir {
    /// Names the run directory; touches nothing.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    /// Makes the directory, mounts a bpffs in it if it is not on one, and makes the places for pins.
    ///
    /// # Errors
    /// When a directory cannot be made or the bpffs cannot be mounted; both need root.
    pub fn prepare(&self) -> Result<(), RunDirError> {
        let bpf = self.bpf();
        create_dir(&bpf)?;
        if !is_bpffs(&bpf) {
            let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
            mount(Some("bpf"), &bpf, Some("bpf"), flags, Some("mode=0700")).map_err(|source| RunDirError::Mount {
                action: "mount",
                path: bpf.clone(),
                source,
            })?;
        }
        self.adopt_older_links()?;
        create_dir(&self.maps())?;
        create_dir(&self.links())
    }

    /// Takes the run directory for this process. The directory must exist, or its parents be writable.
    ///
    /// # Errors
    /// [`RunDirError::Held`] when another agent has it.
    pub fn lock(&self) -> Result<RunDirLock, RunDirError> {
        create_dir(&self.path)?;
        RunDirLock::take(&self.lock_file(), |pid| RunDirError::Held { path: self.path.clone(), pid })
    }

    /// Takes the right to exchange the attached programs for a while.
    ///
    /// # Errors
    /// [`RunDirError::Traced`] when another process has it.
    pub fn lock_trace(&self) -> Result<RunDirLock, RunDirError> {
        RunDirLock::take(&self.trace_lock_file(), |pid| RunDirError::Traced { path: self.path.clone(), pid })
    }

    /// The process id of the agent that holds the run directory, if one does. Changes nothing.
    ///
    /// # Errors
    /// [`RunDirError::Lock`] when the lock file cannot be read.
    pub fn holder(&self) -> Result<Option<String>, RunDirError> {
        let path = self.lock_file();
        lock::holder(&path).map_err(|source| RunDirError::Lock { path, source })
    }

    /// Whether the place for pins is on a bpffs already.
    #[must_use]
    pub fn is_on_bpffs(&self) -> bool {
        is_bpffs(&self.bpf())
    }

    /// The directory itself.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Takes away the rest of ours in the run directory, once nothing needs the notes any more: mount and files; and the
    /// directory, if it is empty then. Without the right to unmount, the mount stays for the next agent: then the service
    /// manager has made it.
    ///
    /// # Errors
    /// When the bpffs is busy. What is missing already is no error.
    pub fn remove(&self) -> Result<(), RunDirError> {
        let bpf = self.bpf();
        for note in [self.socket(), self.device_file(), self.conntrack_file(), self.trace_lock_file()] {
            remove(note, |path| fs::remove_file(path))?;
        }
        remove(self.clsact_notes(), |path| fs::remove_dir_all(path))?;
        match umount2(&bpf, MntFlags::empty()) {
            // EINVAL: no mount point, the bpffs is somebody else's.
            Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => remove(bpf, remove_dir_if_empty)?,
            Err(Errno::EPERM) => {}
            Err(source) => return Err(RunDirError::Mount { action: "unmount", path: bpf, source }),
        }
        // Last: until then nobody else may begin here.
        remove(self.lock_file(), |path| fs::remove_file(path))?;
        remove(self.path.clone(), remove_dir_if_empty)
    }

    /// Whether the directory is there.
    #[must_use]
    pub fn exists(&self) -> bool {
        self.path.is_dir()
    }

    /// Whether an agent has set up a data path here, or has begun to.
    #[must_use]
    pub fn has_data_path(&self) -> bool {
        !self.versions().is_empty()
    }

    /// Where the maps are pinned.
    #[must_use]
    pub fn maps(&self) -> PathBuf {
        self.version_dir(layout::VERSION).join("maps")
    }

    /// Where maps of another layout are pinned until they take the place of those that are there.
    #[must_use]
    pub fn new_maps(&self) -> PathBuf {
        self.version_dir(layout::VERSION).join("new")
    }

    /// Where the links are pinned.
    #[must_use]
    pub fn links(&self) -> PathBuf {
        self.version_dir(layout::VERSION).join("links")
    }

    /// Where it is noted which clsact queueing disciplines are ours.
    #[must_use]
    pub fn clsact_notes(&self) -> PathBuf {
        self.path.join("clsact")
    }

    /// The maps' directory, if there is a data path.
    ///
    /// # Errors
    /// [`RunDirError::Empty`] when nothing is pinned here, [`RunDirError::Layout`] when only others can read it,
    /// [`RunDirError::Unreadable`] when that cannot be found out.
    pub fn existing_maps(&self) -> Result<PathBuf, RunDirError> {
        let path = self.bpf();
        match fs::read_dir(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(RunDirError::Unreadable { path, source });
            }
            _ => {}
        }
        match self.versions().last() {
            Some(&layout::VERSION) => Ok(self.maps()),
            Some(&found) => Err(self.other_layout(found)),
            None => Err(RunDirError::Empty { path: self.path.clone() }),
        }
    }

    fn trace_lock_file(&self) -> PathBuf {
        self.path.join("trace.lock")
    }

    fn lock_file(&self) -> PathBuf {
        self.path.join("agent.lock")
    }

    /// Where the agent says what it knows.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.path.join("agent.sock")
    }

    fn bpf(&self) -> PathBuf {
        self.path.join("bpf")
    }

    fn version_dir(&self, version: u32) -> PathBuf {
        self.bpf().join(format!("v{version}"))
    }
}

fn create_dir(path: &Path) -> Result<(), RunDirError> {
    private::create_dir(path).map_err(|source| RunDirError::Create { path: path.to_owned(), source })
}

fn is_bpffs(path: &Path) -> bool {
    statfs(path).is_ok_and(|stat| stat.filesystem_type() == BPF_FS_MAGIC)
}

/// Removes what is there by `how`.
fn remove(path: PathBuf, how: impl Fn(&Path) -> io::Result<()>) -> Result<(), RunDirError> {
    match how(&path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(RunDirError::Remove { path, source }),
        _ => Ok(()),
    }
}

/// Removes a directory of ours, unless somebody else keeps something in it.
fn remove_dir_if_empty(path: &Path) -> io::Result<()> {
    match fs::remove_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(()),
        other => other,
    }
}
