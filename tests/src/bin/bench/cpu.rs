//! CPUs: which thread runs where, how busy they were, and keeping idle ones awake.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::Write,
    time::Instant,
};

use anyhow::{Context, Result, ensure};
use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    unistd::Pid,
};

/// Clock ticks per second in `/proc/stat`, on every architecture.
const TICKS: f64 = 100.0;

/// The number of a CPU.
pub(crate) type Cpu = usize;

/// The two CPUs that the bench works on: those of the first and of the second node.
///
/// # Errors
///
/// When this process may use only one.
pub(crate) fn two() -> Result<[Cpu; 2]> {
    let allowed = sched_getaffinity(Pid::from_raw(0)).context("ask for our CPUs")?;
    let cpus: Vec<_> = (0..CpuSet::count()).filter(|cpu| allowed.is_set(*cpu).unwrap_or(false)).collect();
    ensure!(cpus.len() >= 2, "the bench needs two CPUs, this process may use {}", cpus.len());
    // The last ones: devices interrupt the first.
    Ok([cpus[cpus.len() - 2], cpus[cpus.len() - 1]])
}

/// Keeps the thread `thread` (0: the calling one) on `cpu`.
///
/// # Errors
///
/// When the kernel refuses.
pub(crate) fn pin(thread: i32, cpu: Cpu) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu)?;
    sched_setaffinity(Pid::from_raw(thread), &set).with_context(|| format!("pin thread {thread} to CPU {cpu}"))
}

/// The threads or processes listed in `directory` (`/proc`, `/proc/self/task`) whose name starts with `name`.
///
/// # Errors
///
/// When the directory cannot be listed.
pub(crate) fn threads(directory: &str, name: &str) -> Result<BTreeSet<i32>> {
    let mut threads = BTreeSet::new();
    for entry in fs::read_dir(directory).with_context(|| format!("list {directory}"))? {
        let entry = entry?;
        let Some(thread) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // It may be gone by now.
        if fs::read_to_string(entry.path().join("comm")).is_ok_and(|comm| comm.starts_with(name)) {
            threads.insert(thread);
        }
    }
    Ok(threads)
}

/// Keeps CPUs out of deep sleep while it lives: waking them up would be what a round trip measures.
#[derive(Debug)]
pub(crate) struct Awake {
    _latency: Option<File>,
}

impl Awake {
    /// Asks for it; where the kernel has no such interface, the figures simply contain the waking.
    pub(crate) fn hold() -> Self {
        let hold = || -> std::io::Result<File> {
            let mut file = File::options().write(true).open("/dev/cpu_dma_latency")?;
            file.write_all(&0_u32.to_ne_bytes())?;
            Ok(file)
        };
        match hold() {
            Ok(file) => Self { _latency: Some(file) },
            Err(error) => {
                eprintln!("note: /dev/cpu_dma_latency not held ({error}): round trips contain the waking of CPUs");
                Self { _latency: None }
            }
        }
    }
}

/// How much some CPUs have idled until a moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Idled {
    at: Instant,
    /// Seconds of all of them together.
    seconds: f64,
}

impl Idled {
    /// Reads it.
    ///
    /// # Errors
    ///
    /// When `/proc/stat` does not say.
    pub(crate) fn now(cpus: &[Cpu]) -> Result<Self> {
        let stat = fs::read_to_string("/proc/stat").context("read /proc/stat")?;
        let at = Instant::now();
        let idle = cpus.iter().map(|cpu| idle_ticks(&stat, *cpu).with_context(|| format!("/proc/stat of CPU {cpu}")));
        Ok(Self { at, seconds: idle.sum::<Result<u64>>()? as f64 / TICKS })
    }

    /// CPU seconds that the `cpus` were busy from then to `later`, whatever with: processes, softirqs, interrupts.
    ///
    /// Idle time is what the kernel measures exactly; the busy kinds are sampled at each tick.
    pub(crate) fn busy_until(&self, later: &Self, cpus: usize) -> f64 {
        let time = (later.at - self.at).as_secs_f64() * cpus as f64;
        (time - (later.seconds - self.seconds)).clamp(0.0, time)
    }
}

/// Ticks that `cpu` has idled, with and without a disk to wait for.
fn idle_ticks(stat: &str, cpu: Cpu) -> Option<u64> {
    let name = format!("cpu{cpu}");
    let mut words = stat.lines().find_map(|line| {
        let mut words = line.split_ascii_whitespace();
        (words.next() == Some(name.as_str())).then_some(words)
    })?;
    let idle: u64 = words.nth(3)?.parse().ok()?;
    let waiting: u64 = words.next()?.parse().ok()?;
    Some(idle + waiting)
}

/// The machine's load averages.
pub(crate) fn load() -> Result<[f64; 3]> {
    let text = fs::read_to_string("/proc/loadavg").context("read /proc/loadavg")?;
    let mut values = text.split(' ').map(str::parse);
    let mut next = || values.next().context("/proc/loadavg is short")?.context("understand /proc/loadavg");
    Ok([next()?, next()?, next()?])
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const STAT: &str = "cpu  1 2 3 4 5 6 7 8 9 10\ncpu0 1 2 3 40 5 6 7 8 9 10\ncpu10 1 2 3 400 50 6 7 8 9 10\nintr 1\n";

    #[test]
    fn idle_time_is_that_of_the_cpu_asked_for() {
        assert_eq!(idle_ticks(STAT, 0), Some(45));
        assert_eq!(idle_ticks(STAT, 10), Some(450));
        assert_eq!(idle_ticks(STAT, 1), None);
    }

    #[test]
    fn what_is_not_idle_is_busy() {
        let at = Instant::now();
        let before = Idled { at, seconds: 5.0 };
        let after = Idled { at: at + Duration::from_secs(2), seconds: 6.0 };
        assert_eq!(before.busy_until(&after, 2), 3.0);
        assert_eq!(before.busy_until(&after, 1), 1.0);
        let rounded = Idled { at: at + Duration::from_secs(2), seconds: 7.01 };
        assert_eq!(before.busy_until(&rounded, 1), 0.0);
    }
}
