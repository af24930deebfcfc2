//! [`Memory`]: what an agent takes as time goes by.

use std::{fs, time::Duration};

use anyhow::{Context, Result};
use serde::Serialize;

/// The samples of one process.
#[derive(Debug)]
pub(crate) struct Memory {
    pid: u32,
    pub(crate) samples: Vec<Sample>,
}

/// What a process takes at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Sample {
    /// Seconds since the start of the traffic.
    pub(crate) at: f64,
    /// Memory that it has in RAM, in KiB.
    pub(crate) resident_kib: u64,
    /// Files, sockets, maps and whatever else it has open.
    pub(crate) descriptors: u64,
}

impl Memory {
    /// That of the process `pid`.
    pub(crate) fn of(pid: u32) -> Self {
        Self { pid, samples: Vec::new() }
    }

    /// Takes a sample.
    ///
    /// # Errors
    ///
    /// When the process has ended.
    pub(crate) fn sample(&mut self, at: Duration) -> Result<()> {
        let process = format!("/proc/{}", self.pid);
        let status = fs::read_to_string(format!("{process}/status"));
        let status = status.context("read the memory of the agent that nobody strikes: has it ended?")?;
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"));
        let resident_kib = resident.context("find VmRSS")?.parse()?;
        let descriptors = fs::read_dir(format!("{process}/fd"))?.count() as u64;
        self.samples.push(Sample { at: at.as_secs_f64(), resident_kib, descriptors });
        Ok(())
    }
}
