//! What there is on this machine, as far as setup cares.

use std::{
    borrow::Cow,
    path::Path,
    process::{Command, Stdio},
};

use super::packages::Package;
use crate::{
    command,
    toolchain::{self, DEBIAN_SYSROOT, Missing, Toolchain},
};

/// What setup looks at.
pub(super) struct Machine {
    pub(super) debian: bool,
    pub(super) toolchain: Result<Toolchain, Missing>,
    /// Whether the toolchain for the programs has clippy; meaningless without one.
    pub(super) ebpf_clippy: bool,
    /// Components of rustup that the toolchain running this program lacks.
    pub(super) components: Vec<&'static str>,
    /// Packages that nobody will miss.
    pub(super) unused: Vec<Cow<'static, str>>,
    /// Whether a path exists.
    pub(super) exists: fn(&str) -> bool,
}

impl Machine {
    pub(super) fn survey() -> Self {
        let toolchain = toolchain::find();
        let clippy = |name: &str| {
            let mut which = Command::new("rustup");
            which.args(["which", "--toolchain", name, "cargo-clippy"]).stdout(Stdio::null()).stderr(Stdio::null());
            which.status().is_ok_and(|status| status.success())
        };
        let cargo = command::cargo_path();
        let components = [("rustfmt", "cargo-fmt"), ("clippy", "cargo-clippy")];
        Self {
            debian: std::fs::read_to_string("/etc/os-release").is_ok_and(|text| is_debian(&text)),
            // Debian's clippy is a package like the others.
            ebpf_clippy: toolchain.as_ref().is_ok_and(|found| found.name == DEBIAN_SYSROOT || clippy(&found.name)),
            components: components
                .into_iter()
                .filter(|(_, program)| !cargo.with_file_name(program).exists())
                .map(|(component, _)| component)
                .collect(),
            toolchain,
            unused: Vec::new(),
            exists: |path| Path::new(path).exists(),
        }
    }

    pub(super) fn absent(&self, packages: &[Package]) -> Vec<Package> {
        let is_absent = |package: &&Package| !self.unused.contains(&package.name) && !(self.exists)(&package.provides);
        packages.iter().filter(is_absent).cloned().collect()
    }
}

/// Whether this is the text of a Debian's `os-release`. Its derivatives do not have all of the packages.
fn is_debian(os_release: &str) -> bool {
    os_release.lines().any(|line| matches!(line, "ID=debian" | "ID=\"debian\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_debian_is_debian() {
        assert!(is_debian("PRETTY_NAME=\"Debian GNU/Linux\"\nID=debian\n"));
        assert!(!is_debian("NAME=Ubuntu\nID=ubuntu\nID_LIKE=debian\n"));
        assert!(!is_debian(""));
    }
}
