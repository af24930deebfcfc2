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
    setup,
};

/// Which tests to run.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Run the long tests too
    #[arg(long)]
    long: bool,
    /// Run only the tests whose name contains this
    filter: Option<String>,
}

/// Runs the tests that any user can run, then those that need root.
///
/// # Errors
///
/// A test failed or did not compile, the filter fits none, or there is no root for the second part.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    setup::run()?;
    let start = Instant::now();
    let mut outcome = run_tests(&mut cargo_test(options, &[]))?;
    if command::is_root() {
        command::run(cargo().arg("build"))?;
        // This program lies beside the agent.
        let agent = env::current_exe().context("find the target directory")?.with_file_name("overlay");
        outcome += run_tests(cargo_test(options, &["--package", "overlay-tests"]).env("OVERLAY_BIN", agent))?;
    }
    println!("test: {outcome}, {} s", start.elapsed().as_secs());
    if outcome.failed_runs > 0 {
        bail!("tests failed: see above");
    }
    if !command::is_root() {
        bail!("NOT RUN for want of root: the tests with network namespaces and real traffic");
    }
    if outcome.passed == 0 {
        bail!("no test was run: is the name right, or does it need --long?");
    }
    Ok(())
}

fn cargo_test(options: &Options, packages: &[&str]) -> Command {
    let mut test = cargo();
    test.args(["test", "--no-fail-fast"]).args(packages).args(&options.filter);
    if options.long {
        test.args(["--", "--include-ignored"]);
    }
    test
}

/// What came of some runs of `cargo test`.
#[derive(Debug, Default, PartialEq, Eq)]
struct Outcome {
    passed: u32,
    failed: u32,
    ignored: u32,
    /// Runs of `cargo test` that failed, be it in a test or in compiling one.
    failed_runs: u32,
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

/// Runs `cargo test`, shows its output as it comes and counts.
fn run_tests(test: &mut Command) -> anyhow::Result<Outcome> {
    println!("== {}", shell(test));
    let mut child = test.stdout(Stdio::piped()).spawn().with_context(|| format!("start `{}`", shell(test)))?;
    let mut outcome = Outcome::default();
    for line in BufReader::new(child.stdout.take().context("cargo's output")?).lines() {
        let line = line.context("read cargo's output")?;
        println!("{line}");
        outcome += counts(&line).unwrap_or_default();
    }
    outcome.failed_runs = u32::from(!child.wait().context("wait for cargo")?.success());
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
    fn tests_that_do_not_compile_are_a_failure_though_none_is_counted() {
        let mut outcome = Outcome { passed: 5, ..Outcome::default() };
        outcome += Outcome { failed_runs: 1, ..Outcome::default() };
        assert_eq!(outcome.to_string(), "FAILED, 5 passed, 0 failed, 0 ignored");
    }
}
