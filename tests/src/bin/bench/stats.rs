//! What is said about the rounds of one measurement: median, best, spread, and ratios within a round.

use serde::{Deserialize, Serialize};

/// Which end of the scale is the good one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Better {
    /// A rate.
    Higher,
    /// A cost or a delay.
    Lower,
}

/// Several rounds of one measurement.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Summary {
    /// The middle one; between two of them when their number is even.
    pub(crate) median: f64,
    /// The best one.
    pub(crate) best: f64,
    /// The difference between best and worst, as a part of the median.
    pub(crate) spread: f64,
    /// All of them, in the order they were measured in.
    pub(crate) rounds: Vec<f64>,
}

impl Summary {
    /// Sums up `rounds`; `None` when there is none.
    pub(crate) fn of(rounds: Vec<f64>, better: Better) -> Option<Self> {
        let median = median(&rounds)?;
        let least = rounds.iter().copied().fold(f64::INFINITY, f64::min);
        let most = rounds.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let best = match better {
            Better::Higher => most,
            Better::Lower => least,
        };
        let spread = if median == 0.0 { 0.0 } else { (most - least) / median };
        Some(Self { median, best, spread, rounds })
    }

    /// The median of the quotients of each round: what the machine did to a whole round cancels out.
    pub(crate) fn ratio_to(&self, reference: &Self) -> Option<f64> {
        let pairs = self.rounds.iter().zip(&reference.rounds).filter(|(_, reference)| **reference != 0.0);
        median(&pairs.map(|(value, reference)| value / reference).collect::<Vec<_>>())
    }
}

/// The middle value, between two when their number is even; `None` when there is none.
pub(crate) fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        length if length % 2 == 1 => Some(sorted[middle]),
        _ => Some(f64::midpoint(sorted[middle - 1], sorted[middle])),
    }
}

/// The value that `part` (0 to 1) of all values do not exceed; `None` when there is none.
pub(crate) fn quantile(values: &[f64], part: f64) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (part * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1).min(sorted.len().saturating_sub(1))).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle_whatever_the_order() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0]), Some(3.0));
        assert_eq!(median(&[9.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 100.0]), Some(3.0));
    }

    #[test]
    fn the_best_is_the_highest_rate_and_the_lowest_cost() {
        let rounds = vec![8.0, 10.0, 13.0];
        let rate = Summary::of(rounds.clone(), Better::Higher).unwrap();
        assert_eq!((rate.best, rate.median, rate.spread), (13.0, 10.0, 0.5));
        assert_eq!(Summary::of(rounds, Better::Lower).unwrap().best, 8.0);
        assert_eq!(Summary::of(Vec::new(), Better::Lower), None);
    }

    #[test]
    fn a_ratio_compares_within_rounds_so_that_a_slow_round_does_not_count() {
        let ours = Summary::of(vec![20.0, 2.0, 22.0], Better::Higher).unwrap();
        let theirs = Summary::of(vec![10.0, 1.0, 10.0], Better::Higher).unwrap();
        assert_eq!(ours.ratio_to(&theirs), Some(2.0));
        let nothing = Summary::of(vec![0.0], Better::Higher).unwrap();
        assert_eq!(ours.ratio_to(&nothing), None);
        assert_eq!(nothing.spread, 0.0);
    }

    #[test]
    fn a_quantile_is_a_value_that_was_seen() {
        let hundred: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        assert_eq!(quantile(&hundred, 0.5), Some(50.0));
        assert_eq!(quantile(&hundred, 0.99), Some(99.0));
        assert_eq!(quantile(&hundred, 1.0), Some(100.0));
        assert_eq!(quantile(&[7.0], 0.99), Some(7.0));
        assert_eq!(quantile(&[], 0.5), None);
    }
}
