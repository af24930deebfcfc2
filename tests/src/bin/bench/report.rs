//! The report as `report.json` holds it. Names of fields are stable: scripts read them.
//!
//! A run replaces the parts that it has measured and leaves the others as an earlier run wrote them; each part says how
//! busy the machine was when it was measured.

use std::{fs, path::Path};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::{cpu, leases::LeasesReport, stats::Summary};

/// The version of this form. A report of another one is not added to.
const VERSION: u32 = 1;

/// The name of the file.
pub(crate) const FILE: &str = "report.json";

/// All of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Report {
    version: u32,
    /// The data path compared with other ways.
    pub(crate) datapath: Option<Datapath>,
    /// What our programs take for a packet.
    pub(crate) programs: Option<Vec<ProgramTime>>,
    /// What our programs take by the size of the cluster.
    pub(crate) lookup: Option<Vec<LookupCost>>,
    /// What our programs take by the number of flows.
    #[serde(default)]
    pub(crate) flows: Option<Vec<FlowCost>>,
    /// What a flood of new flows does to an established one.
    #[serde(default)]
    pub(crate) flood: Option<Vec<FloodCost>>,
    /// The agent by the number of leases.
    pub(crate) leases: Option<LeasesReport>,
}

/// The machine as it was at the start of a part.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Machine {
    /// As `uname -r` has it.
    pub(crate) kernel: String,
    /// The model, as `/proc/cpuinfo` has it.
    pub(crate) cpu: String,
    /// How many CPUs there are.
    pub(crate) cpus: usize,
    /// The load averages over 1, 5 and 15 minutes.
    pub(crate) load: [f64; 3],
}

/// The data path compared with other ways.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Datapath {
    /// The machine at the start.
    pub(crate) machine: Machine,
    /// How often each measurement was made.
    pub(crate) rounds: usize,
    /// How long one took, in seconds.
    pub(crate) seconds: f64,
    /// What makes the figures doubtful; empty when nothing does.
    pub(crate) warnings: Vec<String>,
    /// The figures.
    pub(crate) rows: Vec<Row>,
}

/// One workload of one subject on one ground.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Row {
    /// `bare`, `plain`, `kernel-vxlan`, `tun-proxy`, `overlay-vxlan`, `overlay-udp`, the last two with `-slow` (fast path
    /// off), those with containers and `+masq` (masquerade rules on both nodes), `plain-again`. With `+6in4` IPv6 over an
    /// IPv4 underlay, with `+4in6` and `+6in6` over one of IPv6, with `+6` IPv6 without encapsulation.
    pub(crate) subject: String,
    /// `gso` or `nic`.
    pub(crate) underlay: String,
    /// `one` or `two`.
    pub(crate) cpus: String,
    /// `tcp-1`, `tcp-4`, `request` or `udp`.
    pub(crate) workload: String,
    /// What is counted: `Gbit`, `transaction` or `packet`.
    pub(crate) unit: String,
    /// Units per second.
    pub(crate) rate: Summary,
    /// Busy CPU time per unit in microseconds, softirqs included.
    pub(crate) cpu_us_per_unit: Summary,
    /// Half of the round trips of a round took at most so many microseconds; `request` only.
    pub(crate) p50_us: Option<Summary>,
    /// 99 % of the round trips of a round took at most so many microseconds; `request` only.
    pub(crate) p99_us: Option<Summary>,
    /// The rate over that of the references.
    pub(crate) ratio: Ratios,
}

impl Row {
    /// Where the row was measured and what with: `nic/two/udp`.
    pub(crate) fn place(&self) -> (&str, &str, &str) {
        (&self.underlay, &self.cpus, &self.workload)
    }
}

/// The rate over that of the references: the median of the quotients of each round. With masquerading, the references
/// that masquerade too; with IPv6, the references with the same, which without encapsulation is the inner family.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Ratios {
    /// Over kernel VXLAN as flannel sets it up.
    pub(crate) kernel_vxlan: Option<f64>,
    /// Over plain routing.
    pub(crate) plain: Option<f64>,
    /// Over node to node, without containers.
    pub(crate) bare: Option<f64>,
    /// Over the same subject with IPv4 inside and outside; those with IPv6 only.
    #[serde(default)]
    pub(crate) ipv4: Option<f64>,
}

/// What one of our programs takes for a packet of the `udp` workload (`gso` underlay, one CPU).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct ProgramTime {
    /// The subject.
    pub(crate) subject: String,
    /// The program.
    pub(crate) program: String,
    /// Packets it has seen, on both nodes.
    pub(crate) packets: u64,
    /// Nanoseconds per packet, the kernel's reading of the clock included.
    pub(crate) ns_per_packet: f64,
}

/// What one of our programs takes for a packet by the number of routes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct LookupCost {
    /// The program.
    pub(crate) program: String,
    /// Routes in the maps.
    pub(crate) routes: u32,
    /// For packets of these routes' subnets.
    #[serde(flatten)]
    pub(crate) cost: Cost,
}

/// What `to_container` takes for a packet of an approved flow by the number of flows: one lookup in `FLOWS`, hardly more.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct FlowCost {
    /// Flows in the table, which has room for as many.
    pub(crate) flows: u32,
    /// For packets of these flows.
    #[serde(flatten)]
    pub(crate) cost: Cost,
}

/// What a program takes for a packet with so many entries in its maps: medians of the rounds, and the median of the ratios
/// within a round to the fewest entries.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Cost {
    /// Nanoseconds for the same packet again and again; programs that change the packet have none.
    pub(crate) hot_ns: Option<f64>,
    #[serde(default)]
    pub(crate) hot_ratio: Option<f64>,
    /// Nanoseconds for another entry's packet each time, run once: caches are cold, clock reading included.
    pub(crate) cold_ns: Option<f64>,
    #[serde(default)]
    pub(crate) cold_ratio: Option<f64>,
}

/// What a flood of new flows does to an established one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct FloodCost {
    /// `scan`: nobody answers; `exchange`: a packet there and one back.
    pub(crate) kind: String,
    /// How many flows are new.
    pub(crate) flows: u32,
    /// Packets per second of the established flow before the flood.
    pub(crate) before: f64,
    /// The same while the flood lasts, on another CPU.
    pub(crate) during: f64,
    /// The same afterwards.
    pub(crate) after: f64,
    /// What the flow tables of one node take before the flood, in bytes.
    pub(crate) table_bytes_before: u64,
    /// The same afterwards.
    pub(crate) table_bytes_after: u64,
}

impl Default for Report {
    fn default() -> Self {
        Self { version: VERSION, datapath: None, programs: None, lookup: None, flows: None, flood: None, leases: None }
    }
}

impl Report {
    /// What an earlier run has left in `directory`; nothing, where that is missing or of another form.
    pub(crate) fn read(directory: &Path) -> Self {
        let text = fs::read_to_string(directory.join(FILE)).unwrap_or_default();
        serde_json::from_str(&text).ok().filter(|report: &Self| report.version == VERSION).unwrap_or_default()
    }

    /// Writes it into `directory`.
    ///
    /// # Errors
    ///
    /// When the file cannot be written.
    pub(crate) fn write(&self, directory: &Path) -> Result<()> {
        let path = directory.join(FILE);
        let text = serde_json::to_string_pretty(self)? + "\n";
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))
    }
}

impl Machine {
    /// Reads it now.
    ///
    /// # Errors
    ///
    /// When `/proc` does not say.
    pub(crate) fn now() -> Result<Self> {
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").context("read the kernel's release")?;
        let info = fs::read_to_string("/proc/cpuinfo").context("read /proc/cpuinfo")?;
        let models = || info.lines().filter_map(|line| line.strip_prefix("model name"));
        let cpu = models().next().map_or("unknown", |model| model.trim_start_matches([' ', '\t', ':']));
        let cpus = std::thread::available_parallelism()?.get();
        Ok(Self { kernel: kernel.trim().to_owned(), cpu: cpu.to_owned(), cpus, load: cpu::load()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_read_as_it_was_written_and_one_of_another_form_is_not() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(Report::read(directory.path()), Report::default());
        let cost = Cost { hot_ns: None, hot_ratio: None, cold_ns: Some(1.5), cold_ratio: Some(1.0) };
        let cost = LookupCost { program: "to_overlay".to_owned(), routes: 2, cost };
        let report = Report { lookup: Some(vec![cost]), ..Report::default() };
        report.write(directory.path()).unwrap();
        assert_eq!(Report::read(directory.path()), report);
        Report { version: VERSION + 1, ..report }.write(directory.path()).unwrap();
        assert_eq!(Report::read(directory.path()), Report::default());
    }
}
