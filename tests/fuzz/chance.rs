//! [`Chance`]: numbers that look random and are the same for the same seed, today and with every later compiler.

/// A generator of pseudo-random numbers (SplitMix64).
pub(crate) struct Chance(u64);

impl Chance {
    /// The numbers of one packet: any packet of a run can be made again without those before it.
    pub(crate) fn of_packet(seed: u64, number: u64) -> Self {
        let mut start = Self(seed);
        Self(start.next() ^ number.wrapping_mul(0xd134_2543_de82_ef95))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`, which is not 0.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        // The upper bits: the bias of a remainder does not matter here.
        ((self.next() >> 16) % end as u64) as usize
    }

    /// True once in `times`.
    pub(crate) fn one_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    /// One of `choices`, which are not empty.
    pub(crate) fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    /// `usual`, and once in `times` one of `others`.
    pub(crate) fn mostly<T: Copy>(&mut self, usual: T, times: usize, others: &[T]) -> T {
        if self.one_in(times) { self.pick(others) } else { usual }
    }

    pub(crate) fn byte(&mut self) -> u8 {
        (self.next() >> 32) as u8
    }

    pub(crate) fn word(&mut self) -> u16 {
        (self.next() >> 32) as u16
    }

    pub(crate) fn array<const N: usize>(&mut self) -> [u8; N] {
        std::array::from_fn(|_| self.byte())
    }
}
