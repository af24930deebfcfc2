//! What ICMP says of flows, and a path that becomes narrower.

use super::{BOTH, Family, Nothing, Place, Something, Step, WORDS, talking_over_tcp, talking_over_udp, world};
use crate::ground::for_each_family;

/// Bytes of a datagram that fits the overlay MTU of either backend and family, and after the underlay has become narrower by
/// [`NARROW`] does not.
const LARGE: usize = 1360;
const NARROW: &str = "link set dev eth0 mtu 1400";
const WIDE: &str = "link set dev eth0 mtu 1500";

/// Nobody hears any more: the sender is told, past rules that let only related messages through.
fn unreachable(family: &Family) -> Vec<Step> {
    let &Family { ip, icmp, .. } = family;
    let rules = format!(
        "table {ip} filter {{
           chain forward {{
             type filter hook forward priority 0
             ct state related accept
             meta l4proto {icmp} drop
           }}
         }}"
    );
    let mut steps = vec![Step::Nft(Place::One, rules.clone()), Step::Nft(Place::Two, rules)];
    steps.extend(talking_over_udp(family, "near", "far", (4000, 5000)));
    steps.extend([
        Step::ConnectUdp("near"),
        Step::Close(&["far"]),
        Step::TalkUntilRefused("near"),
        Step::Udp("far", Place::There, 5000),
        Step::Say("near", None, "hello"),
        Step::Hear("far", Something),
        Step::Engage("near", "far", BOTH),
        Step::Talk("near", "far", WORDS, BOTH),
    ]);
    steps.extend([Place::One, Place::Two].map(|place| Step::Nft(place, format!("delete table {ip} filter"))));
    steps
}

/// The underlay of the first node becomes narrower in the middle of flows.
fn narrower(family: &Family) -> Vec<Step> {
    let mut steps = vec![Step::Listen("listener", Place::There, 5001)];
    steps.extend(talking_over_tcp(family, "client", 4001, "listener", 5001, "server"));
    steps.extend(talking_over_udp(family, "near", "far", (4000, 5000)));
    steps.extend([
        Step::Say("near", None, "large"),
        Step::Hear("far", Something),
        Step::SayMuch("near", LARGE),
        Step::Hear("far", Something),
        Step::Ip(Place::One, NARROW),
        Step::AwaitMtu(Place::One, 1400),
        Step::SayMuch("near", LARGE),
        Step::Hear("far", Nothing),
        // The kernel tells the socket by now, and from here on the container knows.
        Step::SayMuch("near", LARGE),
        Step::SayMuch("near", LARGE),
        Step::Hear("far", Nothing),
        Step::Say("near", Some((family.there, 5000)), "small"),
        Step::Hear("far", Something),
        Step::Talk("client", "server", WORDS, BOTH),
        Step::Ip(Place::One, WIDE),
        Step::AwaitMtu(Place::One, 1500),
        Step::Talk("near", "far", WORDS, BOTH),
    ]);
    steps
}

for_each_family! {
    fn what_icmp_says_of_flows(way) {
        let family = Family::of(way);
        world::compare(way, &[("nobody hears", unreachable(family)), ("the path becomes narrower", narrower(family))]);
    }
}
