//! The data path of the overlay: what happens to a packet, on one screen.
//!
//! ```text
//! container -> [from_container] -> bridge, netfilter, route -> overlay device -> [to_overlay] -> underlay interface
//! underlay interface -> [xdp_decap, where attached] -> [from_underlay] -> overlay device -> [admit]
//!     -> netfilter, route, bridge -> [to_container] -> container
//! ```
//!
//! An entry point decides nothing: it asks `guard`, `encap` or `decap` what becomes of the packet, and turns the answer
//! into what its hook returns. A [`Reason`] means that the packet is ours and broken or hostile; it is counted
//! and dropped. What is not ours passes untouched and uncounted.
#![no_std]
#![no_main]

mod clock;
mod decap;
mod discovery;
mod encap;
mod fast;
mod flow;
mod guard;
mod icmp;
mod inner;
mod maps;
mod neighbour;
mod outer;
mod packet;
mod trace;
mod tunnel;

use aya_ebpf::{
    EbpfContext,
    bindings::{TC_ACT_REDIRECT, TC_ACT_SHOT, TC_ACT_UNSPEC, xdp_action},
    macros::{classifier, xdp},
    programs::{TcContext, XdpContext},
};
use aya_log_ebpf::info;
use network_types::ip::{Ipv4Hdr, Ipv6Hdr};
use overlay_common::{IpHeader as _, Program, Reason, Step};

use crate::packet::{Ethernet, L2, Packet, TcPacket, XdpPacket};

/// What becomes of a packet that leaves for no [`Reason`].
#[derive(Clone, Copy)]
pub(crate) enum Verdict {
    /// Goes on to the next program and the kernel.
    Pass,
    /// Goes to the interface that a redirect helper has noted.
    Redirect,
}

/// TC ingress of the node's side of a container's veth: what the container may not send ends here.
#[classifier]
fn from_container(ctx: TcContext) -> i32 {
    let mut packet = TcPacket::bare(ctx);
    trace::begin(Program::FromContainer, &packet);
    let outcome = guard::leave(&mut packet);
    tc_action(&packet, outcome)
}

/// TC egress of the node's side of a container's veth: notes what bridge and netfilter have let through.
#[classifier]
fn to_container(ctx: TcContext) -> i32 {
    let packet = TcPacket::bare(ctx);
    trace::begin(Program::ToContainer, &packet);
    fast::note_entering(&packet);
    tc_action(&packet, Ok(Verdict::Pass))
}

/// TC egress of the overlay device: packets for remote subnets leave as outer packets through the underlay.
#[classifier]
fn to_overlay(ctx: TcContext) -> i32 {
    let mut packet = TcPacket::bare(ctx);
    trace::begin(Program::ToOverlay, &packet);
    let outcome = encap::encap(&mut packet);
    let action = tc_action(&packet, outcome);
    match outcome {
        Err(Reason::NoRoute) => icmp::unreachable(&mut packet).map_or(action, |_| TC_ACT_REDIRECT),
        _ => action,
    }
}

/// TC ingress of the underlay interface: outer packets from known nodes enter as container packets.
#[classifier]
fn from_underlay(ctx: TcContext) -> i32 {
    let mut packet = TcPacket::from_wire(ctx);
    trace::begin_on_underlay(Program::FromUnderlay, &packet);
    let outcome = decap::decap(&mut packet);
    tc_action(&packet, outcome)
}

/// TC ingress of the overlay device of VXLAN: nothing comes in past `from_underlay`.
#[classifier]
fn admit(ctx: TcContext) -> i32 {
    let mut packet = TcPacket::bare(ctx);
    trace::begin(Program::Admit, &packet);
    let outcome = decap::admit(&mut packet);
    tc_action(&packet, outcome)
}

/// Native XDP on the underlay interface: strips the outer headers before the kernel builds a socket buffer.
/// `from_underlay` behind it recognises the packet by its metadata and delivers it.
#[xdp]
fn xdp_decap(ctx: XdpContext) -> u32 {
    let mut packet = XdpPacket::new(ctx);
    trace::begin_on_underlay(Program::XdpDecap, &packet);
    match decap::decap_early(&mut packet) {
        Ok(()) => {
            trace::step(Step::Passed);
            xdp_action::XDP_PASS
        }
        Err(reason) => {
            count_and_log(&packet, packet.context(), reason);
            xdp_action::XDP_DROP
        }
    }
}

#[inline(always)]
fn tc_action(packet: &TcPacket, outcome: Result<Verdict, Reason>) -> i32 {
    match outcome {
        // Not TC_ACT_OK: programs of others behind ours are to see what is not ours.
        Ok(Verdict::Pass) => {
            trace::step(Step::Passed);
            TC_ACT_UNSPEC
        }
        Ok(Verdict::Redirect) => TC_ACT_REDIRECT,
        Err(reason) => {
            count_and_log(packet, packet.context(), reason);
            TC_ACT_SHOT
        }
    }
}

/// Counts a drop; and logs it, if the agent was started with `--log-drops`. Otherwise the verifier takes the logging
/// out: its level is a constant of the load.
#[inline(always)]
fn count_and_log<C: EbpfContext>(packet: &impl Packet, context: &C, reason: Reason) {
    maps::count_drop(reason);
    trace::tell(Step::Dropped, reason.index(), [0; 6]);
    let ether_type = packet.header::<Ethernet>(0).map(|ethernet| ethernet.ether_type);
    match (ether_type, packet.header::<Ipv4Hdr>(L2), packet.header::<Ipv6Hdr>(L2)) {
        (Ok(Ipv6Hdr::ETHER_TYPE), _, Ok(ip)) => {
            info!(context, "drop: {:i} to {:i}: {}", ip.src_addr(), ip.dst_addr(), reason.text());
        }
        (_, Ok(ip), _) => info!(context, "drop: {:i} to {:i}: {}", ip.src_addr(), ip.dst_addr(), reason.text()),
        _ => info!(context, "drop: {}", reason.text()),
    }
}

// Where lints look at the whole workspace for the host, features of other members link `std`, which has a handler.
#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// The kernel asks for a GPL-compatible licence of programs that call GPL-only helpers.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
