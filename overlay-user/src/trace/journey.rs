//! [`Journey`]: from program to program, and through what the kernel does in between.

use std::{
    net::{IpAddr, Ipv4Addr},
    path::Path,
};

use anyhow::Result;
use overlay_common::{Device, Encapsulation, Endpoint, Event, Program, Reason, Step};

use super::{
    captured::Captured, kernel::Kernel, known::Known, outer::Outer, packet::Packet, place::Place, report::Report, story,
};
use crate::{
    loader::{Attached, Tracer},
    map_dump::interface,
};

/// The loopback device: where a packet is run whose container is not known.
const LOOPBACK: u32 = 1;

/// What a packet meets on this node.
pub(super) struct Journey {
    pub(super) tracer: Tracer,
    pub(super) attached: Vec<Attached>,
    pub(super) kernel: Kernel,
    pub(super) known: Known,
}

impl Journey {
    /// A packet that a container here, the node or something outside sends.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(super) async fn of(mut self, packet: &Packet) -> Result<Report> {
        let report = Report::new(packet.describe());
        let here = self.known.is_here(packet.source());
        if self.known.is_here(packet.destination()) && !here {
            let captured = Captured::new(self.known.tunnelled(packet)?, &self.known.node, self.known.kind);
            return self.arrive(report, &captured).await;
        }
        if here && !self.known.is_own(packet.source()) {
            let index = self.known.endpoints.get(&packet.source()).map_or(LOOPBACK, Endpoint::ifindex);
            return self.leave_container(report, Some(packet), &packet.frame([0; 6], [0; 6]), index).await;
        }
        self.leave_node(report, packet).await
    }

    /// A captured frame, at the place where it was captured.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(super) async fn of_captured(mut self, place: &Place, captured: &Captured) -> Result<Report> {
        let report = Report::new(captured.describe());
        let Captured { frame, packet, .. } = captured;
        match place {
            Place::Container(index) => self.leave_container(report, packet.as_ref(), frame, *index).await,
            Place::Overlay(device) => self.encapsulate(report, frame, *device).await,
            Place::Underlay => self.arrive(report, captured).await,
            Place::Elsewhere(index) => self.come_in_elsewhere(report, captured, *index).await,
            Place::MadeUp(packet) => self.of(packet).await,
        }
    }

    /// Lets the programs know what the live ones, over `maps`, know of the packet's flow.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(super) fn remember(&mut self, packet: &Packet, maps: &Path) -> Result<()> {
        let outgoing = self.known.is_here(packet.source());
        if let Some(flow) = packet.flow::<[u8; 4]>(outgoing) {
            self.tracer.remember(maps, flow)?;
        }
        if let Some(flow) = packet.flow::<[u8; 16]>(outgoing) {
            self.tracer.remember(maps, flow)?;
        }
        Ok(())
    }

    /// Whether `program` is attached to the interface with index `interface`.
    pub(super) fn has(&self, program: Program, interface: u32) -> bool {
        self.attached.iter().any(|attached| attached.program == program && attached.interface == interface)
    }

    /// From the container behind the veth with this index to the kernel, or out at once.
    async fn leave_container(
        &mut self,
        mut report: Report,
        packet: Option<&Packet>,
        frame: &[u8],
        index: u32,
    ) -> Result<Report> {
        let events = self.run(&mut report, Program::FromContainer, frame, index)?;
        if let Some(reason) = dropped(&events) {
            return Ok(report.end(false, format!("dropped by from_container, {reason:?}")));
        }
        if has(&events, Step::Encapsulated) {
            return self.sent(report, &events).await;
        }
        let Some(packet) = packet else {
            return Ok(report.end(false, "is no IP packet for another node: the kernel takes it as any other"));
        };
        if self.known.is_here(packet.destination()) {
            return Ok(report.end(true, "stays on this node: its bridge takes it to the container"));
        }
        self.leave_node(report, packet).await
    }

    /// From the kernel's routing to the overlay device and out.
    async fn leave_node(&mut self, mut report: Report, packet: &Packet) -> Result<Report> {
        let destination = packet.destination();
        let Some(route) = self.kernel.route(destination).await else {
            report.kernel(format!("has no route to {destination}"));
            return Ok(report.end(false, "dropped by the kernel, which has no route"));
        };
        let name = interface(route.interface);
        let gateway = route.gateway.map_or_else(String::new, |gateway| format!(" via {gateway}"));
        report.kernel(format!("routes {destination} by {name}{gateway}, if netfilter lets it through"));
        if route.local {
            return Ok(report.end(true, "for this node itself"));
        }
        let Some(device) = self.known.node.devices().find(|device| device.ifindex == route.interface) else {
            return Ok(report.end(false, format!("leaves by {name}, not through the overlay")));
        };
        let mtu = self.kernel.interface(route.interface).await?.mtu;
        if packet.len() > mtu as usize {
            let length = packet.len();
            if packet.may_be_fragmented() {
                report.kernel(format!(
                    "{length} bytes do not fit {name}'s MTU of {mtu}: makes fragments, each goes its way"
                ));
                return Ok(report.end(true, "leaves in fragments; trace one with a smaller --size"));
            }
            report.kernel(format!(
                "{length} bytes do not fit {name}'s MTU of {mtu}, and the packet must not be fragmented"
            ));
            let answer = match destination {
                IpAddr::V4(_) => "ICMP \"fragmentation needed\"",
                IpAddr::V6(_) => "ICMPv6 \"packet too big\"",
            };
            return Ok(report.end(false, format!("answered with {answer}, MTU {mtu}; give containers that MTU")));
        }
        self.encapsulate(report, &packet.forwarded().frame(device.mac, device.mac), device).await
    }

    /// Out of the overlay device.
    async fn encapsulate(&mut self, mut report: Report, frame: &[u8], device: Device) -> Result<Report> {
        let events = self.run(&mut report, Program::ToOverlay, frame, device.ifindex)?;
        match dropped(&events) {
            Some(reason) if has(&events, Step::In) => {
                let answer = match Packet::in_frame(frame).map(|packet| packet.source()) {
                    Some(IpAddr::V6(_)) => "ICMPv6 \"no route to destination\"",
                    _ => "ICMP \"network unreachable\"",
                };
                Ok(report.end(false, format!("dropped by to_overlay, {reason:?}, and answered with {answer}")))
            }
            Some(reason) => Ok(report.end(false, format!("dropped by to_overlay, {reason:?}"))),
            None => {
                if !has(&events, Step::Encapsulated) {
                    let name = interface(device.ifindex);
                    report.kernel(format!("encapsulates it on {name}, with the UDP checksum that the node wants"));
                }
                self.sent(report, &events).await
            }
        }
    }

    /// What was encapsulated leaves by the underlay.
    async fn sent(&self, mut report: Report, events: &[Event]) -> Result<Report> {
        let underlay = self.kernel.interface(self.known.node.underlay_ifindex).await?;
        let next_hop = events.iter().find(|event| event.step() == Some(Step::Route)).map(|event| event.node);
        let name = &underlay.name;
        let to = next_hop.map_or_else(String::new, |next_hop| format!(" for node {next_hop}"));
        let length = report.outer_length().unwrap_or(0);
        if length > underlay.mtu as usize {
            report.kernel(format!("{length} bytes do not fit {name}'s MTU of {}: makes fragments", underlay.mtu));
        }
        Ok(report.end(true, format!("leaves by {name}{to}")))
    }

    /// From the underlay to the container.
    async fn arrive(&mut self, mut report: Report, captured: &Captured) -> Result<Report> {
        let (underlay, frame) = (self.known.node.underlay_ifindex, captured.frame.as_slice());
        if let Some(outer) = Outer::read(frame, self.known.kind) {
            report.outer("underlay", outer);
        }
        if self.attached.iter().any(|attached| attached.program == Program::XdpDecap) {
            let events = self.run(&mut report, Program::XdpDecap, frame, underlay)?;
            if let Some(reason) = dropped(&events) {
                return Ok(report.end(false, format!("dropped by xdp_decap, {reason:?}")));
            }
            report
                .kernel("what follows is the packet's way without xdp_decap, which leads to the same place".to_owned());
        }
        let events = self.run(&mut report, Program::FromUnderlay, frame, underlay)?;
        if let Some(reason) = dropped(&events) {
            return Ok(report.end(false, format!("dropped by from_underlay, {reason:?}")));
        }
        if let Some(peer) = events.iter().find(|event| event.step() == Some(Step::IntoPeer)) {
            return Ok(report.end(true, format!("arrives in the container behind {}", interface(peer.value()))));
        }
        if !has(&events, Step::Accepted) {
            if let Some(frame) = self.taken_by_kernel(captured).await {
                let device = self.tunnel_device(captured);
                report.kernel(format!("takes it for its VXLAN device all the same, and {}", decapsulates(device)));
                return self.ask_admit(report, frame, device);
            }
            return Ok(report.end(false, "is no tunnel packet for this node: the kernel takes it as any other"));
        }
        if has(&events, Step::Fragment) {
            return Ok(report.end(true, "goes to the kernel, which waits for the other fragments"));
        }
        if self.known.kind == Encapsulation::Vxlan {
            let decapsulates = decapsulates(self.tunnel_device(captured));
            report.kernel(format!("{decapsulates}, where `admit` finds the mark and lets it in"));
        }
        match captured.carried() {
            Some(packet) => self.deliver(report, packet).await,
            None => Ok(report.end(false, "goes to the kernel, which finds no whole IP packet in it")),
        }
    }

    /// From an interface that is neither the underlay nor a container's: the kernel alone decapsulates, of VXLAN.
    async fn come_in_elsewhere(mut self, mut report: Report, captured: &Captured, index: u32) -> Result<Report> {
        let name = interface(index);
        let Some(frame) = self.taken_by_kernel(captured).await else {
            let result = format!("no program is attached to {name}: the kernel takes it as any other");
            return Ok(report.end(false, result));
        };
        let device = self.tunnel_device(captured);
        let decapsulates = decapsulates(device);
        report.kernel(format!("receives it on {name}, where no program is attached, and {decapsulates}"));
        self.ask_admit(report, frame, device)
    }

    /// The frame in a tunnel packet to any address of this node: the kernel's VXLAN device takes it, wherever it comes in.
    async fn taken_by_kernel<'a>(&self, captured: &'a Captured) -> Option<&'a [u8]> {
        let frame = captured.tunnelled.as_ref()?.frame.as_deref()?;
        let route = self.kernel.route(captured.packet.as_ref()?.destination()).await?;
        route.local.then_some(frame)
    }

    /// Into the overlay device without the mark of `from_underlay`.
    fn ask_admit(&mut self, mut report: Report, frame: &[u8], Device { ifindex, .. }: Device) -> Result<Report> {
        let events = self.run(&mut report, Program::Admit, frame, ifindex)?;
        Ok(match dropped(&events) {
            Some(reason) => report.end(false, format!("dropped by admit, {reason:?}")),
            None => report.end(true, format!("let in on {}", interface(ifindex))),
        })
    }

    /// From the overlay device through the kernel to the container.
    async fn deliver(&mut self, mut report: Report, packet: &Packet) -> Result<Report> {
        let destination = packet.destination();
        let Some(route) = self.kernel.route(destination).await else {
            report.kernel(format!("has no route to {destination}"));
            return Ok(report.end(false, "dropped by the kernel, which has no route"));
        };
        if route.local {
            report.kernel(format!("{destination} is an address of this node"));
            return Ok(report.end(true, "arrives at this node itself"));
        }
        let name = interface(route.interface);
        report.kernel(format!("routes {destination} by {name}, if netfilter lets it through"));
        match self.known.endpoints.get(&destination).map(Endpoint::ifindex) {
            Some(index) if index != 0 => {
                let frame = packet.forwarded().frame([0; 6], [0; 6]);
                self.run(&mut report, Program::ToContainer, &frame, index)?;
                Ok(report.end(true, format!("arrives in the container behind {}", interface(index))))
            }
            _ => {
                let asking = if destination.is_ipv4() { "ARP" } else { "neighbour discovery" };
                report
                    .kernel(format!("no container is known to have {destination}; asks for it by {asking} on {name}"));
                Ok(report.end(false, "lost, unless somebody answers"))
            }
        }
    }

    /// The overlay device that decapsulates a tunnel packet.
    fn tunnel_device(&self, captured: &Captured) -> Device {
        self.known.usual_device(captured.packet.as_ref().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), Packet::destination))
    }

    /// Runs a program and adds what it tells to the report.
    fn run(&mut self, report: &mut Report, program: Program, frame: &[u8], index: u32) -> Result<Vec<Event>> {
        let run = self.tracer.run(program, frame, index)?;
        report.program(program, &interface(index), &run.events);
        if has(&run.events, Step::Encapsulated)
            && let Some(outer) = Outer::read(&run.packet, self.known.kind)
        {
            report.outer(program.name(), outer);
        }
        Ok(run.events)
    }
}

/// What the kernel's VXLAN device does, in words.
fn decapsulates(device: Device) -> String {
    format!("decapsulates it on {}", interface(device.ifindex))
}

fn has(events: &[Event], step: Step) -> bool {
    events.iter().any(|event| event.step() == Some(step))
}

fn dropped(events: &[Event]) -> Option<Reason> {
    events.iter().find_map(story::reason)
}
