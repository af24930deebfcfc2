//! What a process has used of the machine.

use std::{fs, time::Duration};

use anyhow::{Context, Result};
use nix::{time::ClockId, unistd::Pid};

/// CPU time that the process has taken, all threads together, also those that have ended.
///
/// # Errors
///
/// When there is no such process.
pub(super) fn cpu_time(pid: u32) -> Result<Duration> {
    let clock = ClockId::pid_cpu_clock_id(Pid::from_raw(pid.try_into()?)).context("find a process's clock")?;
    Ok(clock.now().context("read a process's clock")?.into())
}

/// Memory of a process in megabytes of 1,000,000 bytes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Memory {
    /// Resident now.
    pub(super) resident: f64,
    /// The most that was ever resident.
    pub(super) peak: f64,
}

impl Memory {
    /// Reads it.
    ///
    /// # Errors
    ///
    /// When there is no such process.
    pub(super) fn of(pid: u32) -> Result<Self> {
        let path = format!("/proc/{pid}/status");
        let status = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
        Self::parse(&status).with_context(|| format!("no memory in {path}"))
    }

    fn parse(status: &str) -> Option<Self> {
        let field = |name: &str| {
            let value = status.lines().find_map(|line| line.strip_prefix(name))?;
            let kib: f64 = value.trim().strip_suffix(" kB")?.parse().ok()?;
            Some(kib * 1024.0 / 1e6)
        };
        Some(Self { resident: field("VmRSS:")?, peak: field("VmHWM:")? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_from_the_status() {
        let memory = Memory::parse("Name:\tx\nVmHWM:\t    2000 kB\nVmRSS:\t    1000 kB\n").unwrap();
        assert_eq!(memory, Memory { resident: 1.024, peak: 2.048 });
        assert_eq!(Memory::parse("Name:\tx\n"), None);
    }

    #[test]
    fn our_own_time_goes_on() {
        let before = cpu_time(std::process::id()).unwrap();
        let mut sum = 0_u64;
        while cpu_time(std::process::id()).unwrap() - before < Duration::from_millis(2) {
            sum = std::hint::black_box(sum + 1);
        }
    }
}
