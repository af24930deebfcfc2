//! `cargo xtask setup`: installs what is missing, and tells what and why before it does.
//!
//! [`plan`] is a pure function of what [`Machine::survey`] has seen. After each step the machine is surveyed again:
//! which LLVM is needed shows only when the compiler is there, and a step that did not help must not be repeated.

mod machine;
mod packages;
mod steps;

use std::{borrow::Cow, time::Instant};

use anyhow::{Context as _, bail};

use crate::{
    command,
    toolchain::{DEBIAN_SYSROOT, Missing},
};
use machine::Machine;
use packages::{DOCKER_PACKAGES, EMULATOR_PACKAGES, PACKAGES, RUSTC_PACKAGES, llvm_package};
use steps::{Llvm, Step};

/// Makes this machine able to build and to test, or says what it lacks.
///
/// # Errors
///
/// The command that failed; or, without root or outside Debian, that something is missing: nothing is changed then,
/// and the commands are listed on stderr.
pub(crate) fn run() -> anyhow::Result<()> {
    run_without(&[])
}

/// The same, with what emulates a machine for other kernels.
///
/// # Errors
///
/// As [`run`].
pub(crate) fn run_with_emulator() -> anyhow::Result<()> {
    complete(&[])
}

/// What only the tests on other kernels need: too much to have it everywhere.
const EMULATOR: [&str; 1] = ["qemu-system-x86"];

/// What only the tests with Docker need.
pub(crate) const DOCKER: [&str; 2] = ["docker.io", "busybox-static"];

/// The same without the packages named, which the caller has no use for.
///
/// # Errors
///
/// As [`run`].
pub(crate) fn run_without(unused: &[&'static str]) -> anyhow::Result<()> {
    complete(&[&EMULATOR, unused].concat())
}

/// Makes this machine complete, but for the packages named.
fn complete(unused: &[&'static str]) -> anyhow::Result<()> {
    let start = Instant::now();
    let mut done: Vec<Step> = Vec::new();
    let mut unused: Vec<_> = unused.iter().copied().map(Cow::from).collect();
    loop {
        let machine = Machine { unused: unused.clone(), ..Machine::survey() };
        let steps = plan(&machine);
        let Some(step) = steps.first() else { break };
        if let Step::Optional(packages) = step {
            // Once is enough.
            unused.extend(packages.iter().map(|package| package.name.clone()));
            match try_optional(step, machine.debian) {
                Ok(()) => done.push(step.clone()),
                Err(error) => println!("setup: WITHOUT {}: {error:#}; the tests say which are not run", step.names()),
            }
            continue;
        }
        if !machine.debian {
            list(&steps, |step| !matches!(step, Step::Packages(_)));
            bail!(
                "setup works on Debian only and has changed nothing: install the packages under the names they have \
                 here, then run the commands above, with LLVM_PREFIX where this system keeps that LLVM"
            );
        }
        if !command::is_root() {
            list(&steps, |_| true);
            bail!("setup needs root and has changed nothing; run the commands above, or `cargo xtask setup` as root");
        }
        if done.contains(step) {
            bail!("setup: still missing after its installation: {}", step.names());
        }
        for line in step.explain() {
            println!("setup: {line}");
        }
        step.perform().with_context(|| format!("setup could not install {}", step.names()))?;
        done.extend(steps.into_iter().next());
    }
    if done.is_empty() {
        println!("setup: nothing is missing");
    } else {
        println!("setup: done in {} s", start.elapsed().as_secs());
    }
    Ok(())
}

/// Installs what some tests need, or says why not.
fn try_optional(step: &Step, debian: bool) -> anyhow::Result<()> {
    if !debian {
        bail!("setup installs on Debian only");
    }
    if !command::is_root() {
        bail!("setup needs root to install");
    }
    for line in step.explain() {
        println!("setup: {line}");
    }
    step.perform()
}

/// Prints what is missing, and the commands for those steps whose commands are valid here.
fn list(steps: &[Step], valid: impl Fn(&Step) -> bool) {
    for line in steps.iter().flat_map(Step::explain) {
        eprintln!("setup: {line}");
    }
    eprintln!("setup: the commands:");
    for line in steps.iter().filter(|step| valid(step)).flat_map(Step::script) {
        eprintln!("  {line}");
    }
}

/// What is to be done, in this order.
fn plan(machine: &Machine) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut packages = machine.absent(PACKAGES);
    match &machine.toolchain {
        Ok(found) | Err(Missing::Linker { toolchain: found, .. }) if found.name == DEBIAN_SYSROOT => {
            packages.extend(machine.absent(RUSTC_PACKAGES));
        }
        // Not only those whose files are absent: an older rustc may own them.
        Err(_) if machine.debian => packages.extend(RUSTC_PACKAGES.iter().cloned()),
        Err(Missing::Rustc) => steps.push(Step::Nightly),
        Ok(_) | Err(Missing::Linker { .. }) => {}
    }
    let linker = match &machine.toolchain {
        Ok(_) => None,
        Err(Missing::Linker { toolchain, .. }) if !machine.debian || toolchain.name == DEBIAN_SYSROOT => {
            packages.extend(machine.absent(&[llvm_package(toolchain.llvm)]));
            Some(Step::Linker(Llvm::Major(toolchain.llvm)))
        }
        Err(_) if machine.debian => Some(Step::Linker(Llvm::OfDebian)),
        Err(_) => Some(Step::Linker(Llvm::OfNightly)),
    };
    if !packages.is_empty() {
        steps.push(Step::Packages(packages));
    }
    steps.extend(linker);
    if !machine.components.is_empty() {
        steps.push(Step::Components { toolchain: None, names: machine.components.clone() });
    }
    if let Ok(toolchain) = &machine.toolchain
        && !machine.ebpf_clippy
    {
        steps.push(Step::Components { toolchain: Some(toolchain.name.clone()), names: vec!["clippy"] });
    }
    // One step each: where one cannot be had, the other may.
    let optional = [DOCKER_PACKAGES, EMULATOR_PACKAGES].map(|packages| machine.absent(packages));
    steps.extend(optional.into_iter().filter(|packages| !packages.is_empty()).map(Step::Optional));
    steps
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::toolchain::Toolchain;

    const LLVM: u32 = 42;

    fn toolchain(name: &str) -> Toolchain {
        Toolchain { name: name.to_owned(), llvm: LLVM }
    }

    fn without_linker(name: &str) -> Result<Toolchain, Missing> {
        Err(Missing::Linker { toolchain: toolchain(name), found: Some(LLVM - 1) })
    }

    /// A Debian where everything is there, but for the toolchain that is given.
    fn debian(toolchain: Result<Toolchain, Missing>) -> Machine {
        Machine {
            debian: true,
            toolchain,
            ebpf_clippy: true,
            components: Vec::new(),
            unused: Vec::new(),
            exists: |_| true,
        }
    }

    #[test]
    fn nothing_is_done_where_nothing_is_missing() {
        assert_eq!(plan(&debian(Ok(toolchain(DEBIAN_SYSROOT)))), []);
        assert_eq!(plan(&debian(Ok(toolchain("nightly")))), []);
    }

    #[test]
    fn a_fresh_debian_gets_every_package_before_the_linker_whose_llvm_is_not_known_yet() {
        let fresh = Machine { exists: |_| false, ..debian(Err(Missing::Rustc)) };
        let packages = [PACKAGES, RUSTC_PACKAGES].concat();
        let docker = Step::Optional(DOCKER_PACKAGES.to_vec());
        let emulator = Step::Optional(EMULATOR_PACKAGES.to_vec());
        assert_eq!(plan(&fresh), [Step::Packages(packages), Step::Linker(Llvm::OfDebian), docker, emulator]);
    }

    #[test]
    fn what_has_no_use_is_not_installed() {
        let unused = ["etcd-server"].into_iter().chain(DOCKER).chain(EMULATOR).map(Cow::from).collect();
        let machine = Machine { unused, exists: |_| false, ..debian(Ok(toolchain("nightly"))) };
        let [Step::Packages(packages)] = &plan(&machine)[..] else { panic!("one step") };
        assert_eq!(packages.len(), PACKAGES.len() - 1);
        assert!(packages.iter().all(|package| package.name != "etcd-server"));
    }

    #[test]
    fn what_only_tests_with_docker_need_is_one_step_by_itself() {
        let without = Machine {
            exists: |path| DOCKER_PACKAGES.iter().all(|package| package.provides != path),
            ..debian(Ok(toolchain("nightly")))
        };
        assert_eq!(plan(&without), [Step::Optional(DOCKER_PACKAGES.to_vec())]);
        assert!(DOCKER_PACKAGES.iter().map(|package| &*package.name).eq(DOCKER));
        assert!(EMULATOR_PACKAGES.iter().map(|package| &*package.name).eq(EMULATOR));
    }

    #[test]
    fn an_old_rustc_on_the_same_paths_is_replaced() {
        let steps = plan(&debian(Err(Missing::Rustc)));
        assert_eq!(steps[0], Step::Packages(RUSTC_PACKAGES.to_vec()));
    }

    #[test]
    fn a_linker_for_another_llvm_is_built_again_with_the_libraries_it_needs() {
        let libraries_absent =
            Machine { exists: |path| !path.contains("llvm"), ..debian(without_linker(DEBIAN_SYSROOT)) };
        let linker = Step::Linker(Llvm::Major(LLVM));
        assert_eq!(plan(&libraries_absent), [Step::Packages(vec![llvm_package(LLVM)]), linker.clone()]);
        assert_eq!(plan(&debian(without_linker(DEBIAN_SYSROOT))), [linker]);
    }

    #[test]
    fn debian_brings_its_own_rustc_when_no_linker_fits_the_nightly() {
        let steps = plan(&debian(without_linker("nightly")));
        assert_eq!(steps, [Step::Packages(RUSTC_PACKAGES.to_vec()), Step::Linker(Llvm::OfDebian)]);
    }

    #[test]
    fn elsewhere_the_compiler_is_a_nightly() {
        let elsewhere = |toolchain| Machine { debian: false, ..debian(toolchain) };
        assert_eq!(plan(&elsewhere(Err(Missing::Rustc))), [Step::Nightly, Step::Linker(Llvm::OfNightly)]);
        assert_eq!(plan(&elsewhere(without_linker("nightly"))), [Step::Linker(Llvm::Major(LLVM))]);
    }

    #[test]
    fn missing_components_are_added_to_the_toolchain_that_lacks_them() {
        let machine =
            Machine { components: vec!["rustfmt"], ebpf_clippy: false, ..debian(Ok(toolchain("nightly-2030-01-01"))) };
        let own = Step::Components { toolchain: None, names: vec!["rustfmt"] };
        let nightly = Step::Components { toolchain: Some("nightly-2030-01-01".to_owned()), names: vec!["clippy"] };
        assert_eq!(plan(&machine), [own, nightly]);
    }
}
