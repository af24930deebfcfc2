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
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand::{SeedableRng, rngs::StdRng};
    use std::collections::BTreeSet;

    fn config(json: &str) -> NetworkConfig {
        NetworkConfig::parse(json.as_bytes()).unwrap()
    }

    fn key(text: &str) -> SubnetKey {
        text.parse().unwrap()
    }

    fn keys(texts: &[&str]) -> Vec<SubnetKey> {
        texts.iter().map(|text| key(text)).collect()
    }

    fn rng() -> StdRng {
        StdRng::seed_from_u64(1)
    }

    const SMALL: &str = r#"{"Network":"10.1.0.0/22","SubnetLen":24}"#;

    #[test]
    fn the_lease_that_is_ours_already_is_kept() {
        let mine = key("10.1.3.0-24");
        let previous = Previous { v4: Some("10.1.2.1/24".parse().unwrap()), v6: None };
        assert_eq!(choose(&config(SMALL), Some(&mine), previous, &[], &mut rng()), Ok(mine));
    }

    #[test]
    fn a_lease_that_no_longer_fits_gives_way_to_the_previous_subnet() {
        let previous = Previous { v4: Some("10.1.2.1/24".parse().unwrap()), v6: None };
        for unfit in ["10.1.3.0-25", "10.1.0.0-24", "10.9.3.0-24"] {
            let chosen = choose(&config(SMALL), Some(&key(unfit)), previous, &[], &mut rng());
            assert_eq!(chosen, Ok(key("10.1.2.0-24")), "{unfit}");
            assert!(!fits(&config(SMALL), &key(unfit)));
        }
    }

    #[test]
    fn the_previous_subnet_is_left_to_whoever_overlaps_it() {
        let previous = Previous { v4: Some("10.1.2.1/24".parse().unwrap()), v6: None };
        for taken in ["10.1.2.0-24", "10.1.2.128-25", "10.1.2.0-23", "10.1.2.0-24&fd00::-64"] {
            let chosen = choose(&config(SMALL), None, previous, &[key(taken)], &mut rng()).unwrap();
            assert!(!chosen.v4.overlaps(key(taken).v4), "{taken} gave {chosen}");
        }
    }

    #[test]
    fn a_full_network_is_an_error_with_its_numbers() {
        let others = keys(&["10.1.1.0-24", "10.1.2.0-24", "10.1.3.128-25", "10.7.0.0-24"]);
        let error = choose(&config(SMALL), None, Previous::default(), &others, &mut rng()).unwrap_err().to_string();
        assert!(
            error.starts_with("network full: 10.1.0.0/22 has 3 subnets of /24 from 10.1.1.0 to 10.1.3.0, and 3 leases"),
            "{error}"
        );
    }

    #[test]
    fn the_last_free_subnet_is_found() {
        let others = keys(&["10.1.1.0-24", "10.1.3.0-24"]);
        assert_eq!(choose(&config(SMALL), None, Previous::default(), &others, &mut rng()), Ok(key("10.1.2.0-24")));
    }

    #[test]
    fn chance_spreads_over_the_first_hundred_free_ones() {
        let config = config(r#"{"Network":"10.0.0.0/8","SubnetLen":28}"#);
        let mut rng = rng();
        let mut seen = BTreeSet::new();
        for _ in 0..2000 {
            seen.insert(choose(&config, None, Previous::default(), &[], &mut rng).unwrap().v4.ip());
        }
        assert_eq!(seen.len(), 100);
        assert_eq!(seen.first().copied(), Some(Ipv4Addr::new(10, 0, 0, 16)));
        assert_eq!(seen.last().copied(), Some(Ipv4Addr::new(10, 0, 6, 64)));
    }

    #[test]
    fn a_million_taken_subnets_cost_no_walk_over_the_network() {
        let config = config(r#"{"Network":"10.0.0.0/8","SubnetLen":28}"#);
        let chosen = choose(&config, None, Previous::default(), &[key("10.0.0.0-9")], &mut rng()).unwrap();
        assert!(chosen.v4.ip() >= Ipv4Addr::new(10, 128, 0, 0));
    }

    #[test]
    fn the_families_are_chosen_each_by_itself() {
        let dual = config(r#"{"Network":"10.1.0.0/22","SubnetLen":24,"EnableIPv6":true,"IPv6Network":"fd00::/62"}"#);
        let chosen = choose(
            &dual,
            Some(&key("10.1.3.0-24")),
            Previous::default(),
            &keys(&["10.1.1.0-24&fd00:0:0:1::-64"]),
            &mut rng(),
        )
        .unwrap();
        assert_eq!(chosen.v4.to_string(), "10.1.3.0/24");
        assert!(["fd00:0:0:2::", "fd00:0:0:3::"].contains(&chosen.v6.unwrap().ip().to_string().as_str()));
        assert!(fits(&dual, &chosen) && !fits(&dual, &key("10.1.3.0-24")) && !fits(&config(SMALL), &chosen));
    }

    #[test]
    fn a_network_of_ipv6_alone_has_a_key_without_ipv4() {
        let alone = config(r#"{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fd00::/62"}"#);
        let chosen = choose(&alone, None, Previous::default(), &[], &mut rng()).unwrap();
        assert!(chosen.to_string().starts_with("0.0.0.0-0&fd00:0:0:"));
        assert!(fits(&alone, &chosen));
    }

    #[test]
    fn the_top_of_the_address_space_does_not_overflow() {
        let top = config(r#"{"Network":"255.255.252.0/22","SubnetLen":24}"#);
        let others = keys(&["255.255.253.0-24", "255.255.254.0-24", "255.255.255.0-24"]);
        assert!(choose(&top, None, Previous::default(), &others, &mut rng()).is_err());
        let top = config(
            r#"{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"ffff:ffff:ffff:fffc::/62","IPv6SubnetLen":64}"#,
        );
        assert!(
            choose(&top, None, Previous::default(), &keys(&["0.0.0.0-0&ffff:ffff:ffff:fff0::-60"]), &mut rng())
                .is_err()
        );
    }

    proptest! {
        #[test]
        fn the_choice_fits_and_overlaps_nobody(others in proptest::collection::vec((0u32..1024, 22u8..=31), 0..12), seed: u64) {
            let others: Vec<SubnetKey> = others.into_iter().map(|(offset, len)| {
                let net = Ipv4Network::new(Ipv4Addr::from(0x0a01_0000 + offset), len).unwrap();
                SubnetKey { v4: Ipv4Network::new(net.network(), len).unwrap(), v6: None }
            }).collect();
            let config = config(r#"{"Network":"10.1.0.0/22","SubnetLen":26}"#);
            let free = (1..16u32).filter(|i| {
                let net = Ipv4Network::new(Ipv4Addr::from(0x0a01_0000 + i * 64), 26).unwrap();
                others.iter().all(|other| !other.v4.overlaps(net))
            }).count();
            match choose(&config, None, Previous::default(), &others, &mut StdRng::seed_from_u64(seed)) {
                Ok(chosen) => {
                    prop_assert!(fits(&config, &chosen));
                    prop_assert!(others.iter().all(|other| !other.v4.overlaps(chosen.v4)));
                }
                Err(_) => prop_assert_eq!(free, 0),
            }
        }
    }
}
