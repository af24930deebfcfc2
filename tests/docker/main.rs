//! Two nodes, a real dockerd on each, started from what the agent tells Docker; traffic from and to real containers.
//!
//! The agents have everything as it comes: fast path on, masquerading as flannel does it. What was tried is counted on
//! standard output. Without Docker the tests say so there, and test nothing.

#[cfg(test)]
mod churn;
#[cfg(test)]
mod families;
#[cfg(test)]
mod ground;
#[cfg(test)]
mod lifecycle;
#[cfg(test)]
mod outside;
#[cfg(test)]
mod published;
#[cfg(test)]
mod snapshot;
#[cfg(test)]
mod talk;
#[cfg(test)]
mod teardown;
