//! [`Guard`]: a process of its own that puts programs back when the one that has exchanged them is gone, however it ended.
//!
//! It is in a process group of its own, where Ctrl-C does not reach it, and waits for the end of its standard input: the
//! kernel closes that when the other process ends.

use std::{
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    os::unix::process::CommandExt as _,
    path::PathBuf,
    process::{Child, ChildStdin, Command, Stdio},
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::loader::Exchange;

/// The hidden subcommand that is the guard.
const SUBCOMMAND: &str = "trace-guard";

/// What the guard says when it holds all programs.
const READY: &str = "ready";

/// A running guard.
pub(super) struct Guard {
    process: Child,
    input: Option<ChildStdin>,
}

impl Guard {
    /// Starts a guard for the exchanges, none of which may be made before.
    ///
    /// # Errors
    /// When it cannot be started, or does not find the programs.
    pub(super) fn start(exchanges: &[Exchange]) -> Result<Self> {
        let mut command = Command::new("/proc/self/exe");
        command.arg(SUBCOMMAND).stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0);
        let mut process = command.spawn().context("start the guard of the trace")?;
        let (input, output) = (process.stdin.take(), process.stdout.take());
        let (Some(mut input), Some(output)) = (input, output) else { bail!("start the guard of the trace: no pipes") };
        let mut lines = String::new();
        for exchange in exchanges {
            let (original, replacement) = exchange.ids();
            lines += &format!("{original} {replacement} {}\n", exchange.pin().display());
        }
        input.write_all(format!("{lines}\n").as_bytes()).context("talk to the guard of the trace")?;
        let mut answer = String::new();
        BufReader::new(output).read_line(&mut answer).context("talk to the guard of the trace")?;
        ensure!(answer.trim_end() == READY, "the guard of the trace could not hold the programs");
        Ok(Self { process, input: Some(input) })
    }

    /// Whether it still runs.
    pub(super) fn lives(&mut self) -> bool {
        matches!(self.process.try_wait(), Ok(None))
    }

    /// Has it put the programs back, and waits for that.
    ///
    /// # Errors
    /// When it could not.
    pub(super) fn dismiss(mut self) -> Result<()> {
        drop(self.input.take());
        let status = self.process.wait().context("wait for the guard of the trace")?;
        ensure!(status.success(), "the guard of the trace has ended with {status}");
        Ok(())
    }
}

/// Is the guard: holds the programs that standard input names, waits for its end, and puts back those that are to be.
///
/// # Errors
/// When programs are gone, or the kernel refuses.
pub fn guard() -> Result<()> {
    let mut input = io::stdin().lock();
    let mut exchanges = Vec::new();
    loop {
        let mut line = String::new();
        // Its end before the empty line: nothing was exchanged.
        if input.read_line(&mut line)? == 0 {
            return Ok(());
        }
        match line.trim_end_matches('\n') {
            "" => break,
            line => exchanges.push(exchange(line)?),
        }
    }
    println!("{READY}");
    input.read_to_end(&mut Vec::new())?;
    // One that fails does not keep the others from their places.
    let failed: Vec<_> = exchanges.iter().filter_map(|exchange| exchange.restore().err()).collect();
    match failed.into_iter().next() {
        Some(error) => Err(error.into()),
        None => Ok(()),
    }
}

fn exchange(line: &str) -> Result<Exchange> {
    let mut parts = line.splitn(3, ' ');
    let mut part = || parts.next().with_context(|| format!("read an exchange of programs: {line}"));
    let (original, replacement) = (part()?.parse()?, part()?.parse()?);
    Ok(Exchange::hold(PathBuf::from(part()?), original, replacement)?)
}
