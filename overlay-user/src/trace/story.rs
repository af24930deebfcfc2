//! Events of the programs, in words.

use overlay_common::{Event, Program, Reason, Slow, Step};

use crate::{mac::Mac, map_dump::interface};

/// What the event says, but for [`Step::Seen`], which says nothing of its own. An event that a later version has is
/// left out as well.
pub(super) fn sentence(event: &Event) -> Option<String> {
    let node = event.node;
    Some(match event.step()? {
        Step::Seen => return None,
        Step::UnknownSource => "no container is known to have the source address; it passes".to_owned(),
        Step::Slow => format!("slow path: {}", slow(event).map_or("an unknown cause", Slow::text)),
        Step::Route => {
            let path = if event.program() == Some(Program::FromContainer) { "fast path: " } else { "" };
            let vtep = if event.mac() == [0; 6] { String::new() } else { format!(", VTEP {}", Mac(event.mac())) };
            format!("{path}the destination's subnet is that of node {node}{vtep}")
        }
        Step::Encapsulated => format!("encapsulated, outer source port {}", event.value()),
        Step::Accepted => format!("accepted: node {node} owns the subnet of the source"),
        Step::Decapsulated => "decapsulated".to_owned(),
        Step::Fragment => {
            "the first fragment of a tunnel packet: the kernel reassembles it before it looks on".to_owned()
        }
        Step::Marked => "marked, so that `admit` lets it in on the overlay device".to_owned(),
        Step::BehindNetfilter => "netfilter has let it through: that is noted, if it was seen in front".to_owned(),
        Step::Out => format!("out of {}, the next hop's MAC address is known", interface(event.value())),
        Step::ToNeighbour => {
            format!("out of {}, the kernel asks for the next hop's MAC address", interface(event.value()))
        }
        Step::In => format!("comes in on {}", interface(event.value())),
        Step::IntoPeer => format!("fast path: straight into the container behind {}", interface(event.value())),
        Step::Passed => "goes on to the kernel".to_owned(),
        Step::Dropped => match reason(event) {
            Some(reason) => format!("dropped, {reason:?}: {}; {}", reason.text(), reason.advice().hint),
            None => format!("dropped for the unknown reason {}", event.value()),
        },
    })
}

/// The reason of a drop.
pub(super) fn reason(event: &Event) -> Option<Reason> {
    let dropped = event.step() == Some(Step::Dropped);
    Reason::ALL.into_iter().find(|reason| dropped && reason.index() == event.value())
}

/// Why the packet does not take the fast path.
fn slow(event: &Event) -> Option<Slow> {
    u8::try_from(event.value()).ok().and_then(Slow::from_number)
}
