//! Listings of iptables, and what has to be done to them.

use super::super::forward::HOOKS;
use super::*;

const CHAIN: &str = "OVERLAY-FORWARD-1";
const FRESH: &str = "-P INPUT ACCEPT\n-P FORWARD ACCEPT\n-P OUTPUT ACCEPT\n";
const OURS: &str = "-N OVERLAY-FORWARD-1\n-A OVERLAY-FORWARD-1 -s 10.1.0.0/16 -j ACCEPT\n\
                    -A OVERLAY-FORWARD-1 -d 10.1.0.0/16 -j ACCEPT\n";
const SET_CHAIN: &str = "*filter\n:OVERLAY-FORWARD-1 - [0:0]\n-A OVERLAY-FORWARD-1 -s 10.1.0.0/16 -j ACCEPT\n\
                         -A OVERLAY-FORWARD-1 -d 10.1.0.0/16 -j ACCEPT\n";

fn forward(listing: &str) -> Option<String> {
    let rules = ["-s 10.1.0.0/16 -j ACCEPT", "-d 10.1.0.0/16 -j ACCEPT"].map(str::to_owned);
    plan(listing, &HOOKS[0], CHAIN, Some(&rules))
}

fn raw(listing: &str) -> Option<String> {
    let rules = ["-s 10.1.0.0/16 -d 10.1.15.0/24 -i overlay.1 -j ACCEPT".to_owned()];
    plan(listing, &HOOKS[1], "OVERLAY-PREROUTING-1", Some(&rules))
}

fn listing(targets: &[&str]) -> String {
    let rules: String = targets.iter().map(|target| format!("-A FORWARD -j {target}\n")).collect();
    format!("{FRESH}{OURS}{rules}")
}

#[test]
fn without_docker_the_jump_is_appended() {
    let expected = format!("{SET_CHAIN}-A FORWARD -j OVERLAY-FORWARD-1\nCOMMIT\n");
    assert_eq!(forward(FRESH), Some(expected.clone()));
    assert_eq!(forward(&format!("{FRESH}-A FORWARD -s 192.0.2.0/24 -j DROP\n")), Some(expected));
}

#[test]
fn rules_in_place_are_left_alone() {
    let cases: [&[&str]; 5] = [
        &["OVERLAY-FORWARD-1"],
        &["OVERLAY-FORWARD-1", "KUBE-FORWARD"],
        &["DOCKER-USER", "OVERLAY-FORWARD-1", "DOCKER-FORWARD"],
        &["KUBE-FORWARD", "DOCKER-USER", "OVERLAY-FORWARD-1", "DOCKER-FORWARD"],
        &["DOCKER-USER", "OVERLAY-FORWARD-7", "OVERLAY-FORWARD-1", "DOCKER-FORWARD"],
    ];
    for targets in cases {
        assert_eq!(forward(&listing(targets)), None, "{targets:?}");
    }
}

#[test]
fn a_jump_in_the_wrong_place_is_moved_behind_docker_user() {
    let cases: [(&[&str], usize, usize); 5] = [
        (&["DOCKER-USER", "DOCKER-FORWARD", "OVERLAY-FORWARD-1"], 1, 2),
        (&["OVERLAY-FORWARD-1", "DOCKER-USER", "DOCKER-FORWARD"], 1, 2),
        (&["DOCKER-USER", "OVERLAY-FORWARD-1", "OVERLAY-FORWARD-1"], 2, 2),
        (&["KUBE-FORWARD", "DOCKER-USER", "DOCKER-FORWARD"], 0, 3),
        (&["DOCKER-USER", "OVERLAY-FORWARD-7", "DOCKER-FORWARD"], 0, 3),
    ];
    for (targets, deleted, position) in cases {
        let deletions = "-D FORWARD -j OVERLAY-FORWARD-1\n".repeat(deleted);
        let expected = format!("{SET_CHAIN}{deletions}-I FORWARD {position} -j OVERLAY-FORWARD-1\nCOMMIT\n");
        assert_eq!(forward(&listing(targets)), Some(expected), "{targets:?}");
    }
}

#[test]
fn another_networks_accepts_are_replaced() {
    let old = listing(&["OVERLAY-FORWARD-1"]).replace("10.1.0.0", "10.9.0.0");
    assert!(forward(&old).is_some_and(|script| script.starts_with(SET_CHAIN)));
}

#[test]
fn removal_takes_jumps_and_chain_and_only_ours() {
    let remove = |listing: &str| plan(listing, &HOOKS[0], CHAIN, None);
    let expected =
        "*filter\n:OVERLAY-FORWARD-1 - [0:0]\n-D FORWARD -j OVERLAY-FORWARD-1\n-X OVERLAY-FORWARD-1\nCOMMIT\n";
    let present = listing(&["DOCKER-USER", "OVERLAY-FORWARD-1"]);
    assert_eq!(remove(&present).as_deref(), Some(expected));
    assert_eq!(remove(FRESH), None);
    let neighbour = present.replace("OVERLAY-FORWARD-1", "OVERLAY-FORWARD-12");
    assert_eq!(remove(&neighbour), None, "a longer name is another network's");
}

#[test]
fn raw_rules_stand_before_dockers_drops_and_only_while_there_are_some() {
    let policy = "-P PREROUTING ACCEPT\n-P OUTPUT ACCEPT\n";
    let operators = "-A PREROUTING -s 192.0.2.0/24 -j DROP\n";
    let dockers = "-A PREROUTING -d 10.1.15.2/32 ! -i docker0 -j DROP\n";
    let chain =
        "-N OVERLAY-PREROUTING-1\n-A OVERLAY-PREROUTING-1 -s 10.1.0.0/16 -d 10.1.15.0/24 -i overlay.1 -j ACCEPT\n";
    let jump = "-A PREROUTING -j OVERLAY-PREROUTING-1\n";
    assert_eq!(raw(&format!("{policy}{operators}")), None, "nothing to accept");
    let expected = "*raw\n:OVERLAY-PREROUTING-1 - [0:0]\n\
                    -A OVERLAY-PREROUTING-1 -s 10.1.0.0/16 -d 10.1.15.0/24 -i overlay.1 -j ACCEPT\n\
                    -I PREROUTING 2 -j OVERLAY-PREROUTING-1\nCOMMIT\n";
    assert_eq!(raw(&format!("{policy}{operators}{dockers}{dockers}")).as_deref(), Some(expected));
    assert_eq!(raw(&format!("{policy}{chain}{operators}{jump}{dockers}")), None, "in place");
    let gone = raw(&format!("{policy}{chain}{operators}{jump}"));
    assert!(gone.is_some_and(|script| script.contains("-X OVERLAY-PREROUTING-1")), "Docker has gone");
}
