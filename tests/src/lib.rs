//! The harness of the tests that need root: namespaces, processes, etcd, packets as bytes, programs in the kernel.
//!
//! Everything here needs root and nothing here touches the machine it runs on: devices, routes and rules exist only
//! in network namespaces without a name, files only in a `tmpfs` that one process sees. See [`sandbox`].

pub mod attached;
pub mod authority;
pub mod cgroup;
pub mod chaos;
pub mod cluster;
pub mod counters;
pub mod docker;
pub mod etcd;
pub mod families;
pub mod flood;
pub mod headers;
pub mod kernel_objects;
pub mod kernel_vxlan;
pub mod marks;
pub mod model;
pub mod netns;
pub mod node;
pub mod paced;
pub mod packet_socket;
pub mod packets;
pub mod patience;
pub mod process;
pub mod programs;
pub mod provoke;
pub mod report;
pub mod sandbox;
pub mod snapshot;
pub mod steady;
pub mod subnet_env;
pub mod tap_nic;
pub mod traced;
pub mod traffic;
pub mod tun_peer;
pub mod two_nodes;
pub mod underlay;
pub mod verifier;
