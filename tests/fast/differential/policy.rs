//! Rules that change or that look at conntrack.

use std::time::Duration;

use super::{
    BOTH, Family, Nothing, Place, Something, Step, WORDS, connected, talking_over_tcp, talking_over_udp, world,
};
use crate::ground::for_each_family;

/// How long conntrack remembers flows that are idle, in seconds: longer than the fast path lets it wait for a packet.
const MEMORY: &str = "3";
/// Longer than that.
const LONG: Duration = Duration::from_secs(5);

/// Lets `steps` happen while a chain in FORWARD of `place` has `rules`, and `declarations` stand beside it.
fn while_filtered(family: &Family, place: Place, declarations: &str, rules: &str, steps: Vec<Step>) -> Vec<Step> {
    let ip = family.ip;
    let table = format!(
        "table {ip} filter {{
           {declarations}
           chain forward {{
             type filter hook forward priority 0;
             {rules}
           }}
         }}"
    );
    let mut all = vec![Step::Nft(place, table)];
    all.extend(steps);
    all.push(Step::Nft(place, format!("delete table {ip} filter")));
    all
}

/// A rule that drops a running flow, and goes again.
fn dropped(family: &Family, place: Place, direction: &str, over_tcp: bool) -> Vec<Step> {
    let rule = format!("{ip} {direction} {there} drop", ip = family.ip, there = family.there);
    let (near, far) = ("near", "far");
    let mut steps = if over_tcp {
        let mut steps = vec![Step::Listen("listener", Place::There, 5100)];
        steps.extend(talking_over_tcp(family, near, 4100, "listener", 5100, far));
        steps
    } else {
        talking_over_udp(family, near, far, (4000, 5000))
    };
    let silent = if direction == "daddr" { Step::TalkUntilSilent(near, far) } else { Step::TalkUntilSilent(far, near) };
    steps.extend(while_filtered(family, place, "", &rule, vec![silent]));
    steps.extend([Step::Close(&["near", "far", "listener"])]);
    steps.extend(talking_over_udp(family, near, far, (4200, 5200)));
    steps
}

/// A limit on connections counts those that the fast path carries, also when conntrack sees little of them.
fn limited(family: &Family) -> Vec<Step> {
    let mut steps = vec![Step::Listen("listener", Place::There, 5000)];
    let kept = [("near1", "far1", 4001), ("near2", "far2", 4002)];
    for (near, far, port) in kept {
        steps.extend(talking_over_tcp(family, near, port, "listener", 5000, far));
    }
    steps.extend((0..3).flat_map(|_| kept.map(|(near, far, _)| Step::Talk(near, far, WORDS, BOTH))));
    steps.extend([
        Step::Connect("near3", Place::Here, 4003, (family.there, 5000)),
        Step::Answered("near3", Nothing),
        Step::Close(&["near3"]),
        Step::Shutdown("near1"),
        Step::Hear("far1", Something),
        Step::Shutdown("far1"),
        Step::Hear("near1", Something),
    ]);
    steps.extend(connected("near4", (Place::Here, 4004), (family.there, 5000), "listener", "far4"));
    steps.push(Step::Talk("near2", "far2", WORDS, BOTH));
    let &Family { ip, addresses, .. } = family;
    let set = format!("set limited {{ type {addresses}; size 64; flags dynamic; }}");
    let limit = format!("tcp dport 5000 ct state new add @limited {{ {ip} saddr ct count over 2 }} drop");
    while_filtered(family, Place::Two, &set, &limit, steps)
}

/// Only the container here may begin to speak: what conntrack has forgotten, the other cannot go on with.
fn forgotten(family: &Family) -> Vec<Step> {
    let &Family { ip, there, .. } = family;
    let rules = format!("ct state established,related accept\n ct state invalid drop\n {ip} saddr {there} drop");
    let mut steps: Vec<_> =
        ["nf_conntrack_udp_timeout", "nf_conntrack_udp_timeout_stream", "nf_conntrack_tcp_timeout_established"]
            .into_iter()
            .map(|name| Step::Sysctl(Place::Two, name, MEMORY))
            .collect();
    let mut flows = talking_over_udp(family, "near", "far", (4000, 5000));
    flows.extend([
        // Busy for longer than conntrack remembers what it does not see.
        Step::TalkFor("near", "far", LONG),
        Step::Conntrack(Place::Two, 4000),
        Step::Say("far", None, "established"),
        Step::Hear("near", Something),
        Step::Idle(LONG),
        Step::Conntrack(Place::Two, 4000),
        Step::Say("far", None, "forgotten"),
        Step::Hear("near", Nothing),
        Step::Say("near", None, "again"),
        Step::Hear("far", Something),
        Step::Engage("near", "far", BOTH),
        Step::Talk("near", "far", WORDS, BOTH),
        Step::Listen("listener", Place::There, 5001),
    ]);
    flows.extend(talking_over_tcp(family, "client", 4001, "listener", 5001, "server"));
    flows.extend([
        Step::TalkFor("client", "server", LONG),
        Step::Conntrack(Place::Two, 4001),
        Step::Say("server", None, "established"),
        Step::Hear("client", Something),
        Step::Idle(LONG),
        Step::Conntrack(Place::Two, 4001),
        Step::Say("server", None, "forgotten"),
        Step::Hear("client", Nothing),
    ]);
    steps.extend(while_filtered(family, Place::Two, "", &rules, flows));
    steps
}

for_each_family! {
    fn rules_that_change_or_look_at_conntrack(way) {
        let family = Family::of(way);
        let scripts = [
            ("a drop rule in the middle of a UDP flow", dropped(family, Place::One, "daddr", false)),
            ("a drop rule in the middle of a TCP flow", dropped(family, Place::Two, "saddr", true)),
            ("a limit on connections", limited(family)),
            ("what conntrack forgets", forgotten(family)),
        ];
        world::compare(way, &scripts);
    }
}
