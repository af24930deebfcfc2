//! Headers as bytes, for the tests.

use std::vec::Vec;

/// The bytes of a header.
pub(crate) fn bytes<T: Copy>(header: &T) -> Vec<u8> {
    // SAFETY: the headers of the tests are `repr(C)` over bytes without padding (asserted beside them), and borrowed.
    unsafe { core::slice::from_raw_parts(core::ptr::from_ref(header).cast::<u8>(), size_of::<T>()) }.to_vec()
}

/// The two bytes at `at` as a number.
pub(crate) fn word(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}
