//! What may happen to a packet's bytes between a good sender and us.

use overlay_tests::packets::{ETHER_IPV6, internet_checksum};

use crate::chance::Chance;

/// One change of a frame. Whatever it names that the frame has not leaves it as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Mutation {
    /// Flips one bit.
    Flip { at: usize, bit: u8 },
    /// Writes one byte.
    Byte { at: usize, value: u8 },
    /// Writes two bytes.
    Word { at: usize, value: u16 },
    /// Cuts the end off.
    Truncate { to: usize },
    /// Adds bytes to the end.
    Extend { by: usize, byte: u8 },
    /// Takes bytes out.
    Remove { at: usize, count: usize },
    /// Puts bytes in.
    Insert { at: usize, count: usize, byte: u8 },
    /// Lets the IP header of the frame, and the UDP header behind it, say that the packet ends `behind` bytes behind
    /// the IP header's first; what is there stays there.
    End { behind: usize },
    /// Makes lengths and checksum of the first IP header, and the length of a UDP header behind it, right again.
    Repair,
}

/// Where the headers of all that we look at are: most changes go there.
const HEADERS: usize = 120;
const IP: usize = 14;

/// Between none and four changes for a frame of `length` bytes, in half of the cases with lengths made right.
pub(crate) fn mutations(chance: &mut Chance, length: usize) -> Vec<Mutation> {
    let count = chance.pick(&[0, 0, 1, 1, 1, 2, 2, 4]);
    let mut mutations: Vec<_> = (0..count).map(|_| mutation(chance, length)).collect();
    if count > 0 && chance.one_in(2) {
        mutations.push(Mutation::Repair);
    }
    mutations
}

fn mutation(chance: &mut Chance, length: usize) -> Mutation {
    let anywhere = chance.below(length);
    let at = if chance.one_in(8) { anywhere } else { chance.below(length.min(HEADERS)) };
    match chance.below(16) {
        0..=4 => Mutation::Flip { at, bit: chance.below(8) as u8 },
        5 | 6 => Mutation::Byte { at, value: chance.pick(&[0x00, 0x01, 0x45, 0x7f, 0x80, 0xfe, 0xff]) },
        7 => Mutation::Byte { at, value: chance.byte() },
        8 => Mutation::Word { at, value: chance.pick(&[0, 1, 7, 8, 20, 28, 0x0800, 0x7fff, 0x8000, 0xffff]) },
        9 => Mutation::Word { at, value: length as u16 - IP as u16 },
        10 => Mutation::Truncate { to: at },
        11 => Mutation::Extend { by: 1 + chance.below(40), byte: chance.byte() },
        12 => Mutation::Remove { at, count: chance.pick(&[1, 2, 4, 8, 14, 20]) },
        13 => Mutation::Insert { at, count: chance.pick(&[1, 2, 4, 8, 14, 20]), byte: chance.byte() },
        _ => Mutation::End { behind: 20 + chance.below(HEADERS) },
    }
}

impl Mutation {
    /// Changes `frame`.
    pub(crate) fn apply(&self, frame: &mut Vec<u8>) {
        match *self {
            Self::Flip { at, bit } => frame.get_mut(at).into_iter().for_each(|byte| *byte ^= 1 << bit),
            Self::Byte { at, value } => frame.get_mut(at).into_iter().for_each(|byte| *byte = value),
            Self::Word { at, value } => put(frame, at, value),
            Self::Truncate { to } => frame.truncate(to),
            Self::Extend { by, byte } => frame.resize(frame.len() + by, byte),
            Self::Remove { at, count } => {
                let end = (at + count).min(frame.len());
                frame.drain(at.min(end)..end);
            }
            Self::Insert { at, count, byte } => {
                let at = at.min(frame.len());
                frame.splice(at..at, std::iter::repeat_n(byte, count));
            }
            Self::End { behind } => set_end(frame, behind),
            Self::Repair => {
                let whole = frame.len().saturating_sub(IP);
                set_end(frame, whole);
            }
        }
    }
}

fn put(frame: &mut [u8], at: usize, value: u16) {
    if let Some(place) = frame.get_mut(at..at + 2) {
        place.copy_from_slice(&value.to_be_bytes());
    }
}

/// Makes the first IP packet end `behind` bytes behind its start, by its own header and by UDP's.
fn set_end(frame: &mut [u8], behind: usize) {
    let Some(first) = frame.get(IP) else { return };
    let is_v6 = frame[IP - 2..IP] == ETHER_IPV6.to_be_bytes();
    let header_len = if is_v6 { 40 } else { usize::from(first & 0x0f) * 4 };
    let payload_len = behind.saturating_sub(header_len) as u16;
    if is_v6 {
        put(frame, IP + 4, payload_len);
        put(frame, IP + header_len + 4, payload_len);
        return;
    }
    put(frame, IP + 2, behind as u16);
    put(frame, IP + header_len + 4, payload_len);
    put(frame, IP + 10, 0);
    if let Some(header) = frame.get(IP..IP + header_len) {
        let checksum = internet_checksum(header);
        put(frame, IP + 10, checksum);
    }
}
