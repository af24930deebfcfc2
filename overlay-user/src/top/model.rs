//! [`Model`]: what is on the screen, and what keys have changed about it. Does no I/O.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, VecDeque},
};

use anyhow::Result;

use super::reading::Rates;
use crate::status::{Counts, Status};

/// How many rates of the past are remembered: as many as the widest sparkline has columns.
const REMEMBERED: usize = 40;

/// What is on the screen.
#[derive(Debug, Default)]
pub(super) struct Model {
    /// None before the first rates are known.
    pub(super) status: Option<Status>,
    /// Why the data path could not be read the last time.
    pub(super) unreadable: Option<String>,
    pub(super) sort: Column,
    pub(super) reversed: bool,
    pub(super) paused: bool,
    pub(super) help: bool,
    /// All peers together.
    pub(super) total: Counts,
    /// Bytes a second of all peers together, the newest last.
    pub(super) trend: Trend,
    peers: Vec<Row>,
    containers: Vec<Row>,
}

/// Bytes a second of the past, the newest last.
pub(super) type Trend = VecDeque<u64>;

/// A peer or a container. Rates are those of a second.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Row {
    /// A peer's subnet, a container's address.
    pub(super) name: String,
    /// A peer's node, the container's veth on the node's side.
    pub(super) beside: String,
    pub(super) sent_bytes: u64,
    pub(super) received_bytes: u64,
    /// Of both directions.
    pub(super) packets: u64,
    /// Per cent; none where nothing is exchanged, and for containers.
    pub(super) fast: Option<u64>,
    /// Packets went out and none has come in, ever.
    pub(super) one_way: bool,
    pub(super) trend: Trend,
}

/// What rows are sorted by.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum Column {
    /// Bytes sent, the most first.
    #[default]
    Sent,
    /// Bytes received, the most first.
    Received,
    /// Packets, the most first.
    Packets,
    /// Share of the fast path, the smallest first: there is something to look at.
    Fast,
    /// Subnet or address.
    Name,
}

impl Column {
    /// The next one to the right; after the last, the first.
    pub(super) fn next(self) -> Self {
        match self {
            Self::Sent => Self::Received,
            Self::Received => Self::Packets,
            Self::Packets => Self::Fast,
            Self::Fast => Self::Name,
            Self::Name => Self::Sent,
        }
    }
}

impl Model {
    /// Takes in the newest rates, or why there are none. While paused nothing changes.
    pub(super) fn learn(&mut self, rates: Result<Rates>) {
        if self.paused {
            return;
        }
        let Rates { status, containers } = match rates {
            Ok(rates) => rates,
            Err(error) => {
                self.unreadable = Some(format!("{error:#}"));
                return;
            }
        };
        self.unreadable = None;
        self.total = status.peers.iter().map(|peer| peer.rate).sum();
        remember(&mut self.trend, self.total.encap_bytes + self.total.decap_bytes);
        let peers = status.peers.iter().map(|peer| Row {
            name: peer.subnet.to_string(),
            beside: peer.node.to_string(),
            sent_bytes: peer.rate.encap_bytes,
            received_bytes: peer.rate.decap_bytes,
            packets: peer.rate.encap_packets + peer.rate.decap_packets,
            fast: peer.rate.fast_share(),
            one_way: peer.state == "one-way",
            trend: Trend::new(),
        });
        self.peers = with_trends(&self.peers, peers.collect());
        let containers = containers.into_iter().map(|container| Row {
            name: container.address.to_string(),
            beside: container.interface,
            sent_bytes: container.sent_bytes,
            received_bytes: container.received_bytes,
            packets: container.packets,
            ..Row::default()
        });
        self.containers = with_trends(&self.containers, containers.collect());
        self.status = Some(status);
    }

    /// The peers, in order.
    pub(super) fn peers(&self) -> Vec<&Row> {
        self.sorted(&self.peers)
    }

    /// The containers, in order.
    pub(super) fn containers(&self) -> Vec<&Row> {
        self.sorted(&self.containers)
    }

    /// Rows that are equal stay in the order of their addresses.
    fn sorted<'a>(&self, rows: &'a [Row]) -> Vec<&'a Row> {
        let mut rows: Vec<&Row> = rows.iter().collect();
        match self.sort {
            Column::Sent => rows.sort_by_key(|row| Reverse(row.sent_bytes)),
            Column::Received => rows.sort_by_key(|row| Reverse(row.received_bytes)),
            Column::Packets => rows.sort_by_key(|row| Reverse(row.packets)),
            Column::Fast => rows.sort_by_key(|row| row.fast.unwrap_or(u64::MAX)),
            Column::Name => {}
        }
        if self.reversed {
            rows.reverse();
        }
        rows
    }
}

/// The new rows, each with what is remembered of the old row of its name, and its newest rate.
fn with_trends(old: &[Row], new: Vec<Row>) -> Vec<Row> {
    let old: BTreeMap<&str, &Trend> = old.iter().map(|row| (row.name.as_str(), &row.trend)).collect();
    let trend = |row: &Row| {
        let mut trend = old.get(row.name.as_str()).map(|&trend| trend.clone()).unwrap_or_default();
        remember(&mut trend, row.sent_bytes + row.received_bytes);
        trend
    };
    new.into_iter().map(|row| Row { trend: trend(&row), ..row }).collect()
}

fn remember(trend: &mut Trend, rate: u64) {
    trend.push_back(rate);
    if trend.len() > REMEMBERED {
        trend.pop_front();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::top::sample_rates::{rates, sent};

    fn names(rows: &[&Row]) -> Vec<String> {
        rows.iter().map(|row| row.name.clone()).collect()
    }

    #[test]
    fn the_busiest_are_first_by_the_column_that_is_sorted_by() {
        let mut model = Model::default();
        model.learn(Ok(rates(&[(1, 10, 900), (2, 30, 100), (3, 20, 0)])));
        assert_eq!(names(&model.peers()), ["10.1.2.0/24", "10.1.3.0/24", "10.1.1.0/24"]);
        model.sort = Column::Received;
        assert_eq!(names(&model.peers()), ["10.1.1.0/24", "10.1.2.0/24", "10.1.3.0/24"]);
        model.reversed = true;
        assert_eq!(names(&model.peers())[0], "10.1.3.0/24");
        model = Model { sort: Column::Name, reversed: false, ..model };
        assert_eq!(names(&model.containers()), ["10.1.9.2", "10.1.9.3", "10.1.9.4"]);
    }

    #[test]
    fn a_pause_keeps_what_is_shown() {
        let mut model = Model::default();
        model.learn(Ok(rates(&[(1, 10, 0)])));
        model.paused = true;
        model.learn(Ok(rates(&[(1, 99, 0)])));
        assert_eq!(sent(&model), [10]);
        model.paused = false;
        model.learn(Ok(rates(&[(1, 99, 0)])));
        assert_eq!(sent(&model), [99]);
    }

    #[test]
    fn rates_of_the_past_stay_with_their_peer_and_no_longer_than_they_can_be_shown() {
        let mut model = Model::default();
        model.learn(Ok(rates(&[(1, 10, 0), (2, 7, 0)])));
        for _ in 0..REMEMBERED {
            model.learn(Ok(rates(&[(2, 8, 1)])));
        }
        let [row] = model.peers()[..] else { panic!("{:?}", model.peers()) };
        assert_eq!(row.trend, vec![9; REMEMBERED]);
        model.learn(Ok(rates(&[(1, 5, 0)])));
        assert_eq!(model.peers()[0].trend, [5]);
    }

    #[test]
    fn what_cannot_be_read_is_said_until_it_can() {
        let mut model = Model::default();
        model.learn(Ok(rates(&[(1, 10, 0)])));
        model.learn(Err(anyhow::anyhow!("gone")));
        assert_eq!((model.unreadable.as_deref(), sent(&model)), (Some("gone"), vec![10]));
        model.learn(Ok(rates(&[])));
        assert_eq!(model.unreadable, None);
    }
}
