//! [`Traced`]: a program whose every lasting change is seen, and that can be killed right behind any of them.
//!
//! The steps are the program's system calls, as the kernel shows them to a tracer (`ptrace`), so the program knows nothing
//! of it and no step can be forgotten: whoever adds one finds the program killed behind it in the next test.

mod step;

use std::{
    collections::HashMap,
    fs::File,
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Command, Stdio},
    sync::mpsc,
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail};
use nix::{
    errno::Errno,
    libc,
    sys::{
        ptrace,
        signal::{Signal, kill},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};

pub use self::step::Step;
use self::step::{Call, Sockets};
use crate::process::wait_until;

/// A running program under trace.
#[derive(Debug)]
pub struct Traced {
    pid: Pid,
    tracer: JoinHandle<Result<Vec<Step>>>,
}

impl Traced {
    /// Starts `command`, its output appended to the file `log`, and kills it behind its step number `last`, counted from
    /// 1; none: it lives. It ends with the tracing thread at the latest.
    ///
    /// # Errors
    ///
    /// When it cannot be started.
    pub fn start(mut command: Command, log: &Path, last: Option<usize>) -> Result<Self> {
        let file = File::options().create(true).append(true).open(log);
        let file = file.with_context(|| format!("open the log {}", log.display()))?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        // SAFETY: between fork and exec only the system call ptrace is made.
        unsafe { command.pre_exec(|| Ok(ptrace::traceme()?)) };
        let (sender, receiver) = mpsc::channel();
        // The kernel takes one thread for the tracer, and only that may ask about the program.
        let tracer = thread::spawn(move || {
            let child = command.spawn().with_context(|| format!("start {}", command.get_program().display()))?;
            let pid = Pid::from_raw(i32::try_from(child.id())?);
            // Nobody listens if the other thread has given up.
            sender.send(pid).ok();
            trace(pid, last).context("trace a program")
        });
        match receiver.recv() {
            Ok(pid) => Ok(Self { pid, tracer }),
            Err(_) => Err(tracer.join().map_or_else(
                |_| anyhow!("the tracer panicked"),
                |outcome| outcome.map_or_else(|error| error, |_| anyhow!("the program was not started")),
            )),
        }
    }

    /// Whether it has ended.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.tracer.is_finished()
    }

    /// Kills it, if it still runs, and says which steps it has made.
    ///
    /// # Errors
    ///
    /// When tracing failed.
    pub fn kill(self) -> Result<Vec<Step>> {
        match kill(self.pid, Signal::SIGKILL) {
            Ok(()) | Err(Errno::ESRCH) => self.steps(),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Waits until it has ended, and says which steps it has made.
    ///
    /// # Errors
    ///
    /// When it still runs after `limit`, or tracing failed.
    pub fn wait(self, limit: Duration) -> Result<Vec<Step>> {
        match wait_until("a traced program to end", limit, || self.has_ended()) {
            Ok(()) => self.steps(),
            Err(error) => {
                self.kill()?;
                Err(error)
            }
        }
    }

    fn steps(self) -> Result<Vec<Step>> {
        self.tracer.join().map_err(|_| anyhow!("the tracer panicked"))?
    }
}

/// Follows the child `pid`, stopped at its start, and its threads, but not the programs that it runs.
fn trace(pid: Pid, last: Option<usize>) -> Result<Vec<Step>> {
    // Threads are children of another kind, and other threads of this process have children of their own.
    let ours = WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD;
    match waitpid(pid, Some(ours))? {
        WaitStatus::Stopped(_, Signal::SIGTRAP) => {}
        other => bail!("it begins with {other:?}"),
    }
    let options = ptrace::Options::PTRACE_O_TRACESYSGOOD
        | ptrace::Options::PTRACE_O_TRACECLONE
        | ptrace::Options::PTRACE_O_EXITKILL;
    ptrace::setoptions(pid, options)?;
    proceed(pid, None)?;
    let (mut steps, mut sockets, mut entered) = (Vec::new(), Sockets::default(), HashMap::new());
    loop {
        match waitpid(None, Some(ours))? {
            WaitStatus::Exited(ended, _) | WaitStatus::Signaled(ended, ..) if ended == pid => return Ok(steps),
            WaitStatus::PtraceSyscall(thread) => {
                // Killed meanwhile: its end is the next that is heard of it.
                let Ok(info) = ptrace::syscall_info(thread) else { continue };
                match info.op {
                    libc::PTRACE_SYSCALL_INFO_ENTRY => {
                        // SAFETY: the kernel has filled in the variant that `op` names.
                        let entry = unsafe { info.u.entry };
                        entered.insert(thread, Call { thread, number: entry.nr, arguments: entry.args });
                    }
                    libc::PTRACE_SYSCALL_INFO_EXIT => {
                        // SAFETY: as above.
                        let exit = unsafe { info.u.exit };
                        let call = entered.remove(&thread).filter(|_| exit.is_error == 0);
                        steps.extend(call.and_then(|call| call.step(exit.sval, &mut sockets)));
                        if last.is_some_and(|last| steps.len() >= last) {
                            kill(pid, Signal::SIGKILL)?;
                        }
                    }
                    _ => {}
                }
                proceed(thread, None)?;
            }
            // A thread is made, and begins.
            WaitStatus::PtraceEvent(thread, ..) | WaitStatus::Stopped(thread, Signal::SIGSTOP) => {
                proceed(thread, None)?;
            }
            WaitStatus::Stopped(thread, signal) => proceed(thread, Some(signal))?,
            _ => {}
        }
    }
}

/// Lets a stopped thread go on to its next system call. One that is killed meanwhile is no error.
fn proceed(thread: Pid, signal: Option<Signal>) -> Result<()> {
    match ptrace::syscall(thread, signal) {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    /// Runs a shell script in a directory of its own until its end, or its step `last`; says what is in the directory then.
    fn run(script: &str, last: Option<usize>) -> (Vec<String>, Vec<String>) {
        let directory = tempfile::tempdir().unwrap();
        let mut command = crate::process::command("sh");
        command.args(["-c", script]).current_dir(directory.path());
        let log = tempfile::NamedTempFile::new().unwrap();
        let steps = Traced::start(command, log.path(), last).unwrap().wait(LIMIT).unwrap();
        let entries = std::fs::read_dir(directory.path()).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        (steps.iter().map(ToString::to_string).collect(), names)
    }

    #[test]
    fn what_lasts_is_a_step_and_what_only_looks_is_none() {
        let (steps, names) = run("cd . && : < /etc/passwd; : > one; : > two; echo said", None);
        assert_eq!(steps, ["open one", "open two"]);
        assert_eq!(names, ["one", "two"]);
    }

    #[test]
    fn a_program_dies_right_behind_the_step_that_was_named() {
        let (steps, names) = run(": > one; : > two; : > three", Some(2));
        assert_eq!((steps.len(), names), (2, vec!["one".to_owned(), "two".to_owned()]));
    }

    #[test]
    fn programs_that_it_runs_are_steps_as_a_whole() {
        let (steps, names) = run("mkdir one; : > two", None);
        assert_eq!(names, ["one", "two"]);
        assert!(steps.iter().all(|step| !step.contains("one")) && steps.len() >= 3, "{steps:?}");
    }
}
