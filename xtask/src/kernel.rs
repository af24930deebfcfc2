//! `cargo xtask test --kernel VERSION`: tests of the data path on an older kernel of Debian, under qemu.
//!
//! Without KVM, so that it works wherever qemu does. The processor is emulated and twenty times slower: what runs there
//! is chosen ([`SUITES`]), and the tests wait accordingly.

mod compile;
mod fetch;
mod initramfs;

use std::{
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, bail};

use crate::{
    command::workspace,
    test::{self, Outcome},
};

/// A kernel that the tests can run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kernel {
    /// The oldest that is enough: without tcx
    #[value(name = "6.1")]
    V6_1,
    /// With tcx
    #[value(name = "6.12")]
    V6_12,
}

impl Kernel {
    /// Every one of them.
    pub(crate) const ALL: [Self; 2] = [Self::V6_1, Self::V6_12];

    /// What its package is named after.
    fn version(self) -> &'static str {
        match self {
            Self::V6_1 => "6.1",
            Self::V6_12 => "6.12",
        }
    }

    /// The suite of Debian that has it.
    fn suite(self) -> &'static str {
        match self {
            Self::V6_1 => "bookworm",
            Self::V6_12 => "bookworm-backports",
        }
    }
}

/// Tests to run: a test target, and words of which one must be in a test's name. Without words, all of it.
struct Suite {
    target: &'static str,
    filters: &'static [&'static str],
}

/// What is worth its time at a twentieth of the speed: that the programs load, each of their decisions, two nodes with
/// either backend and with agents that are killed and replaced, the fast path, and every family inside over every family
/// outside: a packet of one family becomes one of the other only since 6.3.
const SUITES: [Suite; 4] = [
    Suite { target: "programs", filters: &[] },
    Suite { target: "overlay", filters: &["containers_talk", "clsact"] },
    Suite { target: "fast", filters: &["engaged"] },
    Suite { target: "families", filters: &["dual_stack_cluster", "underlay_of_one_family"] },
];

/// How long a kernel may take for all tests, as `timeout` reads it: one that hangs would else never end.
const LIMIT: &str = "40m";

/// What the init's last line begins with, before the exit code of the tests. A kernel that panics never prints it.
const MARKER: &str = "OVERLAY-TESTS-EXIT ";

/// Boots the kernel with the tests inside, and counts them.
///
/// # Errors
///
/// The kernel cannot be had, or it did not come to the end of the tests in time.
pub(crate) fn run(kernel: Kernel) -> anyhow::Result<Outcome> {
    let version = kernel.version();
    let directory = workspace().join("target/kernels").join(version);
    let initramfs = fetch::fetch(kernel, &directory)
        .and_then(|image| Ok((initramfs::build(&directory, &image)?, image)))
        .with_context(|| format!("NOT RUN: the tests on Linux {version}"));
    let (initramfs, image) = initramfs?;
    let mut exit = None;
    let mut outcome = test::show_and_count(&mut qemu(&image.kernel, &initramfs), |line| {
        exit = exit.or(exit_code(line));
    })?;
    let Some(exit) = exit else {
        bail!("Linux {version} ended before its tests did, or they took longer than {LIMIT}: see above");
    };
    // Nor does a list that nobody has read count as success.
    outcome.failed_runs += u32::from(exit != 0 || outcome.passed == 0);
    Ok(outcome)
}

/// The emulated machine, with its serial line on our standard output.
fn qemu(kernel: &Path, initramfs: &Path) -> Command {
    let mut qemu = Command::new("timeout");
    qemu.args([LIMIT, "qemu-system-x86_64", "-accel", "tcg,thread=multi", "-smp", "2", "-m", "3072"]);
    // Linux 6.12 panics where cmpxchg16b is emulated.
    qemu.args(["-cpu", "max,-cx16", "-net", "none", "-no-reboot"]);
    // Not `-nographic`, with which the firmware would clear our terminal.
    qemu.args(["-display", "none", "-monitor", "none", "-serial", "stdio"]).stdin(Stdio::null());
    qemu.arg("-kernel").arg(kernel).arg("-initrd").arg(initramfs);
    qemu.args(["-append", "console=ttyS0 quiet panic=-1 mitigations=off"]);
    qemu
}

/// The exit code in the init's last line; `None` for any other line.
fn exit_code(line: &str) -> Option<u8> {
    line.strip_prefix(MARKER)?.trim_end().parse().ok()
}

/// What the init reads: a line for each suite, with the program and its arguments.
fn list() -> String {
    let line = |suite: &Suite| [&[suite.target], suite.filters].concat().join(" ") + "\n";
    SUITES.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_line_of_the_init_has_an_exit_code() {
        assert_eq!(exit_code("OVERLAY-TESTS-EXIT 0\r"), Some(0));
        assert_eq!(exit_code("OVERLAY-TESTS-EXIT 1"), Some(1));
        for line in ["", "OVERLAY-TESTS-EXIT", "OVERLAY-TESTS-EXIT none", "+ echo OVERLAY-TESTS-EXIT 0"] {
            assert_eq!(exit_code(line), None, "{line}");
        }
    }

    #[test]
    fn the_init_has_the_line_that_is_waited_for() {
        assert!(initramfs::INIT.contains(&format!("echo \"{MARKER}$")));
    }

    #[test]
    fn a_suite_is_a_line_with_its_filters() {
        assert!(list().starts_with("programs\n"));
        assert!(list().contains("\noverlay containers_talk clsact\n"));
    }
}
