//! Real traffic over a real cluster: two nodes or more, etcd, one container each.

mod refusals;
mod traffic;
