//! Datastores, and what keeps leases in them: one conformance suite over etcd and a directory, then what only one has.

#[cfg(test)]
mod conformance;
#[cfg(test)]
mod endpoints;
#[cfg(test)]
mod ground;
#[cfg(test)]
mod holding;
#[cfg(test)]
mod moving;
#[cfg(test)]
mod operating;
#[cfg(test)]
mod outage;
#[cfg(test)]
mod watching;
