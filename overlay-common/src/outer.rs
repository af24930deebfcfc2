//! The outer headers as values: built whole, then stored in front of the packet in one go.

use network_types::{
    eth::EthHdr,
    ip::{Ipv4Hdr, Ipv6Hdr},
    udp::UdpHdr,
    vxlan::VxlanHdr,
};

use crate::{Address, IpHeader, Route, Vtep};

/// What the outer headers take from the packet that they will carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlowLabel {
    /// Hash over the inner flow; its packets keep one outer source port, so that they stay in order, and
    /// different flows spread over receive queues and equal-cost paths (RFC 7348, section 5).
    pub hash: u32,
    /// The inner TOS byte: the outer header copies DSCP and ECN (RFC 6040, normal mode).
    pub tos: u8,
    /// IPv4 identification of the outer packet. DF is off, so routers may fragment and the value must vary.
    pub id: u16,
}

impl FlowLabel {
    /// The outer UDP source port, in 49152..=65535.
    #[must_use]
    #[inline(always)]
    pub const fn source_port(&self) -> u16 {
        let folded = (self.hash ^ (self.hash >> 16)) as u16;
        0xc000 | (folded & 0x3fff)
    }

    /// The flow label of an outer IPv6 header, 20 bits: routers that do not look for ports spread flows by it (RFC 6438).
    #[must_use]
    #[inline(always)]
    pub const fn ipv6_label(&self) -> u32 {
        self.hash >> 12
    }
}

/// Outer IP header `O` and UDP. The whole of the `udp` encapsulation: the inner IP packet follows at once.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct UdpHeaders<O> {
    ip: O,
    udp: UdpHdr,
}

const _: () = assert!(size_of::<UdpHeaders<Ipv4Hdr>>() == 28 && align_of::<UdpHeaders<Ipv4Hdr>>() == 1);
const _: () = assert!(size_of::<UdpHeaders<Ipv6Hdr>>() == 48 && align_of::<UdpHeaders<Ipv6Hdr>>() == 1);

impl<O: IpHeader> UdpHeaders<O> {
    /// Length in bytes.
    pub const LEN: usize = size_of::<Self>();

    /// Headers from `local` to `route` for an inner packet of `inner_len` bytes.
    ///
    /// The UDP checksum is 0, "none": the inner packet carries its own (RFC 768; RFC 7348 asks the same). So it is over
    /// IPv6, where the receiver must be told to expect it (RFC 6935, RFC 6936).
    #[must_use]
    #[inline(always)]
    pub fn new(local: &Vtep<O::Address>, route: &Route, inner_len: u16, flow: FlowLabel) -> Self {
        let udp_len = inner_len.wrapping_add(UdpHdr::LEN as u16);
        let next_hop = O::Address::from_underlay(route.next_hop());
        Self {
            ip: O::outer(O::Address::of(local.address), next_hop, udp_len, flow),
            udp: UdpHdr {
                src: flow.source_port().to_be_bytes(),
                dst: local.port.to_be_bytes(),
                len: udp_len.to_be_bytes(),
                check: [0; 2],
            },
        }
    }
}

/// Outer headers of the VXLAN encapsulation over outer IP header `O`, inner Ethernet header included: the inner IP packet
/// follows.
#[repr(C, packed)]
#[derive(Debug, Clone, Copy)]
pub struct VxlanHeaders<O> {
    outer: UdpHeaders<O>,
    vxlan: VxlanHdr,
    inner_eth: EthHdr,
}

const _: () = assert!(size_of::<VxlanHeaders<Ipv4Hdr>>() == 50 && size_of::<VxlanHeaders<Ipv6Hdr>>() == 70);

/// Length in bytes of what stands between the UDP header and the inner IP packet of VXLAN.
pub const VXLAN_INNER_OFFSET: usize = VxlanHdr::LEN + EthHdr::LEN;

impl<O: IpHeader> VxlanHeaders<O> {
    /// Length in bytes.
    pub const LEN: usize = size_of::<Self>();

    /// Headers from `local` to `route` for an inner packet of `inner_len` bytes with the IP header `I`.
    #[must_use]
    #[inline(always)]
    pub fn new<I: IpHeader>(local: &Vtep<O::Address>, route: &Route, inner_len: u16, flow: FlowLabel) -> Self {
        let frame_len = inner_len.wrapping_add(VXLAN_INNER_OFFSET as u16);
        Self {
            outer: UdpHeaders::new(local, route, frame_len, flow),
            vxlan: VxlanHdr::new(local.vni),
            inner_eth: EthHdr {
                dst_addr: route.vtep_mac(),
                src_addr: local.mac,
                ether_type: u16::from_ne_bytes(I::ETHER_TYPE),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::bytes::{bytes, word};

    /// What is common to headers over either family: a tunnel, a flow in it and the length of an inner packet.
    #[derive(Debug)]
    struct Given<A: Address> {
        local: Vtep<A>,
        route: Route,
        flow: FlowLabel,
        inner_len: u16,
    }

    fn given_over<A: Address + Arbitrary>() -> impl Strategy<Value = Given<A>> {
        let ends = (any::<(A, [u8; 6], u16)>(), 0..1_u32 << 24, any::<(A, [u8; 6])>());
        (ends, any::<(u32, u8, u16)>(), 20..=65_000_u16).prop_map(|(ends, (hash, tos, id), inner_len)| {
            let ((local, mac, port), vni, (next_hop, vtep_mac)) = ends;
            let local = Vtep { address: local.ip(), mac, port, vni };
            Given { local, route: Route::new(next_hop, vtep_mac), flow: FlowLabel { hash, tos, id }, inner_len }
        })
    }

    /// The headers of `udp`: those in front of UDP are `ip` bytes.
    fn udp_is_right<O: IpHeader>(given: &Given<O::Address>, ip: usize) -> Result<(), TestCaseError> {
        let Given { local, route, flow, inner_len } = given;
        let headers = bytes(&UdpHeaders::<O>::new(local, route, *inner_len, *flow));
        prop_assert_eq!(headers.len(), ip + 8);
        prop_assert!(word(&headers, ip) >= 49_152);
        prop_assert_eq!((word(&headers, ip + 2), word(&headers, ip + 4)), (local.port, 8 + inner_len));
        prop_assert_eq!(word(&headers, ip + 6), 0);
        Ok(())
    }

    fn vxlan_is_right<O: IpHeader, I: IpHeader>(given: &Given<O::Address>) -> Result<(), TestCaseError> {
        let Given { local, route, flow, inner_len } = given;
        let headers = bytes(&VxlanHeaders::<O>::new::<I>(local, route, *inner_len, *flow));
        let (outer, inner) = headers.split_at(headers.len() - 22);
        prop_assert_eq!(outer, &bytes(&UdpHeaders::<O>::new(local, route, inner_len + 22, *flow))[..]);
        let vni = local.vni.to_be_bytes();
        prop_assert_eq!(&inner[..8], &[0x08, 0, 0, 0, vni[1], vni[2], vni[3], 0][..]);
        prop_assert_eq!((&inner[8..14], &inner[14..20]), (&route.vtep_mac()[..], &local.mac[..]));
        prop_assert_eq!(&inner[20..], &I::ETHER_TYPE[..]);
        Ok(())
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2000) })]

        #[test]
        fn udp_headers_announce_all_that_follows(v4 in given_over::<[u8; 4]>(), v6 in given_over::<[u8; 16]>()) {
            udp_is_right::<Ipv4Hdr>(&v4, 20)?;
            udp_is_right::<Ipv6Hdr>(&v6, 40)?;
        }

        #[test]
        fn vxlan_headers_announce_all_that_follows_and_name_both_vteps(
            v4 in given_over::<[u8; 4]>(), v6 in given_over::<[u8; 16]>(),
        ) {
            vxlan_is_right::<Ipv4Hdr, Ipv4Hdr>(&v4)?;
            vxlan_is_right::<Ipv4Hdr, Ipv6Hdr>(&v4)?;
            vxlan_is_right::<Ipv6Hdr, Ipv4Hdr>(&v6)?;
            vxlan_is_right::<Ipv6Hdr, Ipv6Hdr>(&v6)?;
        }
    }

    #[test]
    fn source_ports_and_ipv6_labels_differ_between_flows() {
        let flow = |number: u32| FlowLabel { hash: number.wrapping_mul(0x9e37_79b9), tos: 0, id: 0 };
        let ports: std::collections::BTreeSet<u16> =
            (0..4096).map(|number| flow(number).source_port()).inspect(|port| assert!(*port >= 49152)).collect();
        assert!(ports.len() > 3000, "only {} ports for 4096 flows", ports.len());
        let labels: std::collections::BTreeSet<u32> =
            (0..4096).map(|number| flow(number).ipv6_label()).inspect(|label| assert!(*label < 1 << 20)).collect();
        assert!(labels.len() > 4000, "only {} labels for 4096 flows", labels.len());
    }
}
