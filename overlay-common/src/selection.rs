//! [`Selection`]: of which real packets `overlay trace --live` is told; [`Pace`]: how many those were.

use crate::Tuple;

/// The packets that are told of. A constant of the programs; in words, for which they have the registers, and no stack for
/// bytes.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Selection {
    source: u32,
    destination: u32,
    source_port: u16,
    destination_port: u16,
    protocol: u32,
    /// The most packets that one CPU tells of in a second; 0: all.
    pub rate: u32,
}

const _: () = assert!(size_of::<Selection>() == 20 && align_of::<Selection>() == 4);

impl Selection {
    /// All packets.
    pub const ALL: Self = Self::new(Tuple::new(0, ([0; 4], [0; 2]), ([0; 4], [0; 2])), 0);

    /// The packets of `flow`, in both directions; what is zero in it may be anything.
    #[must_use]
    pub const fn new(flow: Tuple, rate: u32) -> Self {
        let [(source, source_port), (destination, destination_port)] = flow.ends();
        Self { source, destination, source_port, destination_port, protocol: flow.protocol() as u32, rate }
    }

    /// Whether a packet like this is among them.
    #[must_use]
    #[inline(always)]
    pub fn has(&self, packet: &Tuple) -> bool {
        let [from, to] = packet.ends();
        let is_source = |end| is(end, (self.source, self.source_port));
        let is_destination = |end| is(end, (self.destination, self.destination_port));
        (self.protocol == 0 || self.protocol == packet.protocol().into())
            && ((is_source(from) && is_destination(to)) || (is_source(to) && is_destination(from)))
    }
}

/// Whether one end of a packet is the one that is wanted.
#[inline(always)]
const fn is(end: (u32, u16), wanted: (u32, u16)) -> bool {
    (wanted.0 == 0 || wanted.0 == end.0) && (wanted.1 == 0 || wanted.1 == end.1)
}

/// How many packets one CPU has told of. Value of `PACE`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pace {
    /// The second that `told` is of; as long as seconds are here (2^30 ns), since boot.
    second: u32,
    /// Packets told of in it.
    told: u32,
    /// Packets that were not told of, because there were more than the rate.
    pub suppressed: u64,
    /// Events that had no room: the reader was behind.
    pub lost: u64,
}

const _: () = assert!(size_of::<Pace>() == 24 && align_of::<Pace>() == 8);

impl Pace {
    /// Whether one more packet may be told of in this second; if not, it is counted.
    #[inline(always)]
    pub fn admits(&mut self, rate: u32, second: u32) -> bool {
        if self.second != second {
            (self.second, self.told) = (second, 0);
        }
        if rate != 0 && self.told >= rate {
            self.suppressed += 1;
            return false;
        }
        self.told += 1;
        true
    }
}

#[cfg(feature = "user")]
// SAFETY: `repr(C)`, no implicit padding (20 bytes are the sum of the fields), every bit pattern is valid.
unsafe impl aya::Pod for Selection {}

#[cfg(feature = "user")]
// SAFETY: `repr(C)`, no implicit padding (24 bytes are the sum of the fields), every bit pattern is valid.
unsafe impl aya::Pod for Pace {}

#[cfg(test)]
mod tests {
    use super::*;

    const NEAR: ([u8; 4], [u8; 2]) = ([10, 1, 2, 3], [0x9c, 0x40]);
    const FAR: ([u8; 4], [u8; 2]) = ([10, 1, 4, 5], [0, 80]);
    const ANY: ([u8; 4], [u8; 2]) = ([0; 4], [0; 2]);

    #[test]
    fn a_flow_is_told_of_in_both_directions_and_no_other() {
        let (there, back) = (Tuple::new(6, NEAR, FAR), Tuple::new(6, FAR, NEAR));
        let selects = |flow, packet| Selection::new(flow, 0).has(&packet);
        for flow in [
            there,
            back,
            Tuple::default(),
            Tuple::new(6, ANY, ANY),
            Tuple::new(0, NEAR, ANY),
            Tuple::new(0, ANY, ([0; 4], FAR.1)),
        ] {
            assert!(selects(flow, there) && selects(flow, back), "{flow:?}");
        }
        for flow in [
            Tuple::new(17, NEAR, FAR),
            Tuple::new(0, ([10, 1, 2, 4], [0; 2]), ANY),
            Tuple::new(0, (NEAR.0, FAR.1), ANY),
            Tuple::new(0, NEAR, (FAR.0, NEAR.1)),
        ] {
            assert!(!selects(flow, there) && !selects(flow, back), "{flow:?}");
        }
    }

    #[test]
    fn what_is_beyond_the_rate_of_a_second_is_counted() {
        let mut pace = Pace::default();
        let admitted = |pace: &mut Pace, second| (0..5).filter(|_| pace.admits(3, second)).count();
        assert_eq!((admitted(&mut pace, 1), pace.suppressed), (3, 2));
        assert_eq!((admitted(&mut pace, 2), pace.suppressed), (3, 4));
        assert_eq!(((0..5).filter(|_| pace.admits(0, 2)).count(), pace.suppressed), (5, 4));
    }
}
