//! Outer packet to container packet.
//!
//! No trust in the wire: a packet is accepted only from the underlay address of a node that holds a lease, with
//! an inner source inside that node's subnet and an inner destination inside ours.

use network_types::ip::{Ipv4Hdr, Ipv6Hdr};
use overlay_common::{
    Address as _, Encapsulation, IpHeader as _, LocalNode, Reason, Step, Traffic, UnderlayAddress, decapsulated_tos,
};

use crate::{
    Verdict, fast,
    inner::Inner,
    maps,
    packet::{Ethernet, L2, Packet, TcPacket, XdpPacket, opaque},
    trace,
    tunnel::{self, Tunnel},
};

/// An inner packet that may come in.
pub(crate) struct Accepted<A> {
    /// Bytes between the Ethernet header and the inner IP packet.
    pub(crate) outer_len: u8,
    /// Whether the outer packet was of the other family.
    pub(crate) mixed: bool,
    /// The outer packet is the first of several fragments.
    fragment: bool,
    outer_tos: u8,
    inner_tos: u8,
    /// The sender's subnet.
    subnet: A,
    /// Length in bytes of the inner IP packet.
    pub(crate) inner_len: usize,
}

/// Decapsulates on the TC hook, or delivers what `xdp_decap` has decapsulated.
#[inline(always)]
pub(crate) fn decap(packet: &mut TcPacket) -> Result<Verdict, Reason> {
    let Some(node) = maps::local_node() else { return Ok(Verdict::Pass) };
    if packet.is_xdp_decapsulated() {
        return match packet.header::<Ethernet>(0)?.ether_type {
            Ipv6Hdr::ETHER_TYPE if maps::has_ipv6(node) => come_in::<Ipv6Hdr>(packet, node, None),
            _ => come_in::<Ipv4Hdr>(packet, node, None),
        };
    }
    if packet.is_in_vlan() {
        return Ok(Verdict::Pass);
    }
    match tunnel::find(packet, node)? {
        Some(tunnel) if tunnel.inner_ipv6 => come_in::<Ipv6Hdr>(packet, node, Some(&tunnel)),
        Some(tunnel) => come_in::<Ipv4Hdr>(packet, node, Some(&tunnel)),
        None => Ok(Verdict::Pass),
    }
}

/// What becomes of the packet in a tunnel; `None`: `xdp_decap` has taken it out. A function of its own for each family, with
/// a stack of its own.
#[inline(never)]
fn come_in<I: Inner>(packet: &mut TcPacket, node: &LocalNode, tunnel: Option<&Tunnel>) -> Result<Verdict, Reason> {
    let early = tunnel.is_none();
    let accepted = match tunnel {
        Some(tunnel) => accept::<I, TcPacket>(packet, node, tunnel),
        None => accepted_early::<I>(packet, node),
    };
    let accepted = match &accepted {
        Ok(accepted) => accepted,
        Err(reason) => return Err(*reason),
    };
    // The kernel would drop it as well, and count it nowhere that says why.
    let tos = decapsulated_tos(accepted.inner_tos, accepted.outer_tos).map_err(|_| Reason::CeOnNotEct)?;
    if accepted.fragment {
        trace::step(Step::Fragment);
        // The kernel reassembles it. What follows the first fragment needs no look: without it, it is nothing.
        mark_for_admit(packet);
        return Ok(Verdict::Pass);
    }
    let packets = packet.wire_packets();
    let fast = fast::enter::<I>(packet, node, accepted, tos)?;
    let verdict = match (fast, maps::encapsulation()) {
        (Some(verdict), _) => verdict,
        (None, _) if early => deliver::<I>(packet, node)?,
        // The kernel's own VXLAN device decapsulates, on the way to the overlay device.
        (None, Encapsulation::Vxlan) => {
            mark_for_admit(packet);
            Verdict::Pass
        }
        (None, Encapsulation::Udp) => {
            packet.strip(usize::from(accepted.outer_len))?;
            trace::step(Step::Decapsulated);
            update_tos::<I>(packet, accepted.inner_tos, tos)?;
            deliver::<I>(packet, node)?
        }
    };
    // `xdp_decap` has counted, but could not know the way.
    if !early || fast.is_some() {
        let (decap_packets, decap_bytes) = if early { (0, 0) } else { (packets, accepted.inner_len as u64) };
        let decap_fast_packets = if fast.is_some() { packets } else { 0 };
        let traffic = Traffic { decap_packets, decap_bytes, decap_fast_packets, ..Traffic::default() };
        maps::count(accepted.subnet, traffic);
    }
    Ok(verdict)
}

/// What `xdp_decap` has checked, decapsulated and counted: nothing stands in front of the inner packet any more.
#[inline(always)]
fn accepted_early<I: Inner>(packet: &TcPacket, node: &LocalNode) -> Result<Accepted<I::Address>, Reason> {
    let inner = packet.header::<I>(L2)?;
    let inner_len = packet.len() - L2;
    let (tos, subnet) = (inner.tos(), node.range().subnet_of(inner.source()));
    Ok(Accepted { outer_len: 0, mixed: false, fragment: false, outer_tos: tos, inner_tos: tos, subnet, inner_len })
}

/// Lets in what [`decap`] has accepted, on the overlay device of VXLAN.
///
/// The kernel binds the tunnel's port on every address of the node and decapsulates whatever comes there: from
/// containers, on other interfaces, to other addresses of the underlay interface.
#[inline(always)]
pub(crate) fn admit(packet: &mut TcPacket) -> Result<Verdict, Reason> {
    if packet.take_accepted_mark() { Ok(Verdict::Pass) } else { Err(Reason::NotAccepted) }
}

/// Leaves the mark that [`admit`] asks for, where it is attached.
#[inline(always)]
fn mark_for_admit(packet: &mut TcPacket) {
    if let Encapsulation::Vxlan = maps::encapsulation() {
        packet.mark_accepted();
        trace::step(Step::Marked);
    }
}

/// Decapsulates on the XDP hook. `Ok` means that the frame goes on to the kernel, decapsulated or not.
#[inline(always)]
pub(crate) fn decap_early(packet: &mut XdpPacket) -> Result<(), Reason> {
    let Some(node) = maps::local_node() else { return Ok(()) };
    match tunnel::find(packet, node)? {
        Some(tunnel) if tunnel.inner_ipv6 => come_out::<Ipv6Hdr>(packet, node, &tunnel),
        Some(tunnel) => come_out::<Ipv4Hdr>(packet, node, &tunnel),
        None => Ok(()),
    }
}

/// Leaves of a frame what is in the tunnel, if that may come in. A function of its own as [`come_in`] is.
#[inline(never)]
fn come_out<I: Inner>(packet: &mut XdpPacket, node: &LocalNode, tunnel: &Tunnel) -> Result<(), Reason> {
    let accepted = accept::<I, XdpPacket>(packet, node, tunnel)?;
    if accepted.fragment || packet.mark_decapsulated().is_err() {
        return Ok(());
    }
    let tos = decapsulated_tos(accepted.inner_tos, accepted.outer_tos).map_err(|_| Reason::CeOnNotEct)?;
    packet.strip_front(usize::from(accepted.outer_len))?;
    trace::step(Step::Decapsulated);
    packet.store(0, &entering::<I>(node))?;
    update_tos::<I>(packet, accepted.inner_tos, tos)?;
    let decap_bytes = accepted.inner_len as u64;
    maps::count(accepted.subnet, Traffic { decap_packets: 1, decap_bytes, ..Traffic::default() });
    Ok(())
}

/// Lets a decapsulated packet come in on the overlay device, as the kernel's VXLAN device would.
#[inline(always)]
pub(crate) fn deliver<I: Inner>(packet: &mut TcPacket, node: &LocalNode) -> Result<Verdict, Reason> {
    mark_for_admit(packet);
    packet.store(0, &entering::<I>(node))?;
    Ok(packet.redirect_in(node.usual_device::<I::Address>().ifindex))
}

/// The Ethernet header of a packet that comes in on the overlay device.
#[inline(always)]
fn entering<I: Inner>(node: &LocalNode) -> Ethernet {
    let destination = node.usual_device::<I::Address>().mac;
    Ethernet { destination, source: [0; 6], ether_type: I::ETHER_TYPE }
}

/// Writes a changed TOS byte into the inner header, which now follows the Ethernet header.
#[inline(always)]
fn update_tos<I: Inner>(packet: &mut impl Packet, old: u8, new: u8) -> Result<(), Reason> {
    if new == old {
        return Ok(());
    }
    let mut inner = *packet.header::<I>(L2)?;
    inner.set_tos_and_ttl(new, inner.ttl());
    packet.store(L2, &inner)
}

/// The packet in the tunnel, if it may come in.
#[inline(always)]
fn accept<I: Inner, P: Packet>(packet: &P, node: &LocalNode, tunnel: &Tunnel) -> Result<Accepted<I::Address>, Reason> {
    if I::Address::IS_IPV4 {
        accept_here::<I, P>(packet, node, tunnel)
    } else {
        accept_aside::<I, P>(packet, node, tunnel)
    }
}

/// With a stack of its own: addresses of IPv6 are long. IPv4 does without the call.
#[inline(never)]
fn accept_aside<I: Inner, P: Packet>(
    packet: &P,
    node: &LocalNode,
    tunnel: &Tunnel,
) -> Result<Accepted<I::Address>, Reason> {
    accept_here::<I, P>(packet, node, tunnel)
}

#[inline(always)]
fn accept_here<I: Inner, P: Packet>(
    packet: &P,
    node: &LocalNode,
    tunnel: &Tunnel,
) -> Result<Accepted<I::Address>, Reason> {
    let Tunnel { sender, outer_len, end, fragment, tos, inner_ipv6 } = *tunnel;
    let (packet, offset) = (opaque(packet), L2 + usize::from(outer_len));
    let inner = packet.header_within::<I>(offset, end)?;
    if !inner.is_valid() {
        return Err(Reason::BadHeader);
    }
    let inner_len = inner_length(inner, end - offset, packet.is_gso(), fragment)?;
    check_addresses(inner, sender, node)?;
    trace::accepted(&tunnel.sender);
    Ok(Accepted {
        outer_len,
        mixed: sender.is_ipv4() == inner_ipv6,
        fragment,
        outer_tos: tos,
        inner_tos: inner.tos(),
        subnet: node.range().subnet_of(inner.source()),
        inner_len,
    })
}

/// The length in bytes of the inner packet, of which `available` bytes are here.
///
/// A super-packet must be one packet: datagrams that the kernel has merged for another reason (UDP GRO) show as
/// an inner length that is shorter than the whole. Of a fragmented outer packet only the beginning is here.
#[inline(always)]
fn inner_length<I: Inner>(inner: &I, available: usize, gso: bool, fragment: bool) -> Result<usize, Reason> {
    let length = inner.packet_len();
    let fits = match (gso, fragment) {
        (true, _) => length == available || inner.is_length_open(),
        (false, true) => true,
        (false, false) => length <= available,
    };
    if !fits || (!gso && length < inner.header_len()) {
        return Err(Reason::BadLength);
    }
    Ok(if gso { available } else { length })
}

/// The inner source must belong to the node that sent the packet, the inner destination to us.
#[inline(always)]
fn check_addresses<I: Inner>(inner: &I, sender: UnderlayAddress, node: &LocalNode) -> Result<(), Reason> {
    let range = node.range::<I::Address>();
    match maps::route(range.subnet_of(inner.source())) {
        Some(route) if route.next_hop() == sender => {}
        _ if maps::is_node(sender) => return Err(Reason::SourceNotTheirs),
        _ => return Err(Reason::UnknownNode),
    }
    if !range.in_subnet(inner.destination()) {
        return Err(Reason::DestinationNotOurs);
    }
    Ok(())
}
