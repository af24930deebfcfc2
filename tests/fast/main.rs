//! The fast path: what it carries past netfilter, and that nobody can tell but by the time it takes.
//!
//! Each test runs on two nodes with a container each, once per backend. The counters of nftables tell which packets
//! netfilter has seen.

#[cfg(test)]
mod conntrack;
#[cfg(test)]
mod differential;
#[cfg(test)]
mod engaged;
#[cfg(test)]
mod extensions;
#[cfg(test)]
mod families;
#[cfg(test)]
mod flood;
#[cfg(test)]
mod ground;
#[cfg(test)]
mod headers;
#[cfg(test)]
mod neighbours;
#[cfg(test)]
mod ports;
#[cfg(test)]
mod replaced;
#[cfg(test)]
mod rules;
#[cfg(test)]
mod tcp;
