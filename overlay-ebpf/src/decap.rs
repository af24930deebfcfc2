//! Outer packet to container packet.
//!
//! No trust in the wire: a packet is accepted only from the underlay address of a node that holds a lease, with
//! an inner source inside that node's subnet and an inner destination inside ours.

use core::net::Ipv4Addr;

use network_types::{ip::Ipv4Hdr, udp::UdpHdr, vxlan::VxlanHdr};
use overlay_common::{
    Encapsulation, LocalNode, Reason, Step, Traffic, VxlanHeaders, decapsulated_tos, with_tos_and_ttl,
};

use crate::{
    Verdict,
    encap::{ETHER_IPV4, Ethernet, check_header},
    fast, maps,
    packet::{L2, Packet, TcPacket, XdpPacket},
    trace,
};

const PROTO_UDP: u8 = 17;
/// The VXLAN flags byte: "VNI present" and nothing that we would have to understand (RFC 7348, section 5).
const VXLAN_FLAGS: u8 = 0x08;
const MORE_FRAGMENTS: u8 = 0b001;

/// A tunnel packet that may come in.
struct Accepted {
    /// Bytes between the Ethernet header and the inner IP packet.
    outer_len: usize,
    /// The outer packet is the first of several fragments.
    fragment: bool,
    outer_tos: u8,
    inner_tos: u8,
    /// The sender's subnet.
    subnet: [u8; 4],
    /// Length in bytes of the inner IP packet.
    inner_len: usize,
}

/// Decapsulates on the TC hook, or delivers what `xdp_decap` has decapsulated.
#[inline(always)]
pub(crate) fn decap(packet: &mut TcPacket) -> Result<Verdict, Reason> {
    let Some(node) = maps::local_node() else { return Ok(Verdict::Pass) };
    let early = packet.is_xdp_decapsulated();
    if !early && packet.is_in_vlan() {
        return Ok(Verdict::Pass);
    }
    let accepted = if early { Some(accepted_early(packet, node)?) } else { accept(packet, node)? };
    let Some(accepted) = accepted else { return Ok(Verdict::Pass) };
    // The kernel would drop it as well, and count it nowhere that says why.
    let tos = decapsulated_tos(accepted.inner_tos, accepted.outer_tos).map_err(|_| Reason::CeOnNotEct)?;
    if accepted.fragment {
        trace::step(Step::Fragment);
        // The kernel reassembles it. What follows the first fragment needs no look: without it, it is nothing.
        mark_for_admit(packet);
        return Ok(Verdict::Pass);
    }
    let packets = packet.wire_packets();
    let fast = fast::enter(packet, node, accepted.outer_len, accepted.inner_len, tos)?;
    let verdict = match (fast, maps::encapsulation()) {
        (Some(verdict), _) => verdict,
        (None, _) if early => deliver(packet, node)?,
        // The kernel's own VXLAN device decapsulates, on the way to the overlay device.
        (None, Encapsulation::Vxlan) => {
            mark_for_admit(packet);
            Verdict::Pass
        }
        (None, Encapsulation::Udp) => {
            packet.strip(accepted.outer_len)?;
            trace::step(Step::Decapsulated);
            update_tos(packet, accepted.inner_tos, tos)?;
            deliver(packet, node)?
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
fn accepted_early(packet: &TcPacket, node: &LocalNode) -> Result<Accepted, Reason> {
    let inner = packet.header::<Ipv4Hdr>(L2)?;
    let inner_len = packet.len() - L2;
    let (tos, subnet) = (inner.tos, node.subnet_of(inner.src_addr()));
    Ok(Accepted { outer_len: 0, fragment: false, outer_tos: tos, inner_tos: tos, subnet, inner_len })
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
    let Some(accepted) = accept(packet, node)? else { return Ok(()) };
    if accepted.fragment || packet.mark_decapsulated().is_err() {
        return Ok(());
    }
    let tos = decapsulated_tos(accepted.inner_tos, accepted.outer_tos).map_err(|_| Reason::CeOnNotEct)?;
    packet.strip_front(accepted.outer_len)?;
    trace::step(Step::Decapsulated);
    let frame = Ethernet { destination: node.vtep().mac, source: [0; 6], ether_type: ETHER_IPV4 };
    packet.store(0, &frame)?;
    update_tos(packet, accepted.inner_tos, tos)?;
    let decap_bytes = accepted.inner_len as u64;
    maps::count(accepted.subnet, Traffic { decap_packets: 1, decap_bytes, ..Traffic::default() });
    Ok(())
}

/// Lets a decapsulated packet come in on the overlay device, as the kernel's VXLAN device would.
#[inline(always)]
pub(crate) fn deliver(packet: &mut TcPacket, node: &LocalNode) -> Result<Verdict, Reason> {
    let vtep = node.vtep();
    mark_for_admit(packet);
    packet.store(0, &Ethernet { destination: vtep.mac, source: [0; 6], ether_type: ETHER_IPV4 })?;
    Ok(packet.redirect_in(node.overlay_ifindex))
}

/// Writes a changed TOS byte into the inner header, which now follows the Ethernet header.
#[inline(always)]
fn update_tos<P: Packet>(packet: &mut P, old: u8, new: u8) -> Result<(), Reason> {
    if new == old {
        return Ok(());
    }
    let inner = *packet.header::<Ipv4Hdr>(L2)?;
    packet.store(L2, &with_tos_and_ttl(inner, new, inner.ttl))
}

/// Whether the packet is a tunnel packet for us (`None`: it is not), and whether it may come in.
#[inline(always)]
fn accept<P: Packet>(packet: &P, node: &LocalNode) -> Result<Option<Accepted>, Reason> {
    let vtep = node.vtep();
    if vtep.port == 0 {
        // The agent has not told us who we are: every address would pass for one of the network.
        return Ok(None);
    }
    let Ok(eth) = packet.header::<Ethernet>(0) else { return Ok(None) };
    if eth.ether_type != ETHER_IPV4 {
        return Ok(None);
    }
    let Ok(outer) = packet.header::<Ipv4Hdr>(L2) else { return Ok(None) };
    if node.in_network(outer.src_addr()) {
        return bare(outer.src_addr(), node);
    }
    let outer_ihl = outer.ihl() as usize;
    let is_tunnel = check_header(outer).is_ok()
        && outer.proto == PROTO_UDP
        && outer.dst_addr() == vtep.address
        && outer.frag_offset() == 0;
    if !is_tunnel {
        return Ok(None);
    }
    let udp = packet.header::<UdpHdr>(L2 + outer_ihl)?;
    if udp.dst_port() != vtep.port {
        return Ok(None);
    }
    let fragment = outer.frag_flags() & MORE_FRAGMENTS != 0;
    let end = if packet.is_gso() { packet.len() } else { L2 + outer_end(outer, udp, fragment, packet.len() - L2)? };
    let outer_len = outer_ihl + UdpHdr::LEN + inner_offset(packet, L2 + outer_ihl + UdpHdr::LEN, end, node)?;
    let inner = packet.header_within::<Ipv4Hdr>(L2 + outer_len, end)?;
    check_header(inner)?;
    let inner_len = inner_length(inner, end - (L2 + outer_len), packet.is_gso(), fragment)?;
    check_addresses(inner, outer.src_addr(), node)?;
    trace::tell(Step::Accepted, u32::from_ne_bytes(outer.src_addr), [0; 6]);
    Ok(Some(Accepted {
        outer_len,
        fragment,
        outer_tos: outer.tos,
        inner_tos: inner.tos,
        subnet: node.subnet_of(inner.src_addr()),
        inner_len,
    }))
}

/// A packet from an overlay address that came without a tunnel: only from nodes on our own link (`DirectRouting`).
#[inline(always)]
fn bare(source: Ipv4Addr, node: &LocalNode) -> Result<Option<Accepted>, Reason> {
    match maps::route(node.subnet_of(source)) {
        Some(route) if route.is_direct() => Ok(None),
        _ => Err(Reason::NotEncapsulated),
    }
}

/// Where the outer packet ends by its own word, which must agree with the UDP header's and lie within the
/// `available` bytes; in bytes from the outer IP header.
///
/// The kernel cuts off what stands behind it. So must we: otherwise the first of several fragments could show us
/// one inner header there, and bring another in the second fragment.
#[inline(always)]
fn outer_end(outer: &Ipv4Hdr, udp: &UdpHdr, fragment: bool, available: usize) -> Result<usize, Reason> {
    let (ip_len, headers) = (outer.tot_len() as usize, outer.ihl() as usize + UdpHdr::LEN);
    // A fragment's UDP length is that of the whole datagram.
    let agree = fragment || udp.len() as usize + outer.ihl() as usize == ip_len;
    if ip_len < headers || ip_len > available || !agree {
        return Err(Reason::BadLength);
    }
    Ok(ip_len)
}

/// Checks what stands between the UDP header and the inner IP packet, and returns its length in bytes. The outer
/// packet ends at `end`.
#[inline(always)]
fn inner_offset<P: Packet>(packet: &P, payload: usize, end: usize, node: &LocalNode) -> Result<usize, Reason> {
    if let Encapsulation::Udp = maps::encapsulation() {
        return Ok(0);
    }
    let vxlan = packet.header_within::<VxlanHdr>(payload, end)?;
    if vxlan.flags != VXLAN_FLAGS {
        return Err(Reason::BadVxlanFlags);
    }
    if vxlan.vni() != node.vtep().vni {
        return Err(Reason::WrongVni);
    }
    let frame = packet.header_within::<Ethernet>(payload + VxlanHdr::LEN, end)?;
    if frame.ether_type != ETHER_IPV4 {
        return Err(Reason::InnerNotIpv4);
    }
    if frame.destination != node.vtep().mac {
        return Err(Reason::WrongVtepMac);
    }
    Ok(VxlanHeaders::INNER_OFFSET)
}

/// The length in bytes of the inner packet, of which `available` bytes are here.
///
/// A super-packet must be one packet: datagrams that the kernel has merged for another reason (UDP GRO) show as
/// an inner length that is shorter than the whole. Of a fragmented outer packet only the beginning is here.
#[inline(always)]
fn inner_length(inner: &Ipv4Hdr, available: usize, gso: bool, fragment: bool) -> Result<usize, Reason> {
    let length = inner.tot_len() as usize;
    let fits = match (gso, fragment) {
        (true, _) => length == available || length == 0,
        (false, true) => true,
        (false, false) => length <= available,
    };
    if !fits || (!gso && length < inner.ihl() as usize) {
        return Err(Reason::BadLength);
    }
    Ok(if gso { available } else { length })
}

/// The inner source must belong to the node that sent the packet, the inner destination to us.
#[inline(always)]
fn check_addresses(inner: &Ipv4Hdr, sender: Ipv4Addr, node: &LocalNode) -> Result<(), Reason> {
    match maps::route(node.subnet_of(inner.src_addr())) {
        Some(route) if route.next_hop() == sender => {}
        _ if maps::is_node(sender) => return Err(Reason::SourceNotTheirs),
        _ => return Err(Reason::UnknownNode),
    }
    if !node.in_subnet(inner.dst_addr()) {
        return Err(Reason::DestinationNotOurs);
    }
    Ok(())
}
