//! Isolation: what a test or a cluster does on this machine is gone when it ends, however it ends.
//!
//! Nothing here relies on clean-up code, because a process that is killed runs none. What exists is held by something
//! that the kernel takes away with the last process that uses it:
//!
//! - Devices, addresses, routes and rules live in network namespaces without a name ([`crate::netns`]).
//! - Files, sockets, bpffs mounts and thereby pinned maps live under a `tmpfs` on `/run` in a private mount namespace.
//! - Child processes carry `PR_SET_PDEATHSIG` ([`crate::process`]).
//!
//! [`isolated`] gives this to one test. Tests are threads of one process, so it starts a thread and moves that thread
//! alone into a mount namespace; what the thread starts (threads and processes) inherits it. A PID namespace cannot be
//! had for a thread, so a grandchild could survive a killed test. The agent and etcd have no children; whoever starts
//! a daemon that has some must make it the first process of its own PID namespace (`unshare --pid --kill-child`).
//!
//! [`contain`] gives a program that is one process more: a PID namespace, so that nothing at all survives.

use std::{
    fs,
    io::{self, PipeReader, PipeWriter, Read, Write},
    panic,
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicI32, Ordering},
    thread,
};

use anyhow::{Context, Result, bail};
use nix::{
    libc,
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    sys::{
        prctl,
        signal::{SigHandler, SigSet, SigmaskHow, Signal, signal, sigprocmask},
        wait::{WaitStatus, waitpid},
    },
    unistd::{ForkResult, Pid, dup2_stderr, dup2_stdin, dup2_stdout, fork, setsid},
};

/// Where files may be left: exists only on the `tmpfs` that [`private_mounts`] puts on `/run`.
const SCRATCH: &str = "/run/overlay-tests";

/// Signals that ask a program to end.
const END: [Signal; 4] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT];

/// Runs `test` on a thread of its own, in a mount namespace of its own with an empty `/run`.
///
/// A panic of `test` is a panic of the caller. Processes that `test` started end with it.
///
/// # Panics
///
/// When the kernel refuses the isolation, as it does without root.
pub fn isolated<T: Send>(test: impl FnOnce() -> T + Send) -> T {
    let outcome = thread::scope(|scope| {
        scope
            .spawn(|| {
                private_mounts().expect("isolate the test (needs root)");
                test()
            })
            .join()
    });
    outcome.unwrap_or_else(|panic| panic::resume_unwind(panic))
}

/// Moves the calling thread into a mount namespace of its own, with an empty `tmpfs` on `/run`.
fn private_mounts() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS).context("make a mount namespace")?;
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).context("make the mounts private")?;
    mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), Some("mode=0755"))
        .context("mount a tmpfs on /run")?;
    fs::create_dir(SCRATCH).with_context(|| format!("create {SCRATCH}"))
}

/// Whether the caller is in a sandbox, so that mounts and files under `/run` vanish with it.
#[must_use]
pub fn is_private() -> bool {
    Path::new(SCRATCH).is_dir()
}

/// The directory for files that must not outlive the process: in the sandbox when there is one.
#[must_use]
pub fn scratch() -> PathBuf {
    if is_private() { SCRATCH.into() } else { std::env::temp_dir() }
}

/// The child that [`contain`] kills when we are asked to end, and the signal that asked.
static CONTAINED: AtomicI32 = AtomicI32::new(0);
static ASKED_BY: AtomicI32 = AtomicI32::new(0);

/// What the child tells its parent, in two bytes: that it lives, and that it stays and with which exit code.
const ALIVE: u8 = b'a';
const STAYS: u8 = b's';

/// Runs `work` in a child that is the first process of a PID namespace, with mounts as [`isolated`] has them, and
/// returns its exit code, or that of a shell when a signal ended us (130 after Ctrl-C).
///
/// The kernel kills everything in a PID namespace with its first process, and that one is killed when we are asked to
/// end (SIGINT, SIGTERM, SIGHUP, SIGQUIT) or end by any other cause. It has its own session: Ctrl-C reaches us alone.
/// When this returns, every process that `work` started is gone, unless `work` called [`Contained::stay`].
///
/// Must be called before any thread is started.
///
/// # Errors
///
/// When the kernel refuses, as it does without root.
pub fn contain(work: impl FnOnce(Contained) -> u8) -> Result<u8> {
    let (reader, writer) = io::pipe().context("make a pipe")?;
    let ending: SigSet = END.into_iter().collect();
    let mut mask = SigSet::empty();
    // Until the handler knows whom to kill.
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(&ending), Some(&mut mask))?;
    unshare(CloneFlags::CLONE_NEWPID).context("make a PID namespace")?;
    // SAFETY: the caller has no other thread, so the child may do whatever we may.
    match unsafe { fork() }.context("fork")? {
        ForkResult::Parent { child } => {
            drop(writer);
            CONTAINED.store(child.as_raw(), Ordering::SeqCst);
            for number in END {
                // SAFETY: the handler only stores an atomic and calls kill, both async-signal-safe.
                unsafe { signal(number, SigHandler::Handler(kill_contained)) }?;
            }
            sigprocmask(SigmaskHow::SIG_SETMASK, Some(&mask), None)?;
            watch(child, reader)
        }
        ForkResult::Child => {
            drop(reader);
            sigprocmask(SigmaskHow::SIG_SETMASK, Some(&mask), None)?;
            process::exit(work(Contained::new(writer)?).into())
        }
    }
}

extern "C" fn kill_contained(number: libc::c_int) {
    ASKED_BY.store(number, Ordering::SeqCst);
    // SAFETY: kill takes no pointers. The child is not waited for before its pipe is closed, so the id is its own.
    unsafe { libc::kill(CONTAINED.load(Ordering::SeqCst), libc::SIGKILL) };
}

/// Waits for the end of the child, or for its word that it stays.
fn watch(child: Pid, mut reader: PipeReader) -> Result<u8> {
    let mut said = [0; 2];
    loop {
        match reader.read(&mut said) {
            Ok(0) => break,
            Ok(_) if said[0] == STAYS => return Ok(said[1]),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error).context("listen to the contained process"),
        }
    }
    let status = loop {
        match waitpid(child, None) {
            Err(nix::Error::EINTR) => {}
            status => break status.context("wait for the contained process")?,
        }
    };
    match (status, ASKED_BY.load(Ordering::SeqCst)) {
        (WaitStatus::Exited(_, code), 0) => Ok(u8::try_from(code).unwrap_or(u8::MAX)),
        (_, 0) => bail!("the contained process was ended from outside ({status:?})"),
        (_, number) => Ok(u8::try_from(128 + number).unwrap_or(u8::MAX)),
    }
}

/// The contained process, as it sees itself.
#[derive(Debug)]
pub struct Contained {
    pid: u32,
    pipe: PipeWriter,
}

impl Contained {
    fn new(mut pipe: PipeWriter) -> Result<Self> {
        prctl::set_pdeathsig(Signal::SIGKILL)?;
        // A parent that died before the line above has left nobody at the other end.
        pipe.write_all(&[ALIVE, 0]).context("the parent is gone")?;
        setsid().context("start a session")?;
        // The old /proc still numbers processes as the parent sees them.
        let pid = fs::read_link("/proc/self")?.to_string_lossy().parse()?;
        private_mounts()?;
        let none = None::<&str>;
        mount(Some("proc"), "/proc", Some("proc"), MsFlags::empty(), none).context("mount /proc")?;
        Ok(Self { pid, pipe })
    }

    /// The id of this process outside its PID namespace.
    #[must_use]
    pub fn pid_outside(&self) -> u32 {
        self.pid
    }

    /// Lets the parent end with exit code `code`, stays behind without it, and ends when asked by a signal.
    ///
    /// # Errors
    ///
    /// When the kernel refuses; then nothing has changed for the parent.
    pub fn stay(mut self, code: u8) -> Result<()> {
        let ending: SigSet = END.into_iter().collect();
        ending.thread_block()?;
        // The kernel reaps what shells in our PID namespace leave behind.
        // SAFETY: no handler is involved, and no child is waited for any more.
        unsafe { signal(Signal::SIGCHLD, SigHandler::SigIgn) }?;
        let null = fs::File::options().read(true).write(true).open("/dev/null")?;
        prctl::set_pdeathsig(None)?;
        self.pipe.write_all(&[STAYS, code]).context("tell the parent")?;
        // Whoever reads our parent's output waits until nobody can write there.
        dup2_stdin(&null)?;
        dup2_stdout(&null)?;
        dup2_stderr(&null)?;
        ending.wait()?;
        Ok(())
    }
}
