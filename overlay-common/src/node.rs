//! [`LocalNode`]: this node as the programs see it.

use crate::{Address, Range};

/// How inner packets travel between nodes; the cluster's network config chooses it.
#[repr(u8)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encapsulation {
    /// The inner IPv4 packet is the whole UDP payload (flannel's `udp` backend). IPv4 alone, inside and outside.
    Udp = 0,
    /// RFC 7348: VXLAN header, inner Ethernet header, inner packet.
    Vxlan = 1,
}

impl Encapsulation {
    /// Bytes that encap adds in front of an inner IP packet, over an underlay with addresses `A`.
    #[must_use]
    pub const fn overhead<A: Address>(self) -> u16 {
        let ip = if A::IS_IPV4 { 20 } else { 40 };
        match self {
            Self::Udp => ip + 8,
            Self::Vxlan => ip + 8 + 8 + 14,
        }
    }
}

/// This node's tunnel end over one family: where outer packets come from and go to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vtep<A: Address = [u8; 4]> {
    /// The node's underlay address: outer source of what it sends, outer destination of what it accepts.
    pub address: A::Ip,
    /// The MAC address of the overlay device.
    pub mac: [u8; 6],
    /// The UDP port on every node of the cluster.
    pub port: u16,
    /// The VXLAN network number, 24 bits; 0 for other encapsulations.
    pub vni: u32,
}

/// An overlay device of this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Device {
    /// Its interface index.
    pub ifindex: u32,
    /// Its MAC address.
    pub mac: [u8; 6],
}

/// What this node has of one family: inside, its range of the overlay; outside, its tunnel end. Zero where it has none.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Family<A> {
    overlay_ifindex: u32,
    address: A,
    range: Range<A>,
    mac: [u8; 6],
    mtu: [u8; 2],
}

const _: () = assert!(size_of::<Family<[u8; 4]>>() == 32 && align_of::<Family<[u8; 4]>>() == 4);
const _: () = assert!(size_of::<Family<[u8; 16]>>() == 92 && align_of::<Family<[u8; 16]>>() == 4);

impl<A> Family<A> {
    #[inline(always)]
    const fn device(&self) -> Device {
        Device { ifindex: self.overlay_ifindex, mac: self.mac }
    }
}

/// This node as the programs see it. The one value of `LOCAL_NODE`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LocalNode {
    /// Interface index of the underlay interface.
    pub underlay_ifindex: u32,
    pub(crate) v4: Family<[u8; 4]>,
    pub(crate) v6: Family<[u8; 16]>,
    port: [u8; 2],
    vni: [u8; 3],
    _pad: [u8; 3],
}

const _: () = assert!(size_of::<LocalNode>() == 136 && align_of::<LocalNode>() == 4);

impl LocalNode {
    /// A node on the underlay interface `underlay_ifindex`, which has neither family yet.
    #[must_use]
    pub fn new(underlay_ifindex: u32) -> Self {
        let (v4, v6) = (Family::default(), Family::default());
        Self { underlay_ifindex, v4, v6, port: [0; 2], vni: [0; 3], _pad: [0; 3] }
    }

    /// The same with a tunnel end over one family, whose overlay device is interface `overlay_ifindex`. Port and VNI are
    /// those of the cluster, so of both tunnel ends.
    #[must_use]
    pub fn over<A: Address>(mut self, vtep: &Vtep<A>, overlay_ifindex: u32) -> Self {
        let [_, vni @ ..] = vtep.vni.to_be_bytes();
        (self.port, self.vni) = (vtep.port.to_be_bytes(), vni);
        let family = A::family_mut(&mut self);
        (family.overlay_ifindex, family.address, family.mac) = (overlay_ifindex, A::of(vtep.address), vtep.mac);
        self
    }

    /// The same with an inner family: `range` of its addresses, and the `mtu` in bytes of the fast path.
    #[must_use]
    pub fn with<A: Address>(mut self, range: Range<A>, mtu: u16) -> Self {
        let family = A::family_mut(&mut self);
        (family.range, family.mtu) = (range, mtu.to_be_bytes());
        self
    }

    /// This node's tunnel end over one family; the address is zero when it has none.
    #[must_use]
    #[inline(always)]
    pub fn vtep<A: Address>(&self) -> Vtep<A> {
        let family = A::family(self);
        Vtep { address: family.address.ip(), mac: family.mac, port: self.port(), vni: self.vni() }
    }

    /// The address of that tunnel end, as it is on the wire.
    #[must_use]
    #[inline(always)]
    pub fn address<A: Address>(&self) -> A {
        A::family(self).address
    }

    /// The overlay device of the tunnels over one family, if there is one.
    #[must_use]
    #[inline(always)]
    pub fn device<A: Address>(&self) -> Option<Device> {
        let device = A::family(self).device();
        if device.ifindex == 0 { None } else { Some(device) }
    }

    /// The overlay device that inner packets of one family use as a rule: that of the same family outside, if there is one.
    #[must_use]
    #[inline(always)]
    pub fn usual_device<A: Address>(&self) -> Device {
        self.device::<A>().unwrap_or_else(|| A::Other::family(self).device())
    }

    /// Every overlay device.
    pub fn devices(&self) -> impl Iterator<Item = Device> {
        [self.device::<[u8; 4]>(), self.device::<[u8; 16]>()].into_iter().flatten()
    }

    /// The overlay's addresses of one family.
    #[must_use]
    #[inline(always)]
    pub fn range<A: Address>(&self) -> &Range<A> {
        &A::family(self).range
    }

    /// The largest inner packet in bytes of one family that the fast path carries: the overlay MTU, unless a bridge on the
    /// way to a container has a smaller one.
    #[must_use]
    #[inline(always)]
    pub fn mtu<A: Address>(&self) -> u16 {
        u16::from_be_bytes(A::family(self).mtu)
    }

    /// The UDP port on every node of the cluster; 0 as long as the agent has not told who this node is.
    #[must_use]
    #[inline(always)]
    pub const fn port(&self) -> u16 {
        u16::from_be_bytes(self.port)
    }

    /// The VXLAN network number; 0 for other encapsulations.
    #[must_use]
    #[inline(always)]
    pub const fn vni(&self) -> u32 {
        u32::from_be_bytes([0, self.vni[0], self.vni[1], self.vni[2]])
    }
}

#[cfg(feature = "user")]
// SAFETY: `repr(C)`, no implicit padding (136 bytes are the sum of the fields), every bit pattern is valid.
unsafe impl aya::Pod for LocalNode {}

#[cfg(test)]
mod tests {
    use core::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    const V4: Vtep =
        Vtep { address: Ipv4Addr::new(192, 168, 50, 1), mac: [2, 0, 0, 0, 0, 1], port: 8472, vni: 0xAB_CDEF };
    const V6: Vtep<[u8; 16]> = Vtep {
        address: Ipv6Addr::new(0xfd50, 0, 0, 0, 0, 0, 0, 1),
        mac: [2, 0, 0, 0, 0, 6],
        port: 8472,
        vni: 0xAB_CDEF,
    };

    #[test]
    fn the_tunnel_ends_survive_the_trip_through_the_map_value() {
        let node = LocalNode::new(3).over(&V4, 4).over(&V6, 6);
        assert_eq!((node.vtep(), node.vtep()), (V4, V6));
        assert_eq!((node.address(), node.address()), (V4.address.octets(), V6.address.octets()));
        assert_eq!(node.device::<[u8; 16]>(), Some(Device { ifindex: 6, mac: V6.mac }));
    }

    #[test]
    fn without_a_device_of_its_own_a_family_uses_the_other_ones() {
        let used = |node: LocalNode| (node.usual_device::<[u8; 4]>().ifindex, node.usual_device::<[u8; 16]>().ifindex);
        assert_eq!(used(LocalNode::new(3).over(&V4, 4).over(&V6, 6)), (4, 6));
        assert_eq!(used(LocalNode::new(3).over(&V4, 4)), (4, 4));
        assert_eq!(used(LocalNode::new(3).over(&V6, 6)), (6, 6));
    }

    #[test]
    fn each_family_has_its_own_range_and_mtu() {
        let v4 = Range::<[u8; 4]>::new((Ipv4Addr::new(10, 1, 0, 0), 16), (Ipv4Addr::new(10, 1, 15, 0), 24));
        let node = LocalNode::new(3).over(&V4, 4).with(v4, 1450);
        assert_eq!((node.range(), node.mtu::<[u8; 4]>()), (&v4, 1450));
        assert!(!node.range::<[u8; 16]>().is_on());
    }

    #[test]
    fn the_overhead_is_that_of_the_outer_family() {
        let overheads = |kind: Encapsulation| (kind.overhead::<[u8; 4]>(), kind.overhead::<[u8; 16]>());
        assert_eq!((overheads(Encapsulation::Udp).0, overheads(Encapsulation::Vxlan)), (28, (50, 70)));
    }
}
