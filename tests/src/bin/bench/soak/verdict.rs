//! What is wrong after a soak: packets lost that no flap accounts for, and things left over.

use std::{collections::BTreeMap, net::Ipv4Addr, time::Duration};

use overlay_tests::paced::Pair;

use super::{
    flaps::Flap,
    memory::Sample,
    report::{Count, FlapOutcome, PairOutcome, SoakReport, TcpOutcome},
};
use crate::stats;

/// A packet that was sent so long before a flap may still have been on its way: the sender notes the time first, and may have
/// to wait for a CPU then.
const BEFORE: Duration = Duration::from_millis(100);

/// A packet that was sent so long after a flap may still be lost by it: each node has to learn the other's MAC address anew, and
/// the kernel asks again only after a second.
const AFTER: Duration = Duration::from_secs(3);

/// What an agent's memory may grow once it has settled: a part, and KiB.
const GROWTH: (f64, f64) = (0.2, 2048.0);

/// How many more descriptors an agent may have: connections to etcd come and go.
const DESCRIPTORS: f64 = 16.0;

/// A node's name, and the address of its container.
pub(crate) type NodeOfPair = (String, Ipv4Addr);

/// Says for each lost packet which flap it was lost by, if any was.
pub(crate) fn attribute(pairs: &[Pair], flaps: &[Flap], nodes: &[NodeOfPair]) -> (Vec<PairOutcome>, Vec<FlapOutcome>) {
    let mut outcomes: Vec<_> = flaps
        .iter()
        .map(|flap| FlapOutcome {
            node: nodes[flap.node].0.clone(),
            side: flap.side,
            down: flap.down.as_secs_f64(),
            up: flap.up.as_secs_f64(),
            lost: 0,
            recovery: 0.0,
        })
        .collect();
    let name = |address: Ipv4Addr| {
        nodes.iter().find(|node| node.1 == address).map_or_else(|| address.to_string(), |node| node.0.clone())
    };
    let pairs = pairs.iter().map(|pair| {
        let mut outcome = PairOutcome {
            from: name(pair.from),
            to: name(pair.to),
            sent: pair.sent,
            doubled: pair.doubled,
            lost_by_flaps: 0,
            lost_for_no_reason: Vec::new(),
        };
        for &lost in &pair.lost {
            // The next one, where two could be it, would not have begun yet.
            let by = flaps.iter().position(|flap| {
                [pair.from, pair.to].contains(&nodes[flap.node].1)
                    && flap.down <= lost + BEFORE
                    && lost <= flap.up + AFTER
            });
            match by {
                Some(flap) => {
                    outcome.lost_by_flaps += 1;
                    outcomes[flap].lost += 1;
                    let recovery = lost.saturating_sub(flaps[flap].up).as_secs_f64();
                    outcomes[flap].recovery = outcomes[flap].recovery.max(recovery);
                }
                None => outcome.lost_for_no_reason.push(lost.as_secs_f64()),
            }
        }
        outcome
    });
    (pairs.collect(), outcomes)
}

/// How many of each thing there were. What is there only once is counted as none the other time.
pub(crate) fn compare(before: &BTreeMap<String, u64>, after: &BTreeMap<String, u64>) -> Vec<Count> {
    let mut all = before.clone();
    all.extend(after.iter().map(|(what, &number)| (what.clone(), number)));
    let number = |of: &BTreeMap<String, u64>, what: &str| of.get(what).copied().unwrap_or_default();
    let count = |what: String| Count { before: number(before, &what), after: number(after, &what), what };
    all.into_keys().map(count).collect()
}

/// All that is wrong by the figures of a report.
pub(crate) fn problems(report: &SoakReport) -> Vec<String> {
    let mut problems = Vec::new();
    for PairOutcome { from, to, doubled, lost_for_no_reason: lost, .. } in &report.pairs {
        if let Some(first) = lost.first() {
            problems.push(format!(
                "{} packets from {from} to {to} lost by no flap, the first after {first:.1} s",
                lost.len()
            ));
        }
        if *doubled > 0 {
            problems.push(format!("{doubled} packets from {from} to {to} arrived twice"));
        }
    }
    if let TcpOutcome::Broken(why) = &report.tcp {
        problems.push(format!("the TCP connection broke: {why}"));
    }
    for Count { what, before, after } in report.counts.iter().filter(|count| count.before != count.after) {
        problems.push(format!("{what}: {before} before, {after} after"));
    }
    problems.extend(report.difference.iter().map(|difference| format!("a node is not as it was: {difference}")));
    problems.extend(growth(&report.memory));
    problems
}

/// What an agent has taken more and more of.
fn growth(samples: &[Sample]) -> Vec<String> {
    let mut problems = Vec::new();
    let resident = settled_and_last(samples, |sample| sample.resident_kib as f64);
    if let Some((settled, last)) = resident.filter(|(settled, last)| *last > settled * (1.0 + GROWTH.0) + GROWTH.1) {
        problems.push(format!("the agent's memory grew from {settled:.0} to {last:.0} KiB"));
    }
    let open = settled_and_last(samples, |sample| sample.descriptors as f64);
    if let Some((settled, last)) = open.filter(|(settled, last)| *last > settled + DESCRIPTORS) {
        problems.push(format!("the agent's descriptors grew from {settled:.0} to {last:.0}"));
    }
    problems
}

/// The medians of the second and of the last tenth of the samples; none when there are too few.
pub(crate) fn settled_and_last(samples: &[Sample], of: impl Fn(&Sample) -> f64) -> Option<(f64, f64)> {
    let tenth = samples.len() / 10;
    let median = |part: &[Sample]| stats::median(&part.iter().map(&of).collect::<Vec<_>>());
    Some((median(&samples[tenth..2 * tenth])?, median(&samples[samples.len() - tenth..])?))
}

#[cfg(test)]
mod tests;
