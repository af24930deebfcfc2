//! Addresses and subnets that change hands in the middle of flows.

use std::time::Duration;

use super::{BOTH, Family, Nothing, Place, Something, Step, WORDS, talking_over_tcp, talking_over_udp, world};
use crate::ground::for_each_family;

/// Longer than the kernel delays the acknowledgement of a last word: one that met the new container would end the connection
/// before the script does.
const ACKNOWLEDGED: Duration = Duration::from_millis(300);

/// Another container takes over the address.
fn replaced(family: &Family) -> Vec<Step> {
    let mut steps = vec![Step::Listen("listener", Place::There, 5001)];
    steps.extend(talking_over_tcp(family, "client", 4001, "listener", 5001, "server"));
    steps.push(Step::Idle(ACKNOWLEDGED));
    steps.extend(talking_over_udp(family, "near", "old", (4000, 5000)));
    steps.extend([
        Step::Replace,
        Step::Udp("new", Place::There, 5000),
        Step::TalkUntilHeard("near", "new"),
        Step::Hear("old", Nothing),
        Step::Engage("near", "new", BOTH),
        Step::Talk("near", "new", WORDS, BOTH),
        // The new one knows nothing of the connection.
        Step::Say("client", None, "word"),
        Step::Hear("client", Something),
        Step::Hear("server", Nothing),
        Step::Hear("old", Nothing),
    ]);
    steps
}

/// Another node takes over the subnet, and a container there the address.
fn handed_over(family: &Family) -> Vec<Step> {
    let mut steps = talking_over_udp(family, "near", "old", (4010, 5010));
    steps.extend([
        Step::HandOver,
        Step::Udp("new", Place::There, 5010),
        Step::Say("near", Some((family.there, 5010)), "whose?"),
        Step::Hear("new", Something),
        Step::Hear("old", Nothing),
        Step::Engage("near", "new", &[Place::One, Place::Three]),
        Step::Talk("near", "new", WORDS, &[Place::One]),
        Step::Hear("old", Nothing),
    ]);
    steps
}

for_each_family! {
    fn addresses_that_change_hands(way) {
        let family = Family::of(way);
        world::compare(way, &[("another container", replaced(family)), ("another node", handed_over(family))]);
    }
}
