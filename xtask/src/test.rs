//! `cargo xtask test`: every test, and one line at the end that sums them up.

use std::{
    env, fmt,
    io::{BufRead as _, BufReader},
    ops::AddAssign,
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context as _, bail};

use crate::{
    command::{self, cargo, shell},
    kernel::{self, Kernel},
    setup,
};

/// Which tests to run.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Run the long tests too, and those of the data path on every other kernel
    #[arg(long)]
    long: bool,
    /// Run the tests of the data path on this kernel of Debian, emulated, and nothing else
    #[arg(long, value_name = "VERSION", conflicts_with_all = ["long", "filter"])]
    kernel: Option<Kernel>,
    /// Run only the tests whose name contains this
    filter: Option<String>,
}

impl Options {
    /// Kernels to emulate. A filter is for tests of this machine.
    fn kernels(&self) -> Vec<Kernel> {
        match self {
            Self { kernel: Some(kernel), .. } => vec![*kernel],
            Self { long: true, filter: None, .. } => Kernel::ALL.to_vec(),
            _ => Vec::new(),
        }
    }
}

/// Runs the tests that any user can run, then those that need root, then those on other kernels.
///
/// # Errors
///
/// A test failed or did not compile, the filter fits none, there is no root for the second part, or a kernel is not to
/// be had.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let kernels = options.kernels();
    if kernels.is_empty() {
        setup::run()?;
    } else {
        setup::run_with_emulator()?;
    }
    let start = Instant::now();
    let mut outcome = Outcome::default();
    if options.kernel.is_none() {
        outcome += run_here(options)?;
    }
    for kernel in kernels {
        outcome += kernel::run(kernel).unwrap_or_else(|error| {
            eprintln!("test: {error:#}");
            Outcome { failed_runs: 1, ..Outcome::default() }
        });
    }
    println!("test: {outcome}, {} s", start.elapsed().as_secs());
    if outcome.failed_runs > 0 {
        bail!("tests failed: see above");
    }
    if options.kernel.is_none() && !command::is_root() {
        bail!("NOT RUN for want of root: the tests with network namespaces and real traffic");
    }
    if outcome.passed == 0 {
        bail!("no test was run: is the name right, or does it need --long?");
    }
    Ok(())
}

/// Runs the tests of this machine.
fn run_here(options: &Options) -> anyhow::Result<Outcome> {
    let mut outcome = show_and_count(&mut cargo_test(options, &[]), |_| ())?;
    if command::is_root() {
        command::run(cargo().arg("build"))?;
        // This program lies beside the agent.
        let agent = env::current_exe().context("find the target directory")?.with_file_name("overlay");
        let mut tests = cargo_test(options, &["--package", "overlay-tests"]);
        outcome += show_and_count(tests.env("OVERLAY_BIN", agent), |_| ())?;
    }
    Ok(outcome)
}

fn cargo_test(options: &Options, packages: &[&str]) -> Command {
    let mut test = cargo();
    test.args(["test", "--no-fail-fast"]).args(packages).args(&options.filter);
    if options.long {
        test.args(["--", "--include-ignored"]);
    }
    test
}

/// What came of some runs of tests.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) passed: u32,
    failed: u32,
    ignored: u32,
    /// Runs that failed, be it in a test, in compiling one, or before any was run.
    pub(crate) failed_runs: u32,
}

impl AddAssign for Outcome {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.ignored += other.ignored;
        self.failed_runs += other.failed_runs;
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { passed, failed, ignored, failed_runs } = self;
        let verdict = if *failed_runs == 0 { "ok" } else { "FAILED" };
        write!(f, "{verdict}, {passed} passed, {failed} failed, {ignored} ignored")
    }
}

/// Runs a command that runs tests, shows its output as it comes, hands each line on, and counts.
pub(crate) fn show_and_count(tests: &mut Command, mut each: impl FnMut(&str)) -> anyhow::Result<Outcome> {
    let name = shell(tests);
    println!("== {name}");
    let mut child = tests.stdout(Stdio::piped()).spawn().with_context(|| format!("start `{name}`"))?;
    let mut outcome = Outcome::default();
    for line in BufReader::new(child.stdout.take().context("the tests' output")?).split(b'\n') {
        let line = line.with_context(|| format!("read the output of `{name}`"))?;
        // A serial line ends lines its own way, and what a kernel says there is not always text.
        let line = String::from_utf8_lossy(&line);
        let line = line.trim_end();
        println!("{line}");
        each(line);
        outcome += counts(line).unwrap_or_default();
    }
    outcome.failed_runs = u32::from(!child.wait().with_context(|| format!("wait for `{name}`"))?.success());
    Ok(outcome)
}

/// The counts in the line with which a test executable ends; `None` for any other line.
fn counts(line: &str) -> Option<Outcome> {
    let (_, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
    let count = |name| {
        let number = counts.split("; ").find_map(|count| count.strip_suffix(name))?;
        number.trim().parse().ok()
    };
    Some(Outcome { passed: count("passed")?, failed: count("failed")?, ignored: count("ignored")?, failed_runs: 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_of_a_test_executable_is_counted() {
        let line = "test result: FAILED. 3 passed; 1 failed; 2 ignored; 0 measured; 9 filtered out; finished in 0.01s";
        assert_eq!(counts(line), Some(Outcome { passed: 3, failed: 1, ignored: 2, failed_runs: 0 }));
    }

    #[test]
    fn other_lines_are_not_counted() {
        for line in ["test result::passed ... ok", "running 3 tests", "test result: ok", ""] {
            assert_eq!(counts(line), None, "{line}");
        }
    }

    #[test]
    fn lines_are_counted_and_handed_on_however_they_end() {
        let mut lines = Vec::new();
        let mut tests = Command::new("printf");
        tests.arg("== programs\r\ntest result: ok. 3 passed; 0 failed; 0 ignored; 0 measured\r\r\n");
        let outcome = show_and_count(&mut tests, |line| lines.push(line.to_owned())).unwrap();
        assert_eq!(outcome, Outcome { passed: 3, ..Outcome::default() });
        assert_eq!(lines[0], "== programs");
    }

    #[test]
    fn every_kernel_belongs_to_the_long_tests_but_not_where_a_name_is_asked_for() {
        let options = |long, kernel, filter: Option<&str>| Options { long, kernel, filter: filter.map(str::to_owned) };
        assert_eq!(options(true, None, None).kernels(), Kernel::ALL);
        assert_eq!(options(false, Some(Kernel::V6_1), None).kernels(), [Kernel::V6_1]);
        assert_eq!(
            [options(true, None, Some("word")).kernels(), options(false, None, None).kernels()],
            [vec![], vec![]]
        );
    }

    #[test]
    fn tests_that_do_not_compile_are_a_failure_though_none_is_counted() {
        let mut outcome = Outcome { passed: 5, ..Outcome::default() };
        outcome += Outcome { failed_runs: 1, ..Outcome::default() };
        assert_eq!(outcome.to_string(), "FAILED, 5 passed, 0 failed, 0 ignored");
    }
}
