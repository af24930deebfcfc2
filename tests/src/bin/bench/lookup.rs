//! What our programs take for a packet by the size of the cluster and by the number of flows, without a network:
//! `BPF_PROG_TEST_RUN`.

use std::net::Ipv4Addr;

use anyhow::Result;
use overlay_common::{Encapsulation, Flow, FlowKey, LocalNode, Range};
use overlay_tests::{
    packets::{ETHER_IPV4, Ipv4, PROTO_UDP, ethernet, udp, vxlan},
    programs::{Programs, SUBNET, VTEP},
};

use crate::{
    report::{Cost, FlowCost, LookupCost},
    stats::{self, Better, Summary},
};

/// How many routes there are.
const ROUTES: [u32; 4] = [2, 256, 10_000, 65_536];

/// How many flows there are.
const FLOWS: [u32; 4] = [10, 10_000, 65_536, 1_000_000];

/// The length of all subnets: there must be room for twice as many as the maps hold.
const LENGTH: u8 = 25;

/// How often every size takes its turn. A machine that is slower for a second is so for all of them.
const ROUNDS: usize = 21;

/// How many packets take part in a hot measurement: how far back in its bucket an entry is, is chance.
const HOT_PACKETS: u32 = 16;

/// How often a program runs on each of them in a round.
const HOT: u32 = 4000;

/// How many packets of different subnets or flows a program sees once each in a round.
const COLD: u32 = 200;

/// Measures `from_underlay` and `to_overlay` with each number of routes.
///
/// # Errors
///
/// When the kernel refuses a program or an entry.
pub(crate) fn measure() -> Result<Vec<LookupCost>> {
    let mut sizes = ROUTES.into_iter().map(with_routes).collect::<Result<Vec<_>>>()?;
    let [mut from_underlay, mut to_overlay] = [(); 2].map(|()| vec![Rounds::default(); sizes.len()]);
    for round in 0..ROUNDS {
        for (size, (programs, routes)) in sizes.iter_mut().zip(ROUTES).enumerate() {
            // One route is that of the test's own.
            let remotes =
                Entries { program: "from_underlay", count: routes - 1, packet: &|number| from_wire(1 + number) };
            // Decapsulation is the VXLAN device's: the program looks and lets pass, so the packet can be used again.
            from_underlay[size].hot.push(remotes.hot(programs)?);
            from_underlay[size].cold.push(remotes.cold(programs, round)?);
            let remotes = Entries { program: "to_overlay", packet: &|number| from_container(1 + number), ..remotes };
            to_overlay[size].cold.push(remotes.cold(programs, round)?);
        }
    }
    let all = [("from_underlay", from_underlay), ("to_overlay", to_overlay)];
    let costs = all.into_iter().flat_map(|(program, rounds)| {
        let cost = move |(routes, cost)| LookupCost { program: program.to_owned(), routes, cost };
        ROUTES.into_iter().zip(costs(rounds)).map(cost)
    });
    Ok(costs.collect())
}

/// Measures `to_container` with each number of flows, in a table that has room for as many.
///
/// # Errors
///
/// When the kernel refuses a program or an entry.
pub(crate) fn flows() -> Result<Vec<FlowCost>> {
    let mut sizes = FLOWS.into_iter().map(with_flows).collect::<Result<Vec<_>>>()?;
    let mut rounds = vec![Rounds::default(); sizes.len()];
    for round in 0..ROUNDS {
        for ((programs, count), rounds) in sizes.iter_mut().zip(FLOWS).zip(&mut rounds) {
            let entries = Entries { program: "to_container", count, packet: &to_container };
            rounds.hot.push(entries.hot(programs)?);
            rounds.cold.push(entries.cold(programs, round)?);
        }
    }
    Ok(FLOWS.into_iter().zip(costs(rounds)).map(|(flows, cost)| FlowCost { flows, cost }).collect())
}

/// Our programs, and maps with so many routes.
fn with_routes(routes: u32) -> Result<Programs> {
    let mut programs = Programs::load(Encapsulation::Vxlan)?;
    programs.set_node(local_node())?;
    for number in 1..routes {
        programs.set_route(subnet(number).octets(), node(number))?;
    }
    Ok(programs)
}

/// Our programs, and maps with so many flows.
fn with_flows(flows: u32) -> Result<Programs> {
    let mut programs = Programs::load_for_flows(Encapsulation::Vxlan, u32::MAX, flows)?;
    for number in 0..flows {
        programs.set_flow(flow(number), Flow::default())?;
    }
    Ok(programs)
}

/// What a program is run on: packets that each lead to one of `count` entries, by the number of the entry.
struct Entries<'a> {
    program: &'static str,
    count: u32,
    packet: &'a dyn Fn(u32) -> Vec<u8>,
}

impl Entries<'_> {
    /// The packet of some entry: neighbours never come in turn, and all have theirs, since the step shares no factor
    /// with the number of entries.
    fn some(&self, number: u32) -> Vec<u8> {
        (self.packet)(number.wrapping_mul(7919) % self.count)
    }

    /// Nanoseconds of a run on the same packet again and again; the mean over a few packets.
    fn hot(&self, programs: &mut Programs) -> Result<f64> {
        let mut sum = 0.0;
        for number in 0..HOT_PACKETS {
            sum += programs.time(self.program, &self.some(number), HOT)?.as_nanos() as f64;
        }
        Ok(sum / f64::from(HOT_PACKETS))
    }

    /// The median nanoseconds of runs on different packets, each run once.
    fn cold(&self, programs: &mut Programs, round: usize) -> Result<f64> {
        let mut times = Vec::new();
        for number in 0..COLD {
            let packet = self.some(number + COLD * round as u32);
            times.push(programs.time(self.program, &packet, 1)?.as_nanos() as f64);
        }
        Ok(stats::median(&times).unwrap_or(f64::NAN))
    }
}

/// What was measured of one size, round by round.
#[derive(Debug, Default, Clone)]
struct Rounds {
    hot: Vec<f64>,
    cold: Vec<f64>,
}

/// The cost of each size, compared with the first.
fn costs(sizes: Vec<Rounds>) -> Vec<Cost> {
    let summary = |rounds: Vec<f64>| Summary::of(rounds, Better::Lower);
    let sizes: Vec<_> = sizes.into_iter().map(|size| (summary(size.hot), summary(size.cold))).collect();
    let ratio = |of: &Option<Summary>, to: &Option<Summary>| of.as_ref()?.ratio_to(to.as_ref()?);
    let median = |of: &Option<Summary>| of.as_ref().map(|summary| summary.median);
    let Some((first_hot, first_cold)) = sizes.first() else { return Vec::new() };
    let cost = |(hot, cold): &(Option<Summary>, Option<Summary>)| Cost {
        hot_ns: median(hot),
        hot_ratio: ratio(hot, first_hot),
        cold_ns: median(cold),
        cold_ratio: ratio(cold, first_cold),
    };
    sizes.iter().map(cost).collect()
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

/// The node that looks up.
fn local_node() -> LocalNode {
    let range = Range::<[u8; 4]>::new((Ipv4Addr::new(10, 0, 0, 0), 8), (SUBNET.0, LENGTH));
    LocalNode::new(1).over(&VTEP, 1).with(range, 1450)
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
        programs.set_node(local_node()).unwrap();
        programs.set_route(subnet(7).octets(), node(7)).unwrap();
        let passed = programs.run("from_underlay", &from_wire(7), Context::default()).unwrap();
        assert_eq!((passed.verdict, passed.counted, &passed.packet), (-1, None, &from_wire(7)));
        let sent = programs.run("to_overlay", &from_container(7), Context::default()).unwrap();
        assert_eq!((sent.verdict, sent.counted), (7, None));
    }
}
