//! `overlay trace`: what it says would become of a packet is what becomes of it, and nobody sees that it has asked.
//!
//! Each test runs on two nodes with a container each.

#[cfg(test)]
mod captured;
#[cfg(test)]
mod drops;
#[cfg(test)]
mod ground;
#[cfg(test)]
mod live;
#[cfg(test)]
mod made_up;
