//! What the agent does on a node around the programs: underlay, overlay device, listener, rules.
//!
//! Each test has network namespaces of its own.

#[cfg(test)]
#[path = "host/link.rs"]
mod link;
#[cfg(test)]
#[path = "host/listener.rs"]
mod listener;
#[cfg(test)]
#[path = "host/node.rs"]
mod node;
#[cfg(test)]
#[path = "host/rules.rs"]
mod rules;
#[cfg(test)]
#[path = "host/underlay.rs"]
mod underlay;
