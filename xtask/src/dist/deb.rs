//! The `.deb`, made by cargo-deb from `package.metadata.deb` of `overlay-user`.

use std::process::Command;

use super::Dist;
use crate::command::{self, cargo, run_quietly};

/// The cargo-deb that the project is packaged with.
const VERSION: &str = "3.8.0";

/// Makes the package; `fast`: with little compression.
pub(super) fn build(dist: &Dist, fast: bool) -> anyhow::Result<()> {
    install_cargo_deb()?;
    let mut deb = cargo();
    deb.args(["deb", "--package", "overlay-user", "--no-build", "--no-strip", "--locked", "--output"])
        .arg(&dist.output);
    if fast {
        deb.arg("--fast");
    }
    command::run(deb.env("CARGO_TARGET_DIR", &dist.stage).env("SOURCE_DATE_EPOCH", &dist.epoch))
}

/// Installs cargo-deb beside cargo's other programs, unless this version is there. Not a part of setup, for nothing but
/// packaging needs it.
fn install_cargo_deb() -> anyhow::Result<()> {
    let installed = Command::new(command::cargo_path()).args(["deb", "--version"]).output();
    if installed.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).trim() == format!("cargo-deb {VERSION}")) {
        return Ok(());
    }
    println!("dist: installing cargo-deb {VERSION}, which makes the .deb (a minute or two to build)");
    run_quietly(cargo().args(["install", "cargo-deb", "--version", VERSION, "--locked", "--force"]))
}
