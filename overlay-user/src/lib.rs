//! The node agent and its command line.
//!
//! ```text
//! control:  etcd -> watch -> LeaseEvent -> routes -> RouteChange -> maps -> ROUTES -> to_overlay
//! packet:   container -> to_overlay [ROUTES, LOCAL_NODE] -> wire -> from_underlay [ROUTES, LOCAL_NODE] -> container
//! ```

pub mod admin;
pub mod agent;
pub mod allocate;
pub mod atomic_file;
pub mod backoff;
pub mod check;
pub mod cli;
pub mod cni;
pub mod command_line;
pub mod commands;
pub mod config;
pub mod conntrack;
pub mod datastore;
pub mod direct;
pub mod docker_opts;
pub mod documents;
pub mod endpoints;
pub mod health;
pub mod holder;
pub mod http;
pub mod in_words;
mod interface_name;
mod json;
pub mod lease;
pub mod link;
pub mod listener;
pub mod loader;
pub mod logging;
pub mod mac;
pub mod map_dump;
pub mod maps;
pub mod masquerade;
pub mod metrics;
pub mod network;
pub mod node;
mod notices;
mod place;
pub mod privileges;
mod route_message;
pub mod routes;
pub mod rundir;
mod signals;
pub mod status;
pub mod subnet_file;
pub mod sysctl;
pub mod top;
pub mod trace;
pub mod underlay;
pub mod watch;
