//! What programs tell `overlay trace` of packets of either inner family over either underlay.

use std::net::IpAddr;

use overlay_common::{Encapsulation, Event, Program, Step};
use overlay_tests::{
    packets::{Extension, PROTO_UDP, ethernet},
    programs::{Context, Programs},
};

use super::{LOCAL, REMOTE, UNDERLAYS, Underlay, extended, from_kernel, to_local, to_remote};
use crate::{BOTH, from_wire, inner, tunnel};

/// The programs, which tell, of a node that knows the other one by its address of this family.
fn programs(underlay: Underlay) -> Programs {
    let mut programs = Programs::load_telling(Encapsulation::Vxlan).expect("load the programs");
    programs.set_dual_stack(underlay.other_node()).expect("describe the node");
    programs
}

/// What `program` tells of `packet`.
fn told(programs: &mut Programs, program: &str, packet: &[u8]) -> Vec<Event> {
    programs.run(program, packet, Context::default()).expect("run the program");
    programs.told().expect("read the events")
}

/// Every event is of the datagram between `ends`; from step `found` on, the other node is known as `node`.
fn assert_told(events: &[Event], ends: [IpAddr; 2], found: Step, node: IpAddr) {
    assert_eq!(events.first().and_then(Event::step), Some(Step::Seen), "{events:?}");
    let at = events.iter().position(|event| event.step() == Some(found)).unwrap_or_else(|| panic!("{events:?}"));
    for (number, event) in events.iter().enumerate() {
        let tuple = event.tuple;
        assert_eq!((tuple.source(), tuple.destination()), ((ends[0], 1000), (ends[1], 2000)), "{event:?}");
        assert_eq!(tuple.protocol(), Some(PROTO_UDP));
        assert_eq!(event.node.is_unspecified(), number < at, "{event:?}");
    }
    assert_eq!(events[at].node.ip(), node);
}

#[test]
fn the_ends_of_a_packet_and_the_other_node_are_told_of_either_family() {
    let (v4, v6): ([IpAddr; 2], [IpAddr; 2]) =
        ([crate::LOCAL.into(), crate::REMOTE.into()], [LOCAL.into(), REMOTE.into()]);
    let back = |[local, remote]: [IpAddr; 2]| [remote, local];
    let ((leaving_v4, leaving_v6), (entering_v4, entering_v6)) = (to_remote(), to_local());
    for underlay in UNDERLAYS {
        let (mut programs, node) = (programs(underlay), underlay.other_node());
        for (frame, ends) in [(from_kernel(&leaving_v4), v4), (from_kernel(&leaving_v6), v6)] {
            assert_told(&told(&mut programs, "to_overlay", &frame), ends, Step::Route, node);
        }
        let (entering_v4, entering_v6) = (underlay.tunnel(&entering_v4, 0), underlay.tunnel(&entering_v6, 0));
        for (frame, ends) in [(entering_v4, back(v4)), (entering_v6, back(v6))] {
            for program in ["from_underlay", "xdp_decap"] {
                assert_told(&told(&mut programs, program, &frame), ends, Step::Accepted, node);
            }
        }
    }
}

#[test]
fn what_has_no_ports_is_told_of_without_and_what_is_no_ip_without_addresses() {
    let mut programs = programs(Underlay::Ipv6);
    let options = extended(&to_remote().1, Extension::padding(Extension::HOP_BY_HOP));
    let events = told(&mut programs, "to_overlay", &from_kernel(&options));
    let tuple = events[0].tuple;
    assert_eq!((tuple.source(), tuple.destination()), ((LOCAL.into(), 0), (REMOTE.into(), 0)));
    assert_eq!(tuple.protocol(), Some(Extension::HOP_BY_HOP));
    let events = told(&mut programs, "to_overlay", &ethernet([2; 6], [2; 6], 0x88cc, &[0; 60]));
    assert_eq!((events[0].program(), events[0].tuple.protocol()), (Some(Program::ToOverlay), None));
}

#[test]
fn the_packet_in_either_encapsulation_is_told_of() {
    for encapsulation in BOTH {
        let mut programs = Programs::load_telling(encapsulation).expect("load the programs");
        let frame = from_wire(&tunnel(encapsulation, &inner(crate::REMOTE, crate::LOCAL)));
        let ends = [crate::REMOTE.into(), crate::LOCAL.into()];
        let events = told(&mut programs, "from_underlay", &frame);
        assert_told(&events, ends, Step::Accepted, Underlay::Ipv4.other_node());
    }
}
