//! TCP connections in every phase, and UDP that answers from elsewhere.

use super::{BOTH, Family, Nothing, Place, Something, Step, WORDS, talking_over_tcp, talking_over_udp, world};
use crate::ground::for_each_family;

/// Rules on both nodes that count what conntrack calls invalid, and drop it.
fn strict() -> Vec<Step> {
    let rules = "table inet strict {
                   chain forward {
                     type filter hook forward priority 0
                     ct state invalid drop
                   }
                 }";
    vec![Step::Nft(Place::One, rules.to_owned()), Step::Nft(Place::Two, rules.to_owned())]
}

fn conntrack(port: u16) -> [Step; 2] {
    [Step::Conntrack(Place::One, port), Step::Conntrack(Place::Two, port)]
}

fn half_closed(family: &Family) -> Vec<Step> {
    let mut steps = vec![Step::Listen("listener", Place::There, 5000)];
    steps.extend(talking_over_tcp(family, "near", 4000, "listener", 5000, "far"));
    steps.extend([
        Step::Shutdown("near"),
        Step::Hear("far", Something),
        Step::Say("far", None, "one way"),
        Step::Hear("near", Something),
        Step::Say("far", None, "still"),
        Step::Hear("near", Something),
    ]);
    steps.extend(conntrack(4000));
    steps.extend([Step::Shutdown("far"), Step::Hear("near", Something)]);
    steps.extend(conntrack(4000));
    steps
}

fn reset(family: &Family) -> Vec<Step> {
    let mut steps = vec![Step::Listen("listener", Place::There, 5000)];
    steps.extend(talking_over_tcp(family, "near", 4010, "listener", 5000, "far"));
    // Not what conntrack makes of it: see the limits in README.md.
    steps.extend([Step::Reset("far"), Step::Hear("near", Something), Step::Say("near", None, "too late")]);
    // A port where nobody listens.
    steps.extend([
        Step::Connect("nowhere", Place::Here, 4011, (family.there, 5999)),
        Step::Answered("nowhere", Something),
    ]);
    steps
}

fn ports_again(family: &Family) -> Vec<Step> {
    let mut steps = vec![Step::Listen("listener", Place::There, 5000)];
    for _ in 0..3 {
        steps.extend(talking_over_tcp(family, "near", 4020, "listener", 5000, "far"));
        // Whoever closes first keeps the port for a while: not the near side.
        steps.extend([Step::Shutdown("far"), Step::Hear("near", Something), Step::Close(&["near", "far"])]);
    }
    for _ in 0..2 {
        steps.extend(talking_over_udp(family, "near", "far", (4021, 5021)));
        steps.push(Step::Close(&["near", "far"]));
    }
    steps
}

/// Each side's SYN finds the other one waiting for an answer to its own.
fn both_at_once(family: &Family) -> Vec<Step> {
    let &Family { ip, here, there, .. } = family;
    let drop_first = format!(
        "table {ip} once {{
           chain forward {{
             type filter hook forward priority 0
             {ip} saddr {here} tcp flags syn drop
           }}
         }}"
    );
    let mut steps = vec![
        Step::Nft(Place::One, drop_first),
        Step::Connect("near", Place::Here, 4030, (there, 5030)),
        Step::Answered("near", Nothing),
        Step::Connect("far", Place::There, 5030, (here, 4030)),
        Step::Answered("near", Nothing),
        Step::Nft(Place::One, format!("delete table {ip} once")),
        Step::Answered("near", Something),
        Step::Answered("far", Something),
        Step::Engage("near", "far", BOTH),
        Step::Talk("near", "far", WORDS, BOTH),
    ];
    steps.extend(conntrack(4030));
    steps
}

/// What answers from another port is another flow, whatever is approved.
fn answers_from_elsewhere(family: &Family) -> Vec<Step> {
    let mut steps = talking_over_udp(family, "near", "far", (4040, 5040));
    steps.extend([
        Step::Udp("other", Place::There, 5041),
        Step::Say("other", Some((family.here, 4040)), "from another port"),
        Step::Hear("near", Something),
        Step::Udp("neighbour", Place::There2, 5040),
        Step::Say("neighbour", Some((family.here, 4040)), "from another container"),
        Step::Hear("near", Something),
        Step::Say("near", Some((family.there, 5041)), "to another port"),
        Step::Hear("other", Something),
        Step::Hear("far", Nothing),
    ]);
    steps
}

fn in_strict_company(steps: Vec<Step>) -> Vec<Step> {
    let mut all = strict();
    all.extend(steps);
    all.extend([Place::One, Place::Two].map(|place| Step::Nft(place, "delete table inet strict".to_owned())));
    all
}

for_each_family! {
    fn connections_in_every_phase(way) {
        let family = Family::of(way);
        let scripts = [
            ("half closed", half_closed(family)),
            ("reset", reset(family)),
            ("ports used again", ports_again(family)),
            ("both sides connect at once", both_at_once(family)),
            ("half closed, where what is invalid is dropped", in_strict_company(half_closed(family))),
            ("reset, where what is invalid is dropped", in_strict_company(reset(family))),
            ("answers from elsewhere", answers_from_elsewhere(family)),
        ];
        world::compare(way, &scripts);
    }
}
