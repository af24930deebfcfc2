//! What our programs take for a packet of real traffic, as the kernel counts it.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use anyhow::{Context, Result};
use aya::sys;
use overlay_tests::kernel_objects::{pinned_maps, programs_over};

use crate::{
    bed::Bed,
    cpu,
    ground::GROUNDS,
    report::ProgramTime,
    subject::{Path, SUBJECTS, Subject},
    workload::Workload,
};

/// What the kernel has counted of one program: how often it ran, and nanoseconds.
type Counts = (u64, u128);

/// Measures the programs of every subject that has some, with `ipv6` of those with IPv6, too.
///
/// # Errors
///
/// When a bed cannot be built, or the kernel does not count.
pub(crate) fn measure(duration: Duration, ipv6: bool) -> Result<Vec<ProgramTime>> {
    let two = cpu::two()?;
    let mut times = Vec::new();
    let wanted = |subject: &&Subject| matches!(subject.path, Path::Overlay(..)) && (ipv6 || !subject.has_ipv6());
    for subject in SUBJECTS.iter().filter(wanted) {
        let bed = Bed::build(subject)?;
        let ground = GROUNDS[0];
        bed.prepare(ground, two)?;
        let before = counts(&bed)?;
        // The kernel counts as long as this is open, also if we are killed.
        let counting = sys::enable_stats(sys::Stats::RunTime).context("let the kernel count the programs' time")?;
        Workload::Udp.measure(&bed.ends, ground.layout.cpus(two), duration)?;
        drop(counting);
        for (program, (packets, time)) in counts(&bed)? {
            let (packets_before, time_before) = before.get(&program).copied().unwrap_or_default();
            let (packets, time) = (packets - packets_before, time - time_before);
            if packets > 0 {
                let (subject, ns_per_packet) = (subject.name.to_owned(), time as f64 / packets as f64);
                times.push(ProgramTime { subject, program, packets, ns_per_packet });
            }
        }
    }
    Ok(times)
}

/// The counts of the bed's programs by name, both nodes together.
fn counts(bed: &Bed) -> Result<BTreeMap<String, Counts>> {
    let mut maps = BTreeSet::new();
    for node in &bed.agents {
        maps.extend(pinned_maps(node.run_dir())?);
    }
    let mut counts = BTreeMap::<String, Counts>::new();
    for (program, _) in programs_over(&maps) {
        if let Some(name) = program.name_as_str() {
            let count = counts.entry(name.to_owned()).or_default();
            count.0 += program.run_count();
            count.1 += program.run_time().as_nanos();
        }
    }
    Ok(counts)
}
