//! Datastores, and what keeps leases in them: one conformance suite over etcd and a directory, then what only one has.

mod conformance;
mod endpoints;
mod ground;
mod holding;
mod outage;
mod watching;
