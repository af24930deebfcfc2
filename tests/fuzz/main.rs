//! The programs do what the model says, on packets that nobody thought of.
//!
//! The seed is fixed, so a run says the same each time; `OVERLAY_FUZZ_SEED` sets another, in decimal or as `0x...`.

mod chance;
mod fuzzer;
mod generate;
mod ledger;
mod mutate;
mod trial;
mod world;

use std::env;

use overlay_common::{Encapsulation, Reason};
use overlay_tests::model::{self, Expected, Facts, Fate, Program, Super};

use crate::{
    fuzzer::{Census, Fuzzer},
    trial::Model,
};

const SEED: u64 = 0x0eb9_f0e7_1a75_eed5;
/// Packets in an ordinary run and in a long one, over all programs and encapsulations.
const PACKETS: u64 = 50_000;
const MANY_PACKETS: u64 = 1_000_000;
/// What can be reached must be reached this often in an ordinary run, or the packets have become too tame or too wild.
const OFTEN: u64 = 20;

fn seed() -> u64 {
    let Ok(text) = env::var("OVERLAY_FUZZ_SEED") else { return SEED };
    let parsed = match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    };
    parsed.unwrap_or_else(|_| panic!("OVERLAY_FUZZ_SEED={text}: expected a number of 64 bits"))
}

/// Runs a sixth of `packets` on one program and one encapsulation.
fn same_as_model(program: Program, encapsulation: Encapsulation, packets: u64) -> Census {
    let mut fuzzer = Fuzzer::new(seed(), program, encapsulation, model::expect).expect("load the programs");
    let (census, difference) = fuzzer.run(packets.div_ceil(6)).expect("run the programs");
    assert!(difference.is_none(), "{}", difference.expect("there is one"));
    census
}

fn check(program: Program, packets: u64) {
    for encapsulation in [Encapsulation::Udp, Encapsulation::Vxlan] {
        let census = same_as_model(program, encapsulation, packets);
        let name = program.name();
        println!("{name} on {encapsulation:?}: {census}");
        for reason in Reason::ALL {
            let (count, reachable) = (census.dropped(reason), is_reachable(program, encapsulation, reason));
            assert!(!reachable || count >= OFTEN, "{name} on {encapsulation:?} met {reason:?} {count} times only");
            assert!(reachable || count == 0, "{name} on {encapsulation:?} can meet {reason:?} after all");
        }
        // The kernel's VXLAN device changes what `from_underlay` has found good.
        let changes = program != Program::FromUnderlay || encapsulation == Encapsulation::Udp;
        assert!(census.carried >= packets / 60, "{name} on {encapsulation:?} carried {}", census.carried);
        assert!(!changes || census.becomes == census.carried, "{name}: {} of {}", census.becomes, census.carried);
        let encap = program == Program::ToOverlay;
        assert!(!encap || census.answered >= OFTEN, "{name} on {encapsulation:?} answered {}", census.answered);
        assert!(encap || census.untouched >= packets / 60, "{name} on {encapsulation:?} passed {}", census.untouched);
    }
}

/// Whether a packet can be dropped for this reason in `BPF_PROG_TEST_RUN`.
fn is_reachable(program: Program, encapsulation: Encapsulation, reason: Reason) -> bool {
    use Reason::{
        BadHeader, BadLength, BadVxlanFlags, CeOnNotEct, DecapRefused, DestinationNotOurs, EncapRefused, InnerNotIpv4,
        NoRoute, NotAccepted, NotEncapsulated, NotIpv4, NotUnicast, OutsideNetwork, OwnSubnet, SourceNotOurs,
        SourceNotTheirs, SpoofedNeighbour, Truncated, UnknownNode, WrongVni, WrongVtepMac,
    };
    let encap = program == Program::ToOverlay;
    let vxlan = encapsulation == Encapsulation::Vxlan;
    match reason {
        BadLength | BadHeader => true,
        NotIpv4 | NotUnicast | OutsideNetwork | OwnSubnet | NoRoute | SourceNotOurs | EncapRefused => encap,
        // Truncated: the kernel hands no program a socket buffer that ends inside the first IP header.
        Truncated | UnknownNode | SourceNotTheirs | DestinationNotOurs | NotEncapsulated | CeOnNotEct => !encap,
        WrongVni | BadVxlanFlags | InnerNotIpv4 | WrongVtepMac => !encap && vxlan,
        // XDP can always take bytes off the front.
        DecapRefused => program == Program::FromUnderlay && !vxlan,
        // It is `admit` and `from_container` that drop for these.
        NotAccepted | SpoofedNeighbour => false,
    }
}

#[test]
fn to_overlay_does_what_the_model_says() {
    check(Program::ToOverlay, PACKETS);
}

#[test]
fn from_underlay_does_what_the_model_says() {
    check(Program::FromUnderlay, PACKETS);
}

#[test]
fn xdp_decap_does_what_the_model_says() {
    check(Program::XdpDecap, PACKETS);
}

#[test]
#[ignore = "long"]
fn to_overlay_does_what_the_model_says_a_million_times() {
    check(Program::ToOverlay, MANY_PACKETS);
}

#[test]
#[ignore = "long"]
fn from_underlay_does_what_the_model_says_a_million_times() {
    check(Program::FromUnderlay, MANY_PACKETS);
}

#[test]
#[ignore = "long"]
fn xdp_decap_does_what_the_model_says_a_million_times() {
    check(Program::XdpDecap, MANY_PACKETS);
}

/// A model that is wrong in one thing: what it says of a packet, from what the true one says.
fn wrong(program: Program, encapsulation: Encapsulation, model: Model) -> (u64, String) {
    let mut fuzzer = Fuzzer::new(SEED, program, encapsulation, model).expect("load the programs");
    let (_, difference) = fuzzer.run(5000).expect("run the programs");
    let difference = difference.expect("5000 packets find a wrong model");
    (difference.number, difference.to_string())
}

fn ignores_the_vni(facts: &Facts, program: Program, packet: &[u8], of: Option<Super>) -> Expected {
    let expected = model::expect(facts, program, packet, of);
    if expected.fate == Fate::Dropped(Reason::WrongVni) {
        return Expected { fate: Fate::Untouched, ..expected };
    }
    expected
}

fn believes_every_node(facts: &Facts, program: Program, packet: &[u8], of: Option<Super>) -> Expected {
    let expected = model::expect(facts, program, packet, of);
    if expected.fate == Fate::Dropped(Reason::SourceNotTheirs) {
        return Expected { fate: Fate::Dropped(Reason::UnknownNode), ..expected };
    }
    expected
}

fn forgets_one_byte(facts: &Facts, program: Program, packet: &[u8], of: Option<Super>) -> Expected {
    let mut expected = model::expect(facts, program, packet, of);
    if let Fate::Becomes(bytes) = &mut expected.fate {
        bytes.pop();
    }
    expected
}

fn counts_a_packet_too_many(facts: &Facts, program: Program, packet: &[u8], of: Option<Super>) -> Expected {
    let mut expected = model::expect(facts, program, packet, of);
    if let Some((_, traffic)) = &mut expected.counted {
        traffic.decap_packets += 1;
    }
    expected
}

fn does_not_count(facts: &Facts, program: Program, packet: &[u8], of: Option<Super>) -> Expected {
    Expected { counted: None, ..model::expect(facts, program, packet, of) }
}

#[test]
fn a_model_that_is_wrong_in_one_thing_is_found_out() {
    let wrong_ones: [(&str, Program, Encapsulation, Model); 6] = [
        ("ignores the VNI", Program::FromUnderlay, Encapsulation::Vxlan, ignores_the_vni),
        ("ignores the VNI", Program::XdpDecap, Encapsulation::Vxlan, ignores_the_vni),
        ("believes every node", Program::FromUnderlay, Encapsulation::Udp, believes_every_node),
        ("forgets one byte", Program::ToOverlay, Encapsulation::Vxlan, forgets_one_byte),
        ("counts a packet too many", Program::XdpDecap, Encapsulation::Udp, counts_a_packet_too_many),
        ("does not count", Program::ToOverlay, Encapsulation::Udp, does_not_count),
    ];
    for (name, program, encapsulation, model) in wrong_ones {
        let (number, _) = wrong(program, encapsulation, model);
        println!("a model that {name} is found out by {} with packet {number}", program.name());
    }
}

#[test]
fn a_difference_is_reported_with_all_that_it_takes_to_see_it_again() {
    let (number, report) = wrong(Program::FromUnderlay, Encapsulation::Vxlan, ignores_the_vni);
    for part in [
        "from_underlay on Vxlan",
        "the verdict is 2, not -1",
        &format!("OVERLAY_FUZZ_SEED={SEED:#x}, packet {number}"),
        "  packet    00000000",
        "  mutations [",
        "  model     Untouched",
    ] {
        assert!(report.contains(part), "no {part:?} in\n{report}");
    }
}
