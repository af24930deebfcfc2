//! What setup may do: in words, as lines for a shell, and done.

use std::{fmt::Display, iter, process::Command};

use anyhow::bail;

use super::packages::{self, Package};
use crate::{
    command::{cargo, run_quietly, shell},
    toolchain::LINKER,
};

/// The `bpf-linker` that the project is built with.
const LINKER_VERSION: &str = "0.13.0";

/// One step of setup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Installs packages of Debian.
    Packages(Vec<Package>),
    /// The same, of packages that only some tests need. These say so when they are missing.
    Optional(Vec<Package>),
    /// Installs a nightly that can compile the eBPF programs. Only ever proposed: Debian has a rustc for it.
    Nightly,
    /// Builds `bpf-linker` with an LLVM.
    Linker(Llvm),
    /// Adds components to a toolchain of rustup: to the named one, or to the one in use.
    Components { toolchain: Option<String>, names: Vec<&'static str> },
}

/// The LLVM that `bpf-linker` needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Llvm {
    /// Its major version.
    Major(u32),
    /// That of Debian's rustc, which is not installed yet.
    OfDebian,
    /// That of a nightly, which is not installed yet.
    OfNightly,
}

impl Step {
    /// What is missing, in a few words.
    pub(super) fn names(&self) -> String {
        match self {
            Self::Packages(packages) | Self::Optional(packages) => {
                packages.iter().map(|package| &*package.name).collect::<Vec<_>>().join(" ")
            }
            Self::Nightly => "a nightly with rust-src".to_owned(),
            Self::Linker(Llvm::Major(llvm)) => format!("{LINKER} with LLVM {llvm}"),
            Self::Linker(_) => format!("{LINKER} with the LLVM of that compiler"),
            Self::Components { toolchain: None, names } => names.join(" and "),
            Self::Components { toolchain: Some(toolchain), names } => format!("{} of {toolchain}", names.join(" and ")),
        }
    }

    /// What is missing, and why it is needed.
    pub(super) fn explain(&self) -> Vec<String> {
        match self {
            Self::Packages(packages) => {
                list("packages of Debian (a minute or two with a compiler or LLVM among them)", packages)
            }
            Self::Optional(packages) => list("packages of Debian that some tests can be without", packages),
            Self::Nightly => vec![format!("{}: compiles the eBPF programs", self.names())],
            Self::Linker(_) => vec![format!("{}: links the eBPF programs (a minute to build)", self.names())],
            Self::Components { .. } => vec![format!("{}: for `cargo xtask check`", self.names())],
        }
    }

    /// The lines to type for it, each under the user who has to.
    pub(super) fn script(&self) -> Vec<String> {
        let root = || "# as root".to_owned();
        let anybody = || "# as the user who builds".to_owned();
        match self {
            Self::Packages(packages) | Self::Optional(packages) => {
                iter::once(root()).chain(packages::script(packages)).collect()
            }
            Self::Nightly => {
                vec![anybody(), "rustup toolchain install nightly --component rust-src --component clippy".to_owned()]
            }
            Self::Linker(Llvm::Major(llvm)) => vec![anybody(), shell(&cargo_install(llvm))],
            Self::Linker(Llvm::OfDebian) => {
                let llvm = llvm_of("/usr/bin/rustc");
                let libraries = packages::script(&[packages::llvm_package("$LLVM")]);
                let as_root = [root(), llvm.clone()].into_iter().chain(libraries);
                as_root.chain([anybody(), llvm, shell(&cargo_install("$LLVM"))]).collect()
            }
            Self::Linker(Llvm::OfNightly) => vec![anybody(), llvm_of("rustc +nightly"), shell(&cargo_install("$LLVM"))],
            Self::Components { toolchain, names } => {
                vec![anybody(), shell(&component_add(toolchain.as_deref(), names))]
            }
        }
    }

    /// Does it.
    pub(super) fn perform(&self) -> anyhow::Result<()> {
        match self {
            Self::Packages(packages) | Self::Optional(packages) => packages::install(packages),
            Self::Linker(Llvm::Major(llvm)) => run_quietly(&mut cargo_install(llvm)),
            Self::Components { toolchain, names } => run_quietly(&mut component_add(toolchain.as_deref(), names)),
            Self::Nightly | Self::Linker(_) => bail!("nothing that setup does by itself"),
        }
    }
}

/// Packages under a title, each with what it is for.
fn list(title: &str, packages: &[Package]) -> Vec<String> {
    let line = |package: &Package| format!("  {:18} {}", package.name, package.reason);
    iter::once(title.to_owned()).chain(packages.iter().map(line)).collect()
}

fn cargo_install(llvm: impl Display) -> Command {
    let mut install = cargo();
    // Where Debian has it. Without the variable the build takes whichever llvm-config comes first in PATH.
    install.env("LLVM_PREFIX", format!("/usr/lib/llvm-{llvm}"));
    // By force, for one of the same version may be there that cannot start.
    install.args(["install", LINKER, "--version", LINKER_VERSION, "--locked", "--force", "--no-default-features"]);
    install.args(["--features", &format!("llvm-{llvm}")]);
    install
}

fn component_add(toolchain: Option<&str>, names: &[&str]) -> Command {
    let mut rustup = Command::new("rustup");
    rustup.args(["component", "add"]).args(names);
    rustup.args(toolchain.map(|name| ["--toolchain", name]).into_iter().flatten());
    rustup
}

/// The line that sets `LLVM` to the major version of a compiler's LLVM.
fn llvm_of(rustc: &str) -> String {
    format!(r"LLVM=$({rustc} -vV | sed -n 's/^LLVM version: \([0-9]*\).*/\1/p')")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_linker_is_built_with_the_llvm_it_is_asked_for() {
        let script = Step::Linker(Llvm::Major(42)).script();
        let [_, line] = &script[..] else { panic!("{script:?}") };
        assert!(line.starts_with("LLVM_PREFIX=/usr/lib/llvm-42 cargo install bpf-linker "), "{line}");
        assert!(line.ends_with(" --features llvm-42"), "{line}");
    }

    #[test]
    fn before_the_compiler_is_there_the_script_asks_it_for_its_llvm() {
        let script = Step::Linker(Llvm::OfDebian).script();
        let place = |part| script.iter().position(|line| line.contains(part)).expect(part);
        assert!(place("LLVM=$(/usr/bin/rustc -vV | ") < place(" llvm-$LLVM-dev"), "{script:?}");
        assert!(place(" llvm-$LLVM-dev") < place(" --features llvm-$LLVM"), "{script:?}");
    }

    #[test]
    fn components_go_to_the_toolchain_that_lacks_them() {
        let step = |toolchain| Step::Components { toolchain, names: vec!["rustfmt", "clippy"] };
        assert_eq!(step(None).script()[1], "rustup component add rustfmt clippy");
        assert_eq!(step(Some("n".to_owned())).script()[1], "rustup component add rustfmt clippy --toolchain n");
    }

    #[test]
    fn every_package_is_explained() {
        let lines = Step::Packages(packages::PACKAGES.to_vec()).explain();
        for package in packages::PACKAGES {
            assert!(lines.iter().any(|line| line.contains(&*package.name) && line.contains(package.reason)));
        }
    }
}
