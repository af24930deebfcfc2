//! What a test has to say even when it passes.

use std::{
    fmt,
    io::{self, Write as _},
};

/// Prints a line, also where the output of a test that passes is not shown.
///
/// # Panics
///
/// When standard output is closed.
pub fn report(line: impl fmt::Display) {
    // Not by `println!`, which the test harness keeps to itself.
    writeln!(io::stdout().lock(), "{line}").expect("write to standard output");
}
