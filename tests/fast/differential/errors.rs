//! What ICMP says of flows, and a path that becomes narrower.

use super::{BOTH, Nothing, Place, Something, Step, THERE, WORDS, talking_over_tcp, talking_over_udp, world};
use crate::ground::{Backend, for_either_backend};

/// Bytes of a datagram that only just fits the overlay MTU of either backend, and after the underlay has become narrower by
/// [`NARROW`] does not.
const LARGE: usize = 1400;
const NARROW: &str = "link set dev eth0 mtu 1300";
const WIDE: &str = "link set dev eth0 mtu 1500";

/// Nobody hears any more: the sender is told, past rules that let only related messages through.
fn unreachable() -> Vec<Step> {
    let rules = "table ip filter {
                   chain forward {
                     type filter hook forward priority 0
                     ct state related accept
                     meta l4proto icmp drop
                   }
                 }";
    let mut steps = vec![Step::Nft(Place::One, rules.to_owned()), Step::Nft(Place::Two, rules.to_owned())];
    steps.extend(talking_over_udp("near", "far", (4000, 5000)));
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
    steps.extend([Place::One, Place::Two].map(|place| Step::Nft(place, "delete table ip filter".to_owned())));
    steps
}

/// The underlay of the first node becomes narrower in the middle of flows.
fn narrower() -> Vec<Step> {
    let mut steps = vec![Step::Listen("listener", Place::There, 5001)];
    steps.extend(talking_over_tcp("client", 4001, "listener", 5001, "server"));
    steps.extend(talking_over_udp("near", "far", (4000, 5000)));
    steps.extend([
        Step::Say("near", None, "large"),
        Step::Hear("far", Something),
        Step::SayMuch("near", LARGE),
        Step::Hear("far", Something),
        Step::Ip(Place::One, NARROW),
        Step::AwaitMtu(Place::One, 1300),
        Step::SayMuch("near", LARGE),
        Step::Hear("far", Nothing),
        // The kernel tells the socket by now, and from here on the container knows.
        Step::SayMuch("near", LARGE),
        Step::SayMuch("near", LARGE),
        Step::Hear("far", Nothing),
        Step::Say("near", Some((THERE, 5000)), "small"),
        Step::Hear("far", Something),
        Step::Talk("client", "server", WORDS, BOTH),
        Step::Ip(Place::One, WIDE),
        Step::AwaitMtu(Place::One, 1500),
        Step::Talk("near", "far", WORDS, BOTH),
    ]);
    steps
}

for_either_backend! {
    fn what_icmp_says_of_flows(backend) {
        world::compare(backend, &[("nobody hears", unreachable()), ("the path becomes narrower", narrower())]);
    }
}
