//! The packages of `cargo xtask dist`, on a machine with systemd: what installing, running, upgrading and removing does.

#![cfg(test)]
#![allow(clippy::unwrap_used, reason = "a test that unwraps fails with the place and the error")]

mod machine;
mod names;
mod package;
mod packages;
