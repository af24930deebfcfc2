//! Real traffic over a real cluster: two nodes or more, etcd, one container each.

#![allow(clippy::unwrap_used, reason = "a test that unwraps fails with the place and the error")]

mod refusals;
mod traffic;
