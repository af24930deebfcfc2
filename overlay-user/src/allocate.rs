//! Which subnet a node takes, given the leases of the others. Pure; chance is handed in.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnetwork::{Ipv4Network, Ipv6Network};
use rand::Rng;
use rand::seq::IndexedRandom;

use crate::lease::SubnetKey;
use crate::network::{Address, NetworkConfig, Pool, host_mask};

/// How many free subnets chance chooses from. flannel's number: enough to keep nodes that start together apart.
const CANDIDATES: usize = 100;

/// The subnets that a node had before, as its `subnet.env` remembers them. Host bits do not matter.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Previous {
    /// `FLANNEL_SUBNET`.
    pub v4: Option<Ipv4Network>,
    /// `FLANNEL_IPV6_SUBNET`.
    pub v6: Option<Ipv6Network>,
}

/// No subnet is left. One line, fit for an operator.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("network full: {subnets}, and {leases} leases overlap every one; move {} or {}, or release a lease", .keys.0, .keys.1)]
pub struct NetworkFull {
    /// Which subnets may be leased.
    subnets: String,
    /// How many leases overlap them.
    leases: usize,
    /// The keys of the network config that say so.
    keys: (&'static str, &'static str),
}

/// Chooses this node's subnets: those of `mine` where they still fit the network config, else those of `previous`
/// where they fit and are free, else one by chance of the first hundred free ones. Each address family by itself.
///
/// `mine` is what a lease with our PublicIP holds; `others` are the subnets of all other leases.
///
/// # Errors
/// [`NetworkFull`] when no subnet is free.
pub fn choose(
    config: &NetworkConfig,
    mine: Option<&SubnetKey>,
    previous: Previous,
    others: &[SubnetKey],
    rng: &mut impl Rng,
) -> Result<SubnetKey, NetworkFull> {
    let v4 = config.ipv4.map(|pool| {
        let wanted = [mine.map(|key| key.v4), previous.v4];
        let taken = others.iter().map(|key| key.v4).filter(|net| net.prefix() > 0);
        family::<Ipv4Addr>(&pool, wanted, taken, rng)
    });
    let v6 = config.ipv6.map(|pool| {
        let wanted = [mine.and_then(|key| key.v6), previous.v6];
        family::<Ipv6Addr>(&pool, wanted, others.iter().filter_map(|key| key.v6), rng)
    });
    let none = Ipv4Network::from(Ipv4Addr::UNSPECIFIED);
    Ok(SubnetKey {
        v4: v4.transpose()?.unwrap_or(Ipv4Network::new_checked(Ipv4Addr::UNSPECIFIED, 0).unwrap_or(none)),
        v6: v6.transpose()?,
    })
}

/// Whether every subnet of `key` may be leased under `config`, and `key` has the families that `config` wants.
#[must_use]
pub fn fits(config: &NetworkConfig, key: &SubnetKey) -> bool {
    let v4 = config.ipv4.map_or(key.v4.prefix() == 0, |pool| pool.admits(key.v4.ip(), key.v4.prefix()));
    let v6 = match (config.ipv6, key.v6) {
        (Some(pool), Some(v6)) => pool.admits(v6.ip(), v6.prefix()),
        (None, None) => true,
        _ => false,
    };
    v4 && v6
}

fn family<A: Address>(
    pool: &Pool<A>,
    wanted: [Option<A::Network>; 2],
    taken: impl Iterator<Item = A::Network>,
    rng: &mut impl Rng,
) -> Result<A::Network, NetworkFull> {
    let taken = Taken::new(pool, taken);
    for (first, len) in wanted.into_iter().flatten().map(A::parts) {
        let first = A::from_number(first.number() & !host_mask::<A>(len));
        if pool.admits(first, len) && taken.is_free(first, len) {
            return Ok(first.network(len));
        }
    }
    let free: Vec<A> = taken.free(pool).take(CANDIDATES).collect();
    free.choose(rng).map(|first| first.network(pool.subnet_len())).ok_or_else(|| full(pool, taken.leases))
}

fn full<A: Address>(pool: &Pool<A>, leases: usize) -> NetworkFull {
    let (network, count, len) = (pool.network(), pool.count(), pool.subnet_len());
    let subnets = format!("{network} has {count} subnets of /{len} from {} to {}", pool.min(), pool.max());
    NetworkFull { subnets, leases, keys: A::KEYS.bounds() }
}

/// The addresses that leases cover, as ranges in order that do not overlap: a network's size costs nothing.
struct Taken {
    ranges: Vec<(u128, u128)>,
    leases: usize,
}

impl Taken {
    /// Those of `subnets` that touch `pool`.
    fn new<A: Address>(pool: &Pool<A>, subnets: impl Iterator<Item = A::Network>) -> Self {
        let (first, last) = (pool.min().number(), pool.max().number() | host_mask::<A>(pool.subnet_len()));
        let range = |network| {
            let (address, len) = A::parts(network);
            let mask = host_mask::<A>(len);
            (address.number() & !mask, address.number() | mask)
        };
        let mut all: Vec<_> = subnets.map(range).filter(|&(start, end)| end >= first && start <= last).collect();
        all.sort_unstable();
        let leases = all.len();
        let mut ranges: Vec<(u128, u128)> = Vec::with_capacity(leases);
        for (start, end) in all {
            match ranges.last_mut() {
                Some(previous) if start <= previous.1 => previous.1 = previous.1.max(end),
                _ => ranges.push((start, end)),
            }
        }
        Self { ranges, leases }
    }

    fn is_free<A: Address>(&self, first: A, len: u8) -> bool {
        self.covering(first.number(), first.number() | host_mask::<A>(len)).is_none()
    }

    /// A range that overlaps the addresses from `start` to `end`: the last one.
    fn covering(&self, start: u128, end: u128) -> Option<(u128, u128)> {
        let after = self.ranges.partition_point(|range| range.0 <= end);
        self.ranges[..after].last().copied().filter(|range| range.1 >= start)
    }

    /// The free subnets of `pool` in order. Covered stretches are stepped over, not walked.
    fn free<A: Address>(&self, pool: &Pool<A>) -> impl Iterator<Item = A> {
        let mask = host_mask::<A>(pool.subnet_len());
        let last = pool.max().number();
        let mut next = Some(pool.min().number());
        std::iter::from_fn(move || {
            let mut start = next?;
            while let Some((_, end)) = self.covering(start, start | mask) {
                start = (end | mask).checked_add(1)?;
            }
            next = (start | mask).checked_add(1);
            (start <= last).then(|| A::from_number(start))
        })
    }
}

#[cfg(test)]
mod tests;
