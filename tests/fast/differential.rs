//! The fast path changes no outcome: the same scripts in two worlds, one of them without it, must look the same.
//!
//! What is compared: who received what and from which address, how connections ended, which errors ICMP brought, and what
//! conntrack knows. Scripts are told once for IPv4, with either backend, and IPv6. In the world with a fast path the scripts also insist on its being taken where it may be.

mod connections;
mod errors;
mod family;
mod hands;
mod policy;
mod script;
mod sockets;
mod translation;
mod world;

use family::Family;
use script::{Expect::Nothing, Expect::Something, Name, Place, Step};

/// Nodes that both carry a flow on the fast path, where there is one.
const BOTH: &[Place] = &[Place::One, Place::Two];

/// How many words a flow exchanges: many more than those that renew an approval meanwhile.
const WORDS: u32 = 300;

/// Opens `near` in the container here and `far` in the one there, and lets them exchange words on the fast path.
fn talking_over_udp(family: &Family, near: Name, far: Name, ports: (u16, u16)) -> Vec<Step> {
    vec![
        Step::Udp(near, Place::Here, ports.0),
        Step::Udp(far, Place::There, ports.1),
        Step::Say(near, Some((family.there, ports.1)), "hello"),
        Step::Hear(far, Something),
        Step::Engage(near, far, BOTH),
        Step::Talk(near, far, WORDS, BOTH),
    ]
}

/// Connects `near` at `place` with `to`, where `listener` listens, and accepts it as `far`.
fn connected(near: Name, at: (Place, u16), to: (&'static str, u16), listener: Name, far: Name) -> Vec<Step> {
    let (place, port) = at;
    vec![Step::Connect(near, place, port, to), Step::Answered(near, Something), Step::Accept(listener, far)]
}

/// The same from the container here to the one there, and lets them exchange words on the fast path.
fn talking_over_tcp(family: &Family, near: Name, port: u16, listener: Name, to_port: u16, far: Name) -> Vec<Step> {
    let mut steps = connected(near, (Place::Here, port), (family.there, to_port), listener, far);
    steps.extend([Step::Engage(near, far, BOTH), Step::Talk(near, far, WORDS, BOTH)]);
    steps
}
