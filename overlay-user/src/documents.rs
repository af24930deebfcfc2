//! Shell completions and manual pages, made of the command line as clap sees it.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};
use clap::CommandFactory as _;
use clap_complete::Shell;

use crate::cli::Cli;

/// The shells that completions are written for.
const SHELLS: [Shell; 3] = [Shell::Bash, Shell::Zsh, Shell::Fish];

/// Writes `completions/` with a file per shell, named as the shell looks for it, and `man/` with a page per command.
///
/// # Errors
/// When a file cannot be written.
pub fn write(directory: &Path) -> Result<()> {
    let (completions, pages) = (directory.join("completions"), directory.join("man"));
    for directory in [&completions, &pages] {
        fs::create_dir_all(directory).with_context(|| format!("create {}", directory.display()))?;
    }
    for shell in SHELLS {
        clap_complete::generate_to(shell, &mut Cli::command(), "overlay", &completions)
            .with_context(|| format!("write completions for {shell} to {}", completions.display()))?;
    }
    clap_mangen::generate_to(Cli::command(), &pages)
        .with_context(|| format!("write manual pages to {}", pages.display()))
}
