//! What our programs take for a packet by the size of the cluster and by the number of flows, without a network:
//! `BPF_PROG_TEST_RUN`.

use std::net::Ipv4Addr;

use anyhow::Result;
use overlay_common::{Encapsulation, Flow, FlowKey, LocalNode};
use overlay_tests::{
    packets::{ETHER_IPV4, Ipv4, PROTO_UDP, ethernet, udp, vxlan},
    programs::{Programs, SUBNET, VTEP},
};

use crate::{
    report::{FlowCost, LookupCost},
    stats,
};

/// How many routes there are.
const ROUTES: [u32; 4] = [2, 256, 10_000, 65_536];

/// How many flows there are.
const FLOWS: [u32; 4] = [10, 10_000, 65_536, 1_000_000];

/// The length of all subnets: there must be room for twice as many as the maps hold.
const LENGTH: u8 = 25;

/// How often a program runs on one packet, where it leaves it as it is.
const HOT: u32 = 300_000;

/// How many packets of different subnets a program sees once each.
const COLD: u32 = 4096;

/// Measures `from_underlay` and `to_overlay` with each number of routes.
///
/// # Errors
///
/// When the kernel refuses a program or an entry.
pub(crate) fn measure() -> Result<Vec<LookupCost>> {
    let mut programs = Programs::load(Encapsulation::Vxlan)?;
    programs.set_node(LocalNode::new(&VTEP, (Ipv4Addr::new(10, 0, 0, 0), 8), (SUBNET.0, LENGTH), 1, (1, 1450)))?;
    let mut costs = Vec::new();
    // One is there from the start.
    let mut present = 1;
    for routes in ROUTES {
        while present < routes {
            programs.set_route(subnet(present).octets(), node(present))?;
            present += 1;
        }
        // Decapsulation is the VXLAN device's: the program looks and lets pass, so the packet can be used again.
        let hot = programs.time("from_underlay", &from_wire(1), HOT)?.as_nanos() as f64;
        let cold_ns = cold(&mut programs, "from_underlay", routes, from_wire)?;
        costs.push(LookupCost { program: "from_underlay".to_owned(), routes, hot_ns: Some(hot), cold_ns });
        let cold_ns = cold(&mut programs, "to_overlay", routes, from_container)?;
        costs.push(LookupCost { program: "to_overlay".to_owned(), routes, hot_ns: None, cold_ns });
    }
    Ok(costs)
}

/// Measures `to_container` with each number of flows, in a table that has room for as many.
///
/// # Errors
///
/// When the kernel refuses a program or an entry.
pub(crate) fn flows() -> Result<Vec<FlowCost>> {
    let mut costs = Vec::new();
    for flows in FLOWS {
        let mut programs = Programs::load_for_flows(Encapsulation::Vxlan, u32::MAX, flows)?;
        for number in 0..flows {
            programs.set_flow(flow(number), Flow::default())?;
        }
        let hot_ns = programs.time("to_container", &to_container(0), HOT)?.as_nanos() as f64;
        let times = (0..COLD).map(|number| {
            // As in `cold`.
            let packet = to_container(number.wrapping_mul(7919) % flows);
            Ok(programs.time("to_container", &packet, 1)?.as_nanos() as f64)
        });
        let times = times.collect::<Result<Vec<_>>>()?;
        let cold_ns = stats::median(&times).unwrap_or(f64::NAN);
        costs.push(FlowCost { flows, hot_ns, cold_ns });
    }
    Ok(costs)
}

/// The median nanoseconds of runs on packets of different subnets, each run once.
fn cold(programs: &mut Programs, program: &str, routes: u32, packet: impl Fn(u32) -> Vec<u8>) -> Result<f64> {
    let mut times = Vec::new();
    for number in 0..COLD {
        // A step that shares no factor with the number of subnets visits them all, and neighbours never in turn.
        let remote = 1 + number.wrapping_mul(7919) % (routes - 1);
        times.push(programs.time(program, &packet(remote), 1)?.as_nanos() as f64);
    }
    Ok(stats::median(&times).unwrap_or(f64::NAN))
}

/// The subnet of remote node `number`.
fn subnet(number: u32) -> Ipv4Addr {
    (u32::from(Ipv4Addr::new(10, 64, 0, 0)) + (number << (32 - LENGTH))).into()
}

/// The underlay address of remote node `number`.
fn node(number: u32) -> Ipv4Addr {
    (u32::from(Ipv4Addr::new(172, 16, 0, 0)) + number).into()
}

/// A container of subnet `subnet`.
fn container(subnet: Ipv4Addr) -> Ipv4Addr {
    (u32::from(subnet) + 2).into()
}

/// The remote end of flow `number`.
fn remote(number: u32) -> ([u8; 4], [u8; 2]) {
    (container(subnet(number >> 16)).octets(), (number as u16).to_be_bytes())
}

/// Flow `number`.
fn flow(number: u32) -> FlowKey {
    FlowKey::new(PROTO_UDP, (container(SUBNET.0).octets(), 1_u16.to_be_bytes()), remote(number))
}

/// A packet of flow `number` for the container, as its veth sees it.
fn to_container(number: u32) -> Vec<u8> {
    let (address, port) = remote(number);
    let datagram = udp(u16::from_be_bytes(port), 1, &[0; 64]);
    ethernet([2; 6], [2; 6], ETHER_IPV4, &Ipv4::new(address.into(), container(SUBNET.0), PROTO_UDP, datagram).bytes())
}

/// A container's packet for remote node `number`, as the overlay device sees it.
fn from_container(number: u32) -> Vec<u8> {
    let to = container(subnet(number));
    let inner = Ipv4::new(container(SUBNET.0), to, PROTO_UDP, udp(1, 2, &[0; 64])).bytes();
    ethernet([2; 6], VTEP.mac, ETHER_IPV4, &inner)
}

/// A packet of remote node `number`, as the underlay interface sees it.
fn from_wire(number: u32) -> Vec<u8> {
    let from = container(subnet(number));
    let inner = Ipv4::new(from, container(SUBNET.0), PROTO_UDP, udp(1, 2, &[0; 64])).bytes();
    let payload = vxlan(0x08, VTEP.vni, &ethernet(VTEP.mac, [2; 6], ETHER_IPV4, &inner));
    let outer = Ipv4::new(node(number), VTEP.address, PROTO_UDP, udp(50_000, VTEP.port, &payload)).bytes();
    ethernet([2; 6], [2; 6], ETHER_IPV4, &outer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use overlay_tests::programs::Context;

    #[test]
    fn the_packets_take_the_way_that_is_measured() {
        let mut programs = Programs::load(Encapsulation::Vxlan).unwrap();
        programs
            .set_node(LocalNode::new(&VTEP, (Ipv4Addr::new(10, 0, 0, 0), 8), (SUBNET.0, LENGTH), 1, (1, 1450)))
            .unwrap();
        programs.set_route(subnet(7).octets(), node(7)).unwrap();
        let passed = programs.run("from_underlay", &from_wire(7), Context::default()).unwrap();
        assert_eq!((passed.verdict, passed.counted, &passed.packet), (-1, None, &from_wire(7)));
        let sent = programs.run("to_overlay", &from_container(7), Context::default()).unwrap();
        assert_eq!((sent.verdict, sent.counted), (7, None));
    }
}
