//! [`Traffic`]: what was exchanged with one remote subnet.

/// Packets and bytes exchanged with one remote subnet, as one CPU counted them. Value of `TRAFFIC`.
///
/// Packets are counted as they are on the wire: a GSO super-packet counts once for each segment it stands for.
/// Bytes are those of the inner IP packets. Host byte order.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Packets encapsulated towards the subnet.
    pub encap_packets: u64,
    /// Bytes of the inner packets encapsulated towards the subnet.
    pub encap_bytes: u64,
    /// Packets accepted from the subnet.
    pub decap_packets: u64,
    /// Bytes of the inner packets accepted from the subnet.
    pub decap_bytes: u64,
    /// Of the packets encapsulated, those that took the fast path.
    pub encap_fast_packets: u64,
    /// Of the packets accepted, those that took the fast path.
    pub decap_fast_packets: u64,
}

const _: () = assert!(size_of::<Traffic>() == 48 && align_of::<Traffic>() == 8);

impl core::ops::AddAssign for Traffic {
    #[inline]
    fn add_assign(&mut self, other: Self) {
        self.encap_packets += other.encap_packets;
        self.encap_bytes += other.encap_bytes;
        self.decap_packets += other.decap_packets;
        self.decap_bytes += other.decap_bytes;
        self.encap_fast_packets += other.encap_fast_packets;
        self.decap_fast_packets += other.decap_fast_packets;
    }
}

impl core::iter::Sum for Traffic {
    fn sum<I: Iterator<Item = Self>>(counts: I) -> Self {
        counts.fold(Self::default(), |mut sum, count| {
            sum += count;
            sum
        })
    }
}

#[cfg(feature = "user")]
// SAFETY: `repr(C)` over `u64`s, no padding (asserted above), every bit pattern is valid.
unsafe impl aya::Pod for Traffic {}
