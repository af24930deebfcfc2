//! The harness of the tests that need root: packets as bytes, programs in the kernel.

pub mod packets;
pub mod programs;
