//! Compiles `overlay-ebpf` and leaves the object in `OUT_DIR` for the loader to embed.

#[path = "../xtask/src/toolchain.rs"]
mod toolchain;

use aya_build::{Package, Toolchain, build_ebpf};

fn main() {
    // Cargo shows the one line, and not everything that this script has printed.
    if let Err(error) = compile() {
        println!("cargo::error={error:#}");
    }
}

fn compile() -> anyhow::Result<()> {
    // Besides the package itself, which aya-build watches: the contract's types, and the profile.
    println!("cargo::rerun-if-changed=../overlay-common");
    println!("cargo::rerun-if-changed=../Cargo.toml");
    println!("cargo::rerun-if-changed=../Cargo.lock");
    let toolchain = toolchain::find()
        .map_err(|missing| anyhow::anyhow!("cannot compile the eBPF programs: {missing}; run `cargo xtask setup`"))?;
    // SAFETY: this process has started no thread yet.
    unsafe {
        // Debian's rustc is a stable one, which takes `-Z build-std` only so. A nightly does not mind.
        std::env::set_var("RUSTC_BOOTSTRAP", "1");
        // aya-build passes on every line of the inner cargo as a warning, progress included.
        std::env::set_var("CARGO_TERM_QUIET", "true");
    }
    let package = Package { name: "overlay-ebpf", root_dir: "../overlay-ebpf", ..Default::default() };
    build_ebpf([package], Toolchain::Custom(&toolchain.name))
}
