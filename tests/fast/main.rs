//! The fast path: what it carries past netfilter, and that nobody can tell but by the time it takes.
//!
//! Each test runs on two nodes with a container each, once per backend. The counters of nftables tell which packets went
//! past netfilter.

mod engaged;
mod ground;
