//! Compiles `overlay-ebpf` and leaves the object in `OUT_DIR` for the loader to embed.

fn main() -> anyhow::Result<()> {
    // SAFETY: a build script is single-threaded here.
    unsafe { std::env::set_var("RUSTC_BOOTSTRAP", "1") };
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../overlay-ebpf");
    println!("cargo:rerun-if-changed={}/../overlay-common", env!("CARGO_MANIFEST_DIR"));
    aya_build::build_ebpf(
        [aya_build::Package { name: "overlay-ebpf", root_dir: root, ..Default::default() }],
        aya_build::Toolchain::Custom("overlay-ebpf"),
    )
}
