//! Filters under the clsact queueing discipline: how programs are attached where the kernel has no tcx (before Linux 6.6).
//!
//! All of ours have one priority; the handle is the overlay's, so that two overlays on one interface do not meet. A filter
//! is there until it is taken away, whatever becomes of the agent, and is replaced in its place. The discipline is made
//! where it is missing, which is noted, and goes with the last filter, ours or not, if the note is there.

use std::{
    fs,
    hash::Hasher as _,
    io, mem,
    path::{Path, PathBuf},
};

use aya::programs::{
    SchedClassifier, TcAttachType,
    tc::{NlOptions, SchedClassifierLink, TcAttachOptions, TcError, TcHandle},
};
use fnv::FnvHasher;
use nix::net::if_::if_nameindex;
use rtnetlink::{
    packet_core::{
        NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, NetlinkBuffer,
        NetlinkMessage,
    },
    packet_route::{RouteNetlinkMessage, tc},
    sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE},
};

use super::{Interface, LoadError};
use crate::rundir::{RunDir, private};

/// Before the filters of most others, so that one of theirs that ends the chain does not hide tunnel packets from ours;
/// 1 stays free for who must be first.
const PRIORITY: u16 = 2;

/// All protocols, in network byte order.
const ETH_P_ALL: u32 = (libc::ETH_P_ALL as u16).to_be() as u32;

/// The filters of one overlay.
#[derive(Debug)]
pub(super) struct Clsact {
    handle: u32,
    notes: PathBuf,
}

impl Clsact {
    /// The filters of the overlay that lives in `run_dir`.
    pub(super) fn new(run_dir: &RunDir) -> Self {
        Self { handle: handle(run_dir.path()), notes: run_dir.clsact_notes() }
    }

    /// Attaches `program`, which must be loaded, in the place of the one that this overlay has there, if any.
    pub(super) fn attach(
        &self,
        name: &'static str,
        program: &mut SchedClassifier,
        interface: Interface<'_>,
        direction: TcAttachType,
    ) -> Result<(), LoadError> {
        let failed = |source| LoadError::Attach { program: name, interface: interface.name.to_owned(), source };
        self.add_qdisc(interface)?;
        let handle = TcHandle::from(self.handle);
        let present = SchedClassifierLink::attached(interface.name, direction, PRIORITY, handle, None)
            .map_err(|error| failed(TcError::IoError(error).into()))?;
        let id = program.attach_to_link(present).or_else(|_absent| {
            let options = NlOptions { priority: PRIORITY, handle, classid: None };
            program.attach_with_options(interface.name, direction, TcAttachOptions::Netlink(options))
        });
        let link = program.take_link(id.map_err(failed)?).map_err(failed)?;
        // Dropped, it would detach.
        mem::forget(link);
        Ok(())
    }

    /// Whether this overlay's filter is on one side of an interface.
    pub(super) fn is_attached(&self, index: u32, direction: TcAttachType) -> Result<bool, LoadError> {
        let mut is_there = false;
        let get = RouteNetlinkMessage::GetTrafficFilter(self.filter(index, direction));
        ignore_missing(talk(get, NLM_F_REQUEST | NLM_F_ACK, |kind| is_there |= kind == RTM_NEWTFILTER))
            .map_err(clsact(|| format!("look for the filter of interface {index}")))?;
        Ok(is_there)
    }

    /// Takes this overlay's filter from one side of an interface, and the discipline if it is ours and without use then.
    pub(super) fn detach(&self, index: u32, direction: TcAttachType) -> Result<(), LoadError> {
        self.delete_filter(index, direction)?;
        self.delete_unused_qdisc(index)
    }

    /// Takes this overlay's filters from all interfaces, also where no pin or note tells of them.
    pub(super) fn detach_everywhere(&self) -> Result<(), LoadError> {
        let failed =
            |source: nix::Error| LoadError::Clsact { action: "list interfaces".to_owned(), source: source.into() };
        for interface in &if_nameindex().map_err(failed)? {
            for direction in [TcAttachType::Ingress, TcAttachType::Egress] {
                self.delete_filter(interface.index(), direction)?;
            }
            self.delete_unused_qdisc(interface.index())?;
        }
        Ok(())
    }

    /// Makes the queueing discipline if there is none, and notes that before: whatever happens then, it is known as ours.
    fn add_qdisc(&self, interface: Interface<'_>) -> Result<(), LoadError> {
        let note = self.note(interface.index);
        let was_noted = note.exists();
        let noted = private::create_dir(&self.notes).and_then(|()| private::write_note(&note, ""));
        noted.map_err(clsact(|| format!("create {}", note.display())))?;
        let mut qdisc = message(interface.index, tc::TcHandle::CLSACT);
        qdisc.header.handle = tc::TcHandle { minor: 0, ..tc::TcHandle::CLSACT };
        qdisc.attributes.push(tc::TcAttribute::Kind("clsact".to_owned()));
        match change(RouteNetlinkMessage::NewQueueDiscipline(qdisc), NLM_F_CREATE | NLM_F_EXCL) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && was_noted => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                fs::remove_file(&note).map_err(clsact(|| format!("remove {}", note.display())))
            }
            done => done.map_err(clsact(|| format!("add the clsact qdisc to {}", interface.name))),
        }
    }

    fn delete_filter(&self, index: u32, direction: TcAttachType) -> Result<(), LoadError> {
        ignore_missing(change(RouteNetlinkMessage::DelTrafficFilter(self.filter(index, direction)), 0))
            .map_err(clsact(|| format!("remove the filter of interface {index}")))
    }

    /// The message that names our filter on one side of an interface.
    fn filter(&self, index: u32, direction: TcAttachType) -> tc::TcMessage {
        let mut filter = message(index, parent(direction));
        filter.header.handle = tc::TcHandle { major: (self.handle >> 16) as u16, minor: self.handle as u16 };
        filter.header.info = u32::from(PRIORITY) << 16 | ETH_P_ALL;
        filter
    }

    fn delete_unused_qdisc(&self, index: u32) -> Result<(), LoadError> {
        let note = self.note(index);
        if !note.exists() {
            return Ok(());
        }
        for direction in [TcAttachType::Ingress, TcAttachType::Egress] {
            let free = has_no_filter(index, direction);
            if !free.map_err(clsact(|| format!("list the filters of interface {index}")))? {
                return Ok(());
            }
        }
        let qdisc = message(index, tc::TcHandle::CLSACT);
        ignore_missing(change(RouteNetlinkMessage::DelQueueDiscipline(qdisc), 0))
            .map_err(clsact(|| format!("remove the clsact qdisc of interface {index}")))?;
        fs::remove_file(&note).map_err(clsact(|| format!("remove {}", note.display())))
    }

    fn note(&self, index: u32) -> PathBuf {
        self.notes.join(index.to_string())
    }
}

/// The handle of an overlay's filters; stays the same from one version of the agent to the next.
fn handle(run_dir: &Path) -> u32 {
    let path = run_dir.canonicalize().unwrap_or_else(|_| run_dir.to_owned());
    let mut hasher = FnvHasher::default();
    hasher.write(path.as_os_str().as_encoded_bytes());
    let hash = hasher.finish();
    // 0 would let the kernel choose.
    ((hash ^ hash >> 32) as u32).max(1)
}

/// The message type of a filter in the kernel's answer.
const RTM_NEWTFILTER: u16 = libc::RTM_NEWTFILTER;

fn parent(direction: TcAttachType) -> tc::TcHandle {
    let minor = match direction {
        TcAttachType::Egress => tc::TcHandle::MIN_EGRESS,
        _ => tc::TcHandle::MIN_INGRESS,
    };
    tc::TcHandle { major: tc::TcHandle::CLSACT.major, minor }
}

fn message(index: u32, parent: tc::TcHandle) -> tc::TcMessage {
    let mut message = tc::TcMessage::default();
    message.header.index = index.cast_signed();
    message.header.parent = parent;
    message
}

/// One request, and the kernel's word on it.
fn change(message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
    talk(message, NLM_F_REQUEST | NLM_F_ACK | flags, |_| {})
}

/// Whether an interface has no filter on one side, whoever's.
fn has_no_filter(index: u32, direction: TcAttachType) -> io::Result<bool> {
    let mut none = true;
    let filters = RouteNetlinkMessage::GetTrafficFilter(message(index, parent(direction)));
    talk(filters, NLM_F_REQUEST | NLM_F_DUMP, |kind| none &= kind != RTM_NEWTFILTER)?;
    Ok(none)
}

/// Sends a request and shows the type of each message of the answer. The attributes stay unread: filters of others have
/// more kinds of them than any library knows.
fn talk(message: RouteNetlinkMessage, flags: u16, mut seen: impl FnMut(u16)) -> io::Result<()> {
    let mut request = NetlinkMessage::from(message);
    request.header.flags = flags;
    request.finalize();
    let mut bytes = vec![0; request.buffer_len()];
    request.serialize(&mut bytes);
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    socket.send(&bytes, 0)?;
    loop {
        let (answer, _) = socket.recv_from_full()?;
        let mut rest = answer.as_slice();
        while let Ok(message) = NetlinkBuffer::new_checked(&rest) {
            match message.message_type() {
                NLMSG_DONE => return Ok(()),
                NLMSG_ERROR => {
                    let errno = message.payload().first_chunk().map_or(0, |errno| i32::from_ne_bytes(*errno));
                    return if errno == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(-errno)) };
                }
                kind => seen(kind),
            }
            let length = (message.length() as usize).next_multiple_of(4);
            rest = rest.get(length..).unwrap_or_default();
        }
    }
}

fn ignore_missing(result: io::Result<()>) -> io::Result<()> {
    match result {
        // No such filter; no such discipline; no such interface.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EINVAL | libc::ENODEV)) => Ok(()),
        other => other,
    }
}

fn clsact(action: impl FnOnce() -> String) -> impl FnOnce(io::Error) -> LoadError {
    |source| LoadError::Clsact { action: action(), source }
}
