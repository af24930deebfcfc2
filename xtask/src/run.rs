//! `cargo xtask run`: the program `cluster` of `overlay-tests`.

use std::ffi::OsString;

use crate::{
    hand_over::{Options, hand_over},
    setup,
};

/// Becomes `cluster`.
///
/// # Errors
///
/// Setting up or building failed, or there is no `cluster` to become.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let mut unused = Vec::new();
    if wants_no_etcd(&options.arguments) {
        unused.push("etcd-server");
    }
    if !options.arguments.iter().any(|argument| argument == "--docker") {
        unused.extend(setup::DOCKER);
    }
    setup::run_without(&unused)?;
    hand_over("cluster", &[], options)
}

/// Whether `cluster` is told to keep the leases in a directory.
fn wants_no_etcd(arguments: &[OsString]) -> bool {
    let apart = arguments.windows(2).any(|pair| pair == ["--datastore", "file"]);
    apart || arguments.iter().any(|argument| argument == "--datastore=file")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_needs_no_etcd() {
        let wants_none = |line: &str| wants_no_etcd(&line.split(' ').map(OsString::from).collect::<Vec<_>>());
        assert!(wants_none("--nodes 3 --datastore file") && wants_none("--datastore=file"));
        assert!(!wants_none("--datastore etcd") && !wants_none("--nodes 3"));
    }
}
