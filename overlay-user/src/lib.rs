//! The node agent and its command line.
//!
//! ```text
//! control:  etcd -> watch -> LeaseEvent -> routes -> RouteChange -> maps -> ROUTES -> to_overlay
//! packet:   container -> to_overlay [ROUTES, LOCAL_NODE] -> wire -> from_underlay [ROUTES, LOCAL_NODE] -> container
//! ```

pub mod docker_opts;
pub mod link;
pub mod listener;
pub mod loader;
pub mod maps;
pub mod masquerade;
mod notices;
pub mod rundir;
pub mod subnet_file;
pub mod sysctl;
pub mod underlay;
