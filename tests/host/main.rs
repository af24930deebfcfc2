//! What the agent does on a node around the programs: underlay, overlay device, listener, rules,
//! options for Docker.
//!
//! Each test has network namespaces of its own.

#[cfg(test)]
mod docker_opts;
#[cfg(test)]
mod endpoints;
#[cfg(test)]
mod forward;
#[cfg(test)]
mod link;
#[cfg(test)]
mod listener;
#[cfg(test)]
mod node;
#[cfg(test)]
mod rules;
#[cfg(test)]
mod site;
#[cfg(test)]
mod underlay;
