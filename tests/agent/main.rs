//! The agent and the datastore: what is written there by others, by hand, by mistake or by nobody, and what the agent makes
//! of it. The real program, a real etcd, real maps.

#[cfg(test)]
mod bad_input;
#[cfg(test)]
mod commands;
#[cfg(test)]
mod config;
#[cfg(test)]
mod ground;
#[cfg(test)]
mod leases;
mod logs;
#[cfg(test)]
mod loss;
#[cfg(test)]
mod secrets;
#[cfg(test)]
mod silence;
#[cfg(test)]
mod users;
