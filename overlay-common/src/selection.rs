//! [`Selection`]: of which real packets `overlay trace --live` is told; [`Pace`]: how many those were.

use crate::Tuple;

/// The packets that are told of. A constant of the programs; in words, which they compare as they are.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Selection {
    source: [u64; 2],
    destination: [u64; 2],
    source_port: u16,
    destination_port: u16,
    protocol: u32,
    /// The most packets that one CPU tells of in a second; 0: all.
    pub rate: u32,
    _pad: u32,
}

const _: () = assert!(size_of::<Selection>() == 48 && align_of::<Selection>() == 8);

impl Selection {
    /// All packets.
    pub const ALL: Self = Self::new(Tuple::new(0, ([0; 16], [0; 2]), ([0; 16], [0; 2])), 0);

    /// The packets of `flow`, in both directions; what is zero in it may be anything.
    #[must_use]
    pub const fn new(flow: Tuple, rate: u32) -> Self {
        let [(source, source_port), (destination, destination_port)] = flow.ends();
        let protocol = flow.protocol_number() as u32;
        Self { source, destination, source_port, destination_port, protocol, rate, _pad: 0 }
    }

    /// Whether a packet like this is among them.
    #[must_use]
    #[inline(always)]
    pub fn has(&self, packet: &Tuple) -> bool {
        let [from, to] = packet.ends();
        let is_source = |end| is(end, (self.source, self.source_port));
        let is_destination = |end| is(end, (self.destination, self.destination_port));
        (self.protocol == 0 || self.protocol == packet.protocol_number().into())
            && ((is_source(from) && is_destination(to)) || (is_source(to) && is_destination(from)))
    }
}

/// Whether one end of a packet is the one that is wanted.
#[inline(always)]
const fn is(([high, low], port): ([u64; 2], u16), wanted: ([u64; 2], u16)) -> bool {
    let ([wanted_high, wanted_low], wanted_port) = wanted;
    let is_any = wanted_high | wanted_low == 0;
    (is_any || (wanted_high == high && wanted_low == low)) && (wanted_port == 0 || wanted_port == port)
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
// SAFETY: `repr(C)`, no implicit padding (48 bytes are the sum of the fields), every bit pattern is valid.
unsafe impl aya::Pod for Selection {}

#[cfg(feature = "user")]
// SAFETY: `repr(C)`, no implicit padding (24 bytes are the sum of the fields), every bit pattern is valid.
unsafe impl aya::Pod for Pace {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Address;

    type End = ([u8; 16], [u8; 2]);

    const ANY: End = ([0; 16], [0; 2]);

    /// A flow between these addresses is selected by what it has, and not by what it has not; `other` is nobody's.
    fn is_told_of_alone<A: Address>([near, far, other]: [A; 3]) {
        let (near, far): (End, End) = ((near.mapped(), [0x9c, 0x40]), (far.mapped(), [0, 80]));
        let (there, back) = (Tuple::new(6, near, far), Tuple::new(6, far, near));
        let selects = |flow, packet| Selection::new(flow, 0).has(&packet);
        for flow in [
            there,
            back,
            Tuple::default(),
            Tuple::new(6, ANY, ANY),
            Tuple::new(0, near, ANY),
            Tuple::new(0, ANY, (ANY.0, far.1)),
        ] {
            assert!(selects(flow, there) && selects(flow, back), "{flow:?}");
        }
        for flow in [
            Tuple::new(17, near, far),
            Tuple::new(0, (other.mapped(), [0; 2]), ANY),
            Tuple::new(0, (near.0, far.1), ANY),
            Tuple::new(0, near, (far.0, near.1)),
        ] {
            assert!(!selects(flow, there) && !selects(flow, back), "{flow:?}");
        }
    }

    #[test]
    fn a_flow_of_either_family_is_told_of_in_both_directions_and_no_other() {
        is_told_of_alone([[10_u8, 1, 2, 3], [10, 1, 4, 5], [10, 1, 2, 4]]);
        let address = |subnet: u8, host: u8| [0xfd, 0, 0, 1, 0, 0, 0, subnet, 0, 0, 0, 0, 0, 0, 0, host];
        is_told_of_alone([address(2, 3), address(4, 5), address(2, 4)]);
        is_told_of_alone([address(2, 3), address(4, 5), address(3, 3)]);
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
