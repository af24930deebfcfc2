//! The node agent as a library: what it does on the node around the eBPF programs.

pub mod docker_opts;
pub mod link;
pub mod listener;
pub mod subnet_file;
pub mod sysctl;
pub mod underlay;
