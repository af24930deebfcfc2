//! Datastores, and what keeps leases in them: one conformance suite over etcd and a directory, then what only one has.
#![allow(clippy::unwrap_used, reason = "most of a test is in functions that are no tests to clippy")]

mod conformance;
mod endpoints;
mod ground;
mod holding;
mod operating;
mod outage;
mod watching;
