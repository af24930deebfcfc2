//! [`LocalNode`]: this node as the programs see it.

use core::net::Ipv4Addr;

/// How inner packets travel between nodes; the cluster's network config chooses it.
#[repr(u8)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encapsulation {
    /// The inner IPv4 packet is the whole UDP payload (flannel's `udp` backend).
    Udp = 0,
    /// RFC 7348: VXLAN header, inner Ethernet header, inner packet.
    Vxlan = 1,
}

impl Encapsulation {
    /// Bytes that encap adds in front of an inner IP packet over an IPv4 underlay.
    #[must_use]
    pub const fn overhead(self) -> u16 {
        match self {
            Self::Udp => 28,
            Self::Vxlan => 50,
        }
    }
}

/// This node's tunnel end: where outer packets come from and go to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vtep {
    /// The node's underlay address: outer source of what it sends, outer destination of what it accepts.
    pub address: Ipv4Addr,
    /// The MAC address of the overlay device.
    pub mac: [u8; 6],
    /// The UDP port on every node of the cluster.
    pub port: u16,
    /// The VXLAN network number, 24 bits; 0 for other encapsulations.
    pub vni: u32,
}

/// This node as the programs see it. The one value of `LOCAL_NODE`.
///
/// All subnets of a network have one length, so one mask serves for our own subnet and for every remote one.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LocalNode {
    /// Interface index of the underlay interface.
    pub underlay_ifindex: u32,
    /// Interface index of the overlay device.
    pub overlay_ifindex: u32,
    address: [u8; 4],
    network: [u8; 4],
    network_mask: [u8; 4],
    subnet: [u8; 4],
    subnet_mask: [u8; 4],
    mac: [u8; 6],
    port: [u8; 2],
    vni: [u8; 3],
    _pad: [u8; 1],
    mtu: [u8; 2],
    _pad2: [u8; 2],
}

const _: () = assert!(size_of::<LocalNode>() == 44 && align_of::<LocalNode>() == 4);

impl LocalNode {
    /// Describes a node whose VTEP is `vtep` and that owns `subnet` of `network`, both given as network address
    /// and prefix length in bits. `overlay` is the index of the overlay device and the MTU, in bytes, of the fast path.
    #[must_use]
    pub const fn new(
        vtep: &Vtep,
        network: (Ipv4Addr, u8),
        subnet: (Ipv4Addr, u8),
        underlay_ifindex: u32,
        overlay: (u32, u16),
    ) -> Self {
        let [_, vni @ ..] = vtep.vni.to_be_bytes();
        Self {
            underlay_ifindex,
            overlay_ifindex: overlay.0,
            address: vtep.address.octets(),
            network: network.0.octets(),
            network_mask: mask(network.1),
            subnet: subnet.0.octets(),
            subnet_mask: mask(subnet.1),
            mac: vtep.mac,
            port: vtep.port.to_be_bytes(),
            vni,
            _pad: [0],
            mtu: overlay.1.to_be_bytes(),
            _pad2: [0; 2],
        }
    }

    /// This node's tunnel end.
    #[must_use]
    #[inline(always)]
    pub const fn vtep(&self) -> Vtep {
        let [a, b, c, d] = self.address;
        Vtep {
            address: Ipv4Addr::new(a, b, c, d),
            mac: self.mac,
            port: u16::from_be_bytes(self.port),
            vni: u32::from_be_bytes([0, self.vni[0], self.vni[1], self.vni[2]]),
        }
    }

    /// The largest packet in bytes that the fast path carries: the overlay MTU, unless a bridge on the way to a container
    /// has a smaller one.
    #[must_use]
    #[inline(always)]
    pub const fn mtu(&self) -> u16 {
        u16::from_be_bytes(self.mtu)
    }

    /// The overlay network: its network address and its prefix length in bits.
    #[must_use]
    pub const fn network(&self) -> (Ipv4Addr, u8) {
        prefix(self.network, self.network_mask)
    }

    /// The subnet that this node owns: its network address and its prefix length in bits.
    #[must_use]
    pub const fn subnet(&self) -> (Ipv4Addr, u8) {
        prefix(self.subnet, self.subnet_mask)
    }

    /// Whether `address` lies in the overlay network.
    #[must_use]
    #[inline(always)]
    pub fn in_network(&self, address: Ipv4Addr) -> bool {
        masked(address, self.network_mask) == self.network
    }

    /// Whether `address` lies in the subnet that this node owns.
    #[must_use]
    #[inline(always)]
    pub fn in_subnet(&self, address: Ipv4Addr) -> bool {
        masked(address, self.subnet_mask) == self.subnet
    }

    /// Whether the node claims its subnet; it does not after another node has taken it.
    #[must_use]
    #[inline(always)]
    pub fn claims_subnet(&self) -> bool {
        self.subnet != [0; 4]
    }

    /// The subnet that `address` lies in, as a key of `ROUTES`.
    #[must_use]
    #[inline(always)]
    pub fn subnet_of(&self, address: Ipv4Addr) -> [u8; 4] {
        masked(address, self.subnet_mask)
    }
}

const fn mask(length: u8) -> [u8; 4] {
    match u32::MAX.checked_shl(32 - length as u32) {
        Some(mask) => mask.to_be_bytes(),
        None => [0; 4],
    }
}

const fn prefix([a, b, c, d]: [u8; 4], mask: [u8; 4]) -> (Ipv4Addr, u8) {
    (Ipv4Addr::new(a, b, c, d), u32::from_be_bytes(mask).count_ones() as u8)
}

#[inline(always)]
fn masked(address: Ipv4Addr, mask: [u8; 4]) -> [u8; 4] {
    (u32::from_ne_bytes(address.octets()) & u32::from_ne_bytes(mask)).to_ne_bytes()
}

#[cfg(feature = "user")]
// SAFETY: `repr(C)`, no implicit padding (44 bytes are the sum of the fields), every bit pattern is valid.
unsafe impl aya::Pod for LocalNode {}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(network_len: u8, subnet_len: u8) -> LocalNode {
        let vtep =
            Vtep { address: Ipv4Addr::new(192, 168, 50, 1), mac: [2, 0, 0, 0, 0, 1], port: 8472, vni: 0xAB_CDEF };
        LocalNode::new(
            &vtep,
            (Ipv4Addr::new(10, 1, 0, 0), network_len),
            (Ipv4Addr::new(10, 1, 15, 0), subnet_len),
            3,
            (4, 1450),
        )
    }

    #[test]
    fn the_vtep_survives_the_trip_through_the_map_value() {
        let vtep = node(16, 24).vtep();
        assert_eq!((vtep.vni, vtep.port), (0xAB_CDEF, 8472));
        assert_eq!(vtep.address, Ipv4Addr::new(192, 168, 50, 1));
        assert_eq!(node(16, 24).network(), (Ipv4Addr::new(10, 1, 0, 0), 16));
        assert_eq!(node(16, 24).subnet(), (Ipv4Addr::new(10, 1, 15, 0), 24));
    }

    #[test]
    fn membership_follows_the_prefix_lengths() {
        let node = node(16, 24);
        assert!(node.in_network(Ipv4Addr::new(10, 1, 255, 255)));
        assert!(!node.in_network(Ipv4Addr::new(10, 2, 0, 0)));
        assert!(node.in_subnet(Ipv4Addr::new(10, 1, 15, 255)));
        assert!(!node.in_subnet(Ipv4Addr::new(10, 1, 16, 0)));
        assert_eq!(node.subnet_of(Ipv4Addr::new(10, 1, 77, 9)), [10, 1, 77, 0]);
    }

    #[test]
    fn a_subnet_that_begins_at_0_is_none() {
        assert!(node(16, 24).claims_subnet());
        let vtep = node(16, 24).vtep();
        let network = (Ipv4Addr::new(10, 1, 0, 0), 16);
        assert!(!LocalNode::new(&vtep, network, (Ipv4Addr::UNSPECIFIED, 24), 3, (4, 1450)).claims_subnet());
    }

    #[test]
    fn masks_cover_the_whole_range_of_lengths() {
        assert_eq!(mask(0), [0; 4]);
        assert_eq!(mask(32), [255; 4]);
        assert_eq!(mask(22), [255, 255, 252, 0]);
    }
}
