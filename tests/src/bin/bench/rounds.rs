//! The data path: every subject does the same work in every round, one right after the other.
//!
//! A round begins with fresh beds. Ground by ground and workload by workload all subjects take their turn, so what is
//! compared was measured within seconds.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use regex::Regex;

use crate::{
    bed::Bed,
    cpu::{self, Awake, Cpu},
    ground::{GROUNDS, Ground},
    report::{Datapath, Machine, Ratios, Row},
    stats::{Better, Summary},
    subject::{AGAIN, Reference, SUBJECTS, Subject},
    workload::{Sample, WORKLOADS, Workload},
};

/// How far the two measurements of the same may be apart before there is a warning.
const NOISE: f64 = 0.1;

/// The load average that is not idle any more.
const BUSY: f64 = 0.5;

/// How much is measured.
#[derive(Debug)]
pub(crate) struct Extent {
    /// How often.
    pub(crate) rounds: usize,
    /// How long each time.
    pub(crate) duration: Duration,
    /// Which rows, as `overlay-udp/nic/two/tcp-4`; all where there is none.
    pub(crate) only: Option<Regex>,
    /// Whether those with IPv6 are among all.
    pub(crate) ipv6: bool,
}

/// One measurement, made once in every round.
#[derive(Debug, Clone, Copy)]
struct Step {
    subject: &'static Subject,
    ground: Ground,
    workload: Workload,
}

impl Step {
    fn name(self) -> String {
        format!("{}/{}/{}", self.subject.name, self.ground, self.workload)
    }
}

/// Measures everything in `extent`.
///
/// # Errors
///
/// When a bed cannot be built, or a workload fails on one.
pub(crate) fn measure(extent: &Extent) -> Result<Datapath> {
    let machine = Machine::now()?;
    let steps = plan(extent);
    if steps.is_empty() {
        bail!("--only fits no row; rows are named like `{}`", example());
    }
    let two = cpu::two()?;
    let _awake = Awake::hold();
    let mut samples = BTreeMap::<usize, Vec<Sample>>::new();
    for round in 1..=extent.rounds {
        one_round(&format!("round {round} of {}", extent.rounds), &steps, two, extent.duration, &mut samples)?;
    }
    let mut rows: Vec<_> =
        steps.iter().zip(samples.values()).filter_map(|(step, samples)| row(*step, samples)).collect();
    compare(&mut rows);
    let warnings = warnings(&rows, &machine);
    Ok(Datapath { machine, rounds: extent.rounds, seconds: extent.duration.as_secs_f64(), warnings, rows })
}

fn example() -> String {
    Step { subject: &SUBJECTS[3], ground: GROUNDS[3], workload: WORKLOADS[0] }.name()
}

/// The steps of a round in their order: those that are asked for, and what they are compared with.
fn plan(extent: &Extent) -> Vec<Step> {
    let asked_for = |step: &Step| match &extent.only {
        Some(only) => only.is_match(&step.name()),
        None => extent.ipv6 || !step.subject.has_ipv6(),
    };
    let mut steps = Vec::new();
    for ground in GROUNDS {
        for workload in WORKLOADS {
            let turn = || SUBJECTS.iter().map(move |subject| Step { subject, ground, workload });
            let chosen: Vec<_> = turn().filter(asked_for).map(|step| step.subject).collect();
            let references = chosen.iter().flat_map(|subject| Reference::ALL.map(|reference| reference.of(subject)));
            let mut wanted: Vec<_> = chosen.iter().copied().chain(references.flatten()).collect();
            if !chosen.is_empty() {
                // Plain routing measured twice, by which noise is judged.
                wanted.extend(SUBJECTS.iter().filter(|subject| subject.name == AGAIN || *subject == &SUBJECTS[0]));
            }
            steps.extend(turn().filter(|step| wanted.contains(&step.subject)));
        }
    }
    steps
}

fn one_round(
    name: &str,
    steps: &[Step],
    two: [Cpu; 2],
    duration: Duration,
    samples: &mut BTreeMap<usize, Vec<Sample>>,
) -> Result<()> {
    let start = Instant::now();
    let used = SUBJECTS.iter().filter(|subject| steps.iter().any(|step| step.subject == *subject));
    let beds = used.map(Bed::build).collect::<Result<Vec<_>>>()?;
    eprintln!("{name}: {} beds built in {:.1} s", beds.len(), start.elapsed().as_secs_f64());
    for ground in GROUNDS {
        let here: Vec<_> = steps.iter().enumerate().filter(|(_, step)| step.ground == ground).collect();
        if here.is_empty() {
            continue;
        }
        for bed in &beds {
            bed.prepare(ground, two).with_context(|| format!("prepare {ground} for {}", bed.subject.name))?;
        }
        for (number, step) in here {
            let bed = beds.iter().find(|bed| bed.subject == step.subject).context("a bed for each subject")?;
            let sample = step.workload.measure(&bed.ends, ground.layout.cpus(two), duration);
            samples.entry(number).or_default().push(sample.with_context(|| step.name())?);
        }
        eprintln!("{name}: {ground} done after {:.1} s", start.elapsed().as_secs_f64());
    }
    Ok(())
}

fn row(step: Step, samples: &[Sample]) -> Option<Row> {
    let summary = |better, value: &dyn Fn(&Sample) -> Option<f64>| {
        Summary::of(samples.iter().map(value).collect::<Option<Vec<_>>>()?, better)
    };
    Some(Row {
        subject: step.subject.name.to_owned(),
        underlay: step.ground.underlay.to_string(),
        cpus: step.ground.layout.to_string(),
        workload: step.workload.to_string(),
        unit: step.workload.unit().to_owned(),
        rate: summary(Better::Higher, &|sample| Some(sample.rate))?,
        cpu_us_per_unit: summary(Better::Lower, &|sample| Some(sample.cpu_us))?,
        p50_us: summary(Better::Lower, &|sample| Some(sample.delays_us?[0])),
        p99_us: summary(Better::Lower, &|sample| Some(sample.delays_us?[1])),
        ratio: Ratios::default(),
    })
}

/// Fills in the ratios.
fn compare(rows: &mut [Row]) {
    let all = rows.to_vec();
    for row in rows {
        let Some(subject) = SUBJECTS.iter().find(|subject| subject.name == row.subject) else { continue };
        let ratio = |reference: Reference| {
            let name = reference.of(subject)?.name;
            let reference = all.iter().find(|other| other.subject == name && other.place() == row.place())?;
            row.rate.ratio_to(&reference.rate)
        };
        let [kernel_vxlan, plain, bare, ipv4] = Reference::ALL.map(ratio);
        row.ratio = Ratios { kernel_vxlan, plain, bare, ipv4 };
    }
}

/// What makes the figures doubtful.
fn warnings(rows: &[Row], machine: &Machine) -> Vec<String> {
    let mut warnings = Vec::new();
    if machine.load[0] > BUSY {
        warnings.push(format!("the machine was busy at the start: load average {:.2}", machine.load[0]));
    }
    for row in rows.iter().filter(|row| row.subject == AGAIN) {
        if let Some(ratio) = row.ratio.plain.filter(|ratio| (ratio - 1.0).abs() > NOISE) {
            let (underlay, cpus, workload) = row.place();
            warnings.push(format!("{underlay}/{cpus}/{workload}: plain routing measured twice differs by {ratio:.2}"));
        }
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows_of(rates: &[(&str, f64)]) -> Vec<Row> {
        let row = |(name, rate): &(&str, f64)| {
            let subject = SUBJECTS.iter().find(|subject| subject.name == *name).unwrap();
            let sample = Sample { rate: *rate, cpu_us: 1.0, delays_us: None };
            row(Step { subject, ground: GROUNDS[0], workload: Workload::Udp }, &[sample]).unwrap()
        };
        rates.iter().map(row).collect()
    }

    fn names(only: Option<&str>, ipv6: bool) -> Vec<String> {
        let only = only.map(|only| Regex::new(only).unwrap());
        let extent = Extent { rounds: 1, duration: Duration::ZERO, only, ipv6 };
        plan(&extent).into_iter().map(Step::name).collect()
    }

    fn machine(load: f64) -> Machine {
        Machine { kernel: String::new(), cpu: String::new(), cpus: 2, load: [load; 3] }
    }

    #[test]
    fn what_is_asked_for_is_measured_with_what_it_is_compared_with() {
        let names_of = |subject| names(Some(&format!("{subject}/nic/two/udp")), false);
        let subjects = ["plain", "bare", "plain+masq", "kernel-vxlan+masq", "overlay-udp+masq", "plain-again"];
        assert_eq!(names_of("overlay-udp[+]masq"), subjects.map(|subject| format!("{subject}/nic/two/udp")));
        let subjects = ["plain", "bare", "overlay-vxlan", "kernel-vxlan+4in6", "overlay-vxlan+4in6", "plain-again"];
        assert_eq!(names_of("overlay-vxlan[+]4in6"), subjects.map(|subject| format!("{subject}/nic/two/udp")));
        assert!(names(Some("nonsense"), true).is_empty());
    }

    #[test]
    fn ipv6_is_measured_where_it_is_asked_for() {
        let of_subject = GROUNDS.len() * WORKLOADS.len();
        assert_eq!(names(None, true).len(), SUBJECTS.len() * of_subject);
        let with_ipv6 = SUBJECTS.iter().filter(|subject| subject.has_ipv6()).count();
        assert_eq!(names(None, false).len(), (SUBJECTS.len() - with_ipv6) * of_subject);
    }

    #[test]
    fn masquerading_is_compared_with_masquerading() {
        let mut rows = rows_of(&[("plain", 10.0), ("plain+masq", 5.0), ("kernel-vxlan+masq", 4.0), ("bare", 20.0)]);
        compare(&mut rows);
        assert_eq!(rows[2].ratio, Ratios { kernel_vxlan: Some(1.0), plain: Some(0.8), bare: Some(0.2), ipv4: None });
        assert_eq!(rows[0].ratio, Ratios { kernel_vxlan: None, plain: Some(1.0), bare: Some(0.5), ipv4: None });
    }

    #[test]
    fn a_busy_machine_and_the_same_measured_differently_are_warned_of() {
        for (again, load, expected) in [(10.9, 0.1, 0), (8.9, 0.1, 1), (11.1, 3.0, 2)] {
            let mut rows = rows_of(&[("plain", 10.0), (AGAIN, again)]);
            compare(&mut rows);
            assert_eq!(warnings(&rows, &machine(load)).len(), expected, "{again} {load}");
        }
    }
}
