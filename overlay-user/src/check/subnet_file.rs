//! Whether `subnet.env` could be written.

use std::path::Path;

use super::Finding;
use crate::subnet_file;

const CHECK: &str = "subnet-file";

pub(super) fn check(file: &Path) -> Finding {
    match subnet_file::could_write(file) {
        Ok(()) => Finding::green(CHECK, format!("{} can be written", file.display())),
        Err(error) => Finding::refused(CHECK, error, "choose another with --subnet-file"),
    }
}
