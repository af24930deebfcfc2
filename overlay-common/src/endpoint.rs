//! [`Endpoint`]: who may send from an address of our subnet.

/// The interface that an address of our subnet belongs to. Value of `ENDPOINTS`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Endpoint {
    ifindex: u32,
    mac: [u8; 6],
    _pad: [u8; 2],
}

const _: () = assert!(size_of::<Endpoint>() == 12 && align_of::<Endpoint>() == 4);

impl Endpoint {
    /// An address of the node itself: no container may send from it.
    pub const NODE: Self = Self::new(0, [0; 6]);

    /// An address of the container behind the veth whose host side is interface `ifindex`; `mac` is the MAC address
    /// of the container's side.
    #[must_use]
    pub const fn new(ifindex: u32, mac: [u8; 6]) -> Self {
        Self { ifindex, mac, _pad: [0; 2] }
    }

    /// The interface, on the node's side, that packets from the address come in by; 0, which no interface has, when
    /// the address is the node's own.
    #[must_use]
    #[inline(always)]
    pub const fn ifindex(&self) -> u32 {
        self.ifindex
    }

    /// The MAC address inside the container; zero when it is not known yet or the address is the node's own.
    #[must_use]
    pub const fn mac(&self) -> [u8; 6] {
        self.mac
    }
}

#[cfg(feature = "user")]
// SAFETY: `repr(C)`, no implicit padding (12 bytes are the sum of the fields), every bit pattern is valid.
unsafe impl aya::Pod for Endpoint {}
