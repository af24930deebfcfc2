//! Compiles `overlay-ebpf` and leaves the object in `OUT_DIR` for the loader to embed.
//!
//! What aya-build does, but for the toolchain that `cargo xtask` finds and checks with as well; and of the inner cargo
//! only what matters is shown, where aya-build turns each line of its progress into a warning.

#[path = "../xtask/src/toolchain.rs"]
mod toolchain;

use std::{env, path::PathBuf, process::ExitCode};

use toolchain::Toolchain;

fn main() -> ExitCode {
    // The programs, the types they share with this crate, the profile and the versions they are compiled with.
    for path in ["../overlay-ebpf", "../overlay-common", "../Cargo.toml", "../Cargo.lock"] {
        println!("cargo::rerun-if-changed={path}");
    }
    let compiled = toolchain::find()
        .map_err(|missing| format!("{missing}; run `cargo xtask setup`"))
        .and_then(|toolchain| compile(&toolchain).map_err(|error| format!("start rustup: {error}")));
    match compiled {
        Ok(true) => ExitCode::SUCCESS,
        // Cargo prints what the compiler has said.
        Ok(false) => ExitCode::FAILURE,
        // Cargo prints this line; and nothing else, if the script itself succeeds.
        Err(error) => {
            println!("cargo::error=cannot compile the eBPF programs: {error}");
            ExitCode::SUCCESS
        }
    }
}

/// Compiles the programs with a cargo of their own, whose warnings become ours. Returns whether they did compile.
fn compile(toolchain: &Toolchain) -> std::io::Result<bool> {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let mut cargo = toolchain.cargo("build");
    // A target directory of its own, for the outer cargo holds the lock of the other.
    cargo.arg("--quiet").arg("--target-dir").arg(out.join("ebpf"));
    cargo.args(["-Z", "unstable-options", "--artifact-dir"]).arg(&out);
    let output = cargo.output()?;
    let messages = String::from_utf8_lossy(&output.stderr);
    if output.status.success() {
        messages.lines().for_each(|line| println!("cargo::warning={line}"));
    } else {
        eprintln!("{messages}");
    }
    Ok(output.status.success())
}
