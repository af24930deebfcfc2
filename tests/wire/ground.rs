//! What the tests share.

use std::process::Command;

pub(crate) use overlay_tests::{
    cluster::Backend,
    for_either_backend, for_every_way,
    two_nodes::{LIMIT, Way, dropped, drops, flow, gateway, on_two_nodes, raise_container_mtu, settings, two},
};

/// What ping said, both on standard output and error.
pub(crate) fn said(command: &mut Command) -> String {
    let output = command.output().unwrap();
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}
