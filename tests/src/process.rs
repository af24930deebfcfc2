//! Child processes that die with us, and waiting for conditions.

use std::{
    fs::{self, File},
    os::unix::process::{CommandExt, ExitStatusExt},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail};
use nix::{
    sys::{
        prctl,
        signal::{Signal, kill},
    },
    unistd::{Pid, getppid},
};

use crate::patience::patient;

/// How often a condition is looked at again.
const POLL: Duration = Duration::from_millis(5);

/// How many lines of a log are shown with a failure.
const TAIL: usize = 20;

/// A command that runs `program` and is killed when the thread that starts it ends, by whatever cause.
///
/// The kernel ties `PR_SET_PDEATHSIG` to the thread, not to the process: start long-lived children from the thread
/// that owns them.
#[must_use]
pub fn command(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    let parent = Pid::this();
    let die_with_parent = move || {
        prctl::set_pdeathsig(Signal::SIGKILL)?;
        // The parent may have ended before the line above.
        if getppid() == parent { Ok(()) } else { Err(std::io::ErrorKind::BrokenPipe.into()) }
    };
    // SAFETY: between fork and exec only the system calls prctl and getppid are made.
    unsafe { command.pre_exec(die_with_parent) };
    command
}

/// Runs `command` to its end and returns its standard output.
///
/// # Errors
///
/// When it cannot be started or fails: the command line and what it wrote to standard error, on one line.
pub fn output(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("start `{}`", line(command)))?;
    let stdout = String::from_utf8_lossy(&output.stdout);
    if output.status.success() {
        return Ok(stdout.into_owned());
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    let said = if stderr.trim().is_empty() { stdout } else { stderr };
    bail!("`{}` failed ({}): {}", line(command), output.status, said.trim().replace('\n', "; "))
}

/// The command line, as a person would type it.
fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

/// A running child, its output in a log file. Killed and waited for when dropped; its log is shown when that
/// happens in a panic.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command`, its standard output and error appended to the file `log`.
    ///
    /// # Errors
    ///
    /// When the log cannot be written or the program not be started.
    pub fn spawn(name: impl Into<String>, mut command: Command, log: &Path) -> Result<Self> {
        let name = name.into();
        let file = File::options().create(true).append(true).open(log);
        let file = file.with_context(|| format!("open the log {}", log.display()))?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let child = command.spawn().with_context(|| format!("start {name}: `{}`", line(&command)))?;
        Ok(Self { name, child, log: log.to_path_buf() })
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends `signal`, unless the process has ended.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        if self.ended()?.is_some() {
            return Ok(());
        }
        // Not yet waited for, so the id cannot belong to anybody else.
        let pid = Pid::from_raw(i32::try_from(self.child.id())?);
        kill(pid, signal).with_context(|| format!("send {signal} to {}", self.name))
    }

    /// How the process ended, if it has.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().with_context(|| format!("look after {}", self.name))
    }

    /// Waits until the process has ended.
    ///
    /// # Errors
    ///
    /// When it still runs after `limit`: with the end of its log.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let what = format!("{} to end", self.name);
        wait_for(&what, limit, || self.ended()).map_err(|error| self.with_tail(&error))
    }

    /// Kills the process and waits for its end.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill().and_then(|()| self.child.wait()).map(drop).with_context(|| format!("kill {}", self.name))
    }

    /// Waits until `ready` yields something; gives up at once when the process ends before.
    ///
    /// # Errors
    ///
    /// When it ended, `ready` failed, or `limit` has passed: with the end of its log.
    pub fn wait_ready<T>(
        &mut self,
        what: &str,
        limit: Duration,
        mut ready: impl FnMut() -> Result<Option<T>>,
    ) -> Result<T> {
        let outcome = wait_for(what, limit, || match (ready()?, self.ended()?) {
            (None, Some(status)) => bail!("{} ended before {what} ({})", self.name, describe(status)),
            (state, _) => Ok(state),
        });
        outcome.map_err(|error| self.with_tail(&error))
    }

    /// Everything the process has written so far.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// The error on one line, and below it the end of the log.
    fn with_tail(&self, error: &anyhow::Error) -> anyhow::Error {
        anyhow!("{error:#}\n{}", self.tail())
    }

    /// The last lines of the log, under a heading.
    #[must_use]
    pub fn tail(&self) -> String {
        let log = self.log();
        let lines: Vec<_> = log.lines().collect();
        let last = &lines[lines.len().saturating_sub(TAIL)..];
        if last.is_empty() {
            return format!("{} wrote nothing", self.name);
        }
        format!("last lines of {}:\n  {}", self.name, last.join("\n  "))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("{}", self.tail());
        }
        if let Err(error) = self.kill() {
            eprintln!("{error:#}");
        }
    }
}

/// "exit status 1" or "killed by SIGTERM".
fn describe(status: ExitStatus) -> String {
    let signal = status.signal().and_then(|number| Signal::try_from(number).ok());
    signal.map_or_else(|| status.to_string(), |signal| format!("killed by {signal}"))
}

/// Waits until `state` yields something, and returns it.
///
/// # Errors
///
/// When `state` fails, or still yields nothing after `limit`: then the message names `what` was waited for.
pub fn wait_for<T>(what: &str, limit: Duration, mut state: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let limit = patient(limit);
    let start = Instant::now();
    loop {
        // Read before the state, so that the state is looked at once more when the limit passes meanwhile.
        let late = start.elapsed() >= limit;
        if let Some(state) = state()? {
            return Ok(state);
        }
        if late {
            bail!("waited {limit:?} in vain for {what}");
        }
        thread::sleep(POLL);
    }
}

/// Waits until `condition` holds.
///
/// # Errors
///
/// When it does not hold within `limit`: the message names `what` was waited for.
pub fn wait_until(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) -> Result<()> {
    wait_for(what, limit, || Ok(condition().then_some(())))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    fn shell(script: &str, directory: &Path) -> Process {
        let mut command = command("sh");
        command.args(["-c", script]);
        Process::spawn("the shell", command, &directory.join("log")).unwrap()
    }

    #[test]
    fn a_child_dies_with_the_thread_that_started_it() {
        let child = thread::spawn(|| command("sleep").arg("1000").spawn().unwrap()).join().unwrap();
        let mut child = child;
        wait_until("the child to die", LIMIT, || child.try_wait().unwrap().is_some()).unwrap();
    }

    #[test]
    fn waiting_for_a_process_that_ended_shows_its_log() {
        let directory = tempfile::tempdir().unwrap();
        let mut shell = shell("echo no such thing; exit 3", directory.path());
        let error = shell.wait_ready("its file", LIMIT, || Ok(None::<()>)).unwrap_err();
        let text = format!("{error:#}");
        assert!(text.contains("no such thing") && text.contains("exit status: 3"), "{text}");
    }

    #[test]
    fn a_stopped_process_goes_on_after_the_signal_to_do_so() {
        let directory = tempfile::tempdir().unwrap();
        let mut shell = shell("kill -STOP $$; exit 7", directory.path());
        let stat = format!("/proc/{}/stat", shell.pid());
        wait_until("the stop", LIMIT, || fs::read_to_string(&stat).unwrap().contains(") T ")).unwrap();
        assert!(shell.ended().unwrap().is_none());
        shell.signal(Signal::SIGCONT).unwrap();
        assert_eq!(shell.wait(LIMIT).unwrap().code(), Some(7));
    }

    #[test]
    fn a_condition_that_never_holds_is_named() {
        let error = wait_until("the moon", Duration::ZERO, || false).unwrap_err();
        assert!(error.to_string().contains("the moon"));
    }
}
