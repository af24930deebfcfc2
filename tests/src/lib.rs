//! The harness of the tests with real packets: namespaces, processes, etcd, and a cluster made of them.
//!
//! Everything here needs root and nothing here touches the machine it runs on: devices, routes and rules exist only
//! in network namespaces without a name, files only in a `tmpfs` that one process sees. See [`sandbox`].

pub mod cluster;
pub mod counters;
pub mod etcd;
pub mod netns;
pub mod node;
pub mod process;
pub mod sandbox;
pub mod subnet_env;
pub mod traffic;
