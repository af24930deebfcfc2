//! Outer packet to container packet.
//!
//! No trust in the wire: a packet is accepted only from the underlay address of a node that holds a lease, with
//! an inner source inside that node's subnet and an inner destination inside ours.

use network_types::ip::{Ipv4Hdr, Ipv6Hdr};
use overlay_common::{
    Address as _, Encapsulation, Endpoint, IpHeader as _, LocalNode, Reason, Step, Traffic, UnderlayAddress,
    decapsulated_tos,
};

use crate::{
    Verdict, fast,
    inner::Inner,
    maps,
    packet::{Ethernet, L2, Packet, TcPacket, XdpPacket, opaque},
    trace,
    tunnel::{self, Tunnel},
};

/// An inner packet that may come in. Begins as [`Tunnel`] does, for the same reason.
#[repr(C)]
pub(crate) struct Accepted<I: Inner> {
    /// Whether the outer packet was of the other family.
    pub(crate) mixed: bool,
    /// The outer packet is the first of several fragments.
    fragment: bool,
    /// Bytes between the Ethernet header and the inner IP packet.
    pub(crate) outer_len: u8,
    /// The TOS byte of the inner packet: as it came, and as it goes on.
    old_tos: u8,
    pub(crate) tos: u8,
    /// The sender's subnet.
    subnet: I::Address,
    /// Length in bytes of the inner IP packet.
    pub(crate) inner_len: usize,
}

/// Decapsulates on the TC hook, or delivers what `xdp_decap` has decapsulated.
#[inline(always)]
pub(crate) fn decap(packet: &mut TcPacket) -> Result<Verdict, Reason> {
    let Some(node) = maps::local_node() else { return Ok(Verdict::Pass) };
    if packet.is_xdp_decapsulated() {
        return match packet.header::<Ethernet>(0)?.ether_type {
            Ipv6Hdr::ETHER_TYPE if maps::has_ipv6(node) => {
                come_in(packet, node, &accepted_early::<Ipv6Hdr>(packet, node)?)
            }
            _ => come_in(packet, node, &accepted_early::<Ipv4Hdr>(packet, node)?),
        };
    }
    if packet.is_in_vlan() {
        return Ok(Verdict::Pass);
    }
    match tunnel::find(packet, node)? {
        Some(tunnel) if tunnel.inner_ipv6 => {
            come_in(packet, node, &accept::<Ipv6Hdr, TcPacket>(packet, node, &tunnel)?)
        }
        Some(tunnel) => come_in(packet, node, &accept::<Ipv4Hdr, TcPacket>(packet, node, &tunnel)?),
        None => Ok(Verdict::Pass),
    }
}

/// What becomes of an inner packet that may come in.
#[inline(always)]
fn come_in<I: Inner>(packet: &mut TcPacket, node: &LocalNode, accepted: &Accepted<I>) -> Result<Verdict, Reason> {
    if accepted.fragment {
        trace::step(Step::Fragment);
        // The kernel reassembles it. What follows the first fragment needs no look: without it, it is nothing.
        mark_for_admit(packet);
        return Ok(Verdict::Pass);
    }
    deliver(packet, node, accepted, fast::arrival(packet, node, accepted))
}

/// Brings an inner packet to its container at `endpoint`, or to the kernel. A function of its own for each family, with a stack
/// of its own.
#[inline(never)]
fn deliver<I: Inner>(
    packet: &mut TcPacket,
    node: &LocalNode,
    accepted: &Accepted<I>,
    endpoint: Endpoint,
) -> Result<Verdict, Reason> {
    let early = accepted.outer_len == 0;
    let packets = packet.wire_packets();
    let fast = fast::enter(packet, node, accepted, endpoint)?;
    let verdict = match (fast, maps::encapsulation()) {
        (Some(verdict), _) => verdict,
        (None, _) if early => enter_overlay_device::<I>(packet, node)?,
        // The kernel's own VXLAN device decapsulates, on the way to the overlay device.
        (None, Encapsulation::Vxlan) => {
            mark_for_admit(packet);
            Verdict::Pass
        }
        (None, Encapsulation::Udp) => {
            packet.strip(usize::from(accepted.outer_len))?;
            trace::step(Step::Decapsulated);
            update_tos(packet, accepted)?;
            enter_overlay_device::<I>(packet, node)?
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
fn accepted_early<I: Inner>(packet: &TcPacket, node: &LocalNode) -> Result<Accepted<I>, Reason> {
    let inner = packet.header::<I>(L2)?;
    let inner_len = packet.len() - L2;
    let (tos, subnet) = (inner.tos(), node.range().subnet_of(inner.source()));
    Ok(Accepted { mixed: false, fragment: false, outer_len: 0, old_tos: tos, tos, subnet, inner_len })
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
        Some(tunnel) if tunnel.inner_ipv6 => {
            come_out(packet, node, &accept::<Ipv6Hdr, XdpPacket>(packet, node, &tunnel)?)
        }
        Some(tunnel) => come_out(packet, node, &accept::<Ipv4Hdr, XdpPacket>(packet, node, &tunnel)?),
        None => Ok(()),
    }
}

/// Leaves of a frame what is in the tunnel. A function of its own as [`deliver`] is.
#[inline(never)]
fn come_out<I: Inner>(packet: &mut XdpPacket, node: &LocalNode, accepted: &Accepted<I>) -> Result<(), Reason> {
    if accepted.fragment || packet.mark_decapsulated().is_err() {
        return Ok(());
    }
    packet.strip_front(usize::from(accepted.outer_len))?;
    trace::step(Step::Decapsulated);
    packet.store(0, &entering::<I>(node))?;
    update_tos(packet, accepted)?;
    let decap_bytes = accepted.inner_len as u64;
    maps::count(accepted.subnet, Traffic { decap_packets: 1, decap_bytes, ..Traffic::default() });
    Ok(())
}

/// Lets a decapsulated packet come in on the overlay device, as the kernel's VXLAN device would.
#[inline(always)]
pub(crate) fn enter_overlay_device<I: Inner>(packet: &mut TcPacket, node: &LocalNode) -> Result<Verdict, Reason> {
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
fn update_tos<I: Inner>(packet: &mut impl Packet, accepted: &Accepted<I>) -> Result<(), Reason> {
    if accepted.tos == accepted.old_tos {
        return Ok(());
    }
    let mut inner = *packet.header::<I>(L2)?;
    inner.set_tos_and_ttl(accepted.tos, inner.ttl());
    packet.store(L2, &inner)
}

/// The packet in the tunnel, if it may come in.
#[inline(always)]
fn accept<I: Inner, P: Packet>(packet: &P, node: &LocalNode, tunnel: &Tunnel) -> Result<Accepted<I>, Reason> {
    let accepted = if I::Address::IS_IPV4 {
        accept_here::<I, P>(packet, node, tunnel)
    } else {
        accept_aside::<I, P>(packet, node, tunnel)
    }?;
    trace::accepted(&tunnel.sender);
    Ok(accepted)
}

/// With a stack of its own: addresses of IPv6 are long. IPv4 does without the call.
#[inline(never)]
fn accept_aside<I: Inner, P: Packet>(packet: &P, node: &LocalNode, tunnel: &Tunnel) -> Result<Accepted<I>, Reason> {
    accept_here::<I, P>(packet, node, tunnel)
}

#[inline(always)]
fn accept_here<I: Inner, P: Packet>(packet: &P, node: &LocalNode, tunnel: &Tunnel) -> Result<Accepted<I>, Reason> {
    let &Tunnel { outer_len, end, fragment, tos, inner_ipv6, .. } = tunnel;
    let (packet, offset) = (opaque(packet), L2 + usize::from(outer_len));
    let inner = packet.header_within::<I>(offset, end)?;
    if !inner.is_valid() {
        return Err(Reason::BadHeader);
    }
    let inner_len = inner_length(inner, end - offset, packet.is_gso(), fragment)?;
    let subnet = check_addresses(inner, &tunnel.sender, node)?;
    Ok(Accepted {
        mixed: tunnel.sender.is_ipv4() == inner_ipv6,
        fragment,
        outer_len,
        old_tos: inner.tos(),
        // The kernel would drop it as well, and count it nowhere that says why.
        tos: decapsulated_tos(inner.tos(), tos).map_err(|_| Reason::CeOnNotEct)?,
        subnet,
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

/// The inner source must belong to the node that sent the packet, the inner destination to us. Returns the source's subnet.
#[inline(always)]
fn check_addresses<I: Inner>(inner: &I, sender: &UnderlayAddress, node: &LocalNode) -> Result<I::Address, Reason> {
    let range = node.range::<I::Address>();
    let subnet = range.subnet_of(inner.source());
    match maps::route(&subnet) {
        Some(route) if route.next_hop() == *sender => {}
        _ if maps::is_node(sender) => return Err(Reason::SourceNotTheirs),
        _ => return Err(Reason::UnknownNode),
    }
    if !range.in_subnet(inner.destination()) {
        return Err(Reason::DestinationNotOurs);
    }
    Ok(subnet)
}
