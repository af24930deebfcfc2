//! The `.tar.gz`: the program, what to read, and the files to install it with.

use std::{env, fs, process::Command};

use anyhow::Context as _;

use super::Dist;
use crate::command;

/// What goes into the archive besides the program and what it writes of itself, by its place in the workspace.
const FILES: [&str; 5] = ["LICENSE", "README.md", "bpf-maps.md", "docs", "packaging"];

/// Makes the archive: the same bytes for the same contents, whoever makes it when.
pub(super) fn build(dist: &Dist) -> anyhow::Result<()> {
    let name = format!("overlay-{}-{}-linux", env!("CARGO_PKG_VERSION"), env::consts::ARCH);
    let tree = dist.stage.join(&name);
    fs::create_dir(&tree).with_context(|| format!("create {}", tree.display()))?;
    let files = FILES.iter().map(|file| command::workspace().join(file)).chain([
        dist.program(),
        dist.documents().join("completions"),
        dist.documents().join("man"),
    ]);
    command::run(Command::new("cp").arg("--recursive").args(files).arg(&tree))?;
    let mut tar = Command::new("tar");
    tar.args(["--create", "--sort=name", "--owner=0", "--group=0", "--numeric-owner", "--mode=u=rwX,go=rX"]);
    // Without the time and the name that gzip puts into its header.
    tar.arg(format!("--mtime=@{}", dist.epoch)).arg("--use-compress-program=gzip -n");
    tar.arg("--file").arg(dist.output.join(format!("{name}.tar.gz"))).arg("--directory").arg(&dist.stage).arg(&name);
    command::run(&mut tar)
}
