//! Whether `subnet.env` could be written.

use std::path::Path;

use super::Finding;
use crate::place::could_write_in;

const CHECK: &str = "subnet-file";

pub(super) fn check(file: &Path) -> Finding {
    let directory = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let advice = "choose another with --subnet-file";
    if file.is_dir() || file.file_name().is_none() {
        return Finding::red(CHECK, format!("{} is a directory", file.display()), advice);
    }
    match could_write_in(directory) {
        Ok(()) => Finding::green(CHECK, format!("{} can be written", file.display())),
        Err(error) => Finding::red(CHECK, format!("{} cannot be written: {error}", file.display()), advice),
    }
}
