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
    let dual = config(
        r#"{"Network":"10.1.0.0/22","SubnetLen":24,"EnableIPv6":true,"IPv6Network":"fd00::/62","Backend":{"Type":"vxlan"}}"#,
    );
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
    let alone =
        config(r#"{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fd00::/62","Backend":{"Type":"vxlan"}}"#);
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
        r#"{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"ffff:ffff:ffff:fffc::/62","IPv6SubnetLen":64,"Backend":{"Type":"vxlan"}}"#,
    );
    assert!(
        choose(&top, None, Previous::default(), &keys(&["0.0.0.0-0&ffff:ffff:ffff:fff0::-60"]), &mut rng()).is_err()
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
