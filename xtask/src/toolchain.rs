//! Finds the toolchain that compiles `overlay-ebpf`, and a `bpf-linker` built with the same LLVM.
//!
//! `overlay-user`'s build script includes this file too, so that `cargo build` and `cargo xtask` always agree.
//! Hence `std` only, and nothing here that one of the two does not use.
//!
//! The programs need `core` compiled for a BPF target, thus a rustc whose sysroot holds the library's source:
//! a rustup nightly with the component `rust-src`, or Debian's packages `rustc-web` and `rust-web-src` under `/usr`.

use std::{
    env, fmt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// The oldest rustc that compiles the workspace: `rust-version` of the package that includes this file.
const OLDEST_RUSTC: &str = env!("CARGO_PKG_RUST_VERSION");

/// The sysroot of Debian's rustc. `rustup run` takes a path in place of a name, so no link is needed.
pub(crate) const DEBIAN_SYSROOT: &str = "/usr";

/// The linker for BPF targets, which rustc looks up in `PATH`.
pub(crate) const LINKER: &str = "bpf-linker";

/// A rustc that can compile `core`, and so the eBPF programs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Toolchain {
    /// What `rustup run` calls it: a toolchain's name, or the path of its sysroot.
    pub(crate) name: String,
    /// Major version of the LLVM inside this rustc. `bpf-linker` must have the same.
    pub(crate) llvm: u32,
}

/// What keeps the eBPF programs from being compiled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Missing {
    /// No rustc that is new enough has the source of `core`.
    Rustc,
    /// There is a rustc, but no `bpf-linker` for it. `found` is the LLVM of the one that is installed.
    Linker { toolchain: Toolchain, found: Option<u32> },
}

impl Toolchain {
    /// A command of cargo on the eBPF programs, as they are compiled for BPF.
    pub(crate) fn cargo(&self, subcommand: &str) -> Command {
        let target = if cfg!(target_endian = "big") { "bpfeb-unknown-none" } else { "bpfel-unknown-none" };
        let mut cargo = Command::new("rustup");
        cargo.args(["run", &self.name, "cargo", subcommand, "--package", "overlay-ebpf", "--bins", "--release"]);
        cargo.args(["--target", target, "-Z", "build-std=core"]);
        // Debian's rustc is a stable one, which takes `-Z` only so. A nightly does not mind.
        cargo.env("RUSTC_BOOTSTRAP", "1");
        // Which registers the context of a probe has; line information in the programs; types in the object.
        let arch = env::consts::ARCH;
        cargo.env("RUSTFLAGS", format!("--cfg=bpf_target_arch=\"{arch}\" -Cdebuginfo=2 -Clink-arg=--btf"));
        // Under another cargo these name the compiler of that one, and its flags.
        for variable in ["RUSTC", "RUSTDOC", "RUSTC_WORKSPACE_WRAPPER", "CARGO_ENCODED_RUSTFLAGS"] {
            cargo.env_remove(variable);
        }
        cargo
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rustc => write!(f, "no rustc {OLDEST_RUSTC} or later with the source of core is installed"),
            Self::Linker { toolchain: Toolchain { name, llvm }, found: None } => {
                write!(f, "the rustc of {name} needs a {LINKER} with LLVM {llvm}, and PATH has none that starts")
            }
            Self::Linker { toolchain: Toolchain { name, llvm }, found: Some(found) } => {
                write!(f, "the rustc of {name} has LLVM {llvm}, but the {LINKER} in PATH has LLVM {found}")
            }
        }
    }
}

/// Finds the toolchain to compile the eBPF programs with.
///
/// # Errors
///
/// Says which part is missing: the compiler, or the linker that fits it.
pub(crate) fn find() -> Result<Toolchain, Missing> {
    choose(&candidates(), linker_llvm())
}

/// The toolchains that could compile the programs, the preferred one first: nightlies, then Debian's.
fn candidates() -> Vec<Toolchain> {
    let list = stdout(Command::new("rustup").args(["toolchain", "list", "-v"])).unwrap_or_default();
    let mut candidates: Vec<_> = nightlies(&list).filter_map(|(name, sysroot)| inspect(name, sysroot)).collect();
    candidates.extend(inspect(DEBIAN_SYSROOT, Path::new(DEBIAN_SYSROOT)));
    candidates
}

/// Takes the first toolchain that the linker fits.
fn choose(candidates: &[Toolchain], linker: Option<u32>) -> Result<Toolchain, Missing> {
    if let Some(toolchain) = candidates.iter().find(|toolchain| Some(toolchain.llvm) == linker) {
        return Ok(toolchain.clone());
    }
    // Debian's comes last, and Debian has the LLVM libraries to build a linker for it.
    let toolchain = candidates.last().ok_or(Missing::Rustc)?.clone();
    Err(Missing::Linker { toolchain, found: linker })
}

/// Names and sysroots of the nightlies in what `rustup toolchain list -v` prints, in its order.
fn nightlies(list: &str) -> impl Iterator<Item = (&str, &Path)> {
    list.lines().filter(|line| line.starts_with("nightly")).filter_map(|line| {
        let name = line.split_whitespace().next()?;
        let sysroot = &line[line.find('/')?..];
        Some((name, Path::new(sysroot)))
    })
}

/// Looks at one sysroot: `None` unless its rustc is new enough and the library's source is there.
fn inspect(name: &str, sysroot: &Path) -> Option<Toolchain> {
    if !sysroot.join("lib/rustlib/src/rust/library").is_dir() {
        return None;
    }
    let version = stdout(Command::new(sysroot.join("bin/rustc")).arg("-vV"))?;
    Some(Toolchain { name: name.to_owned(), llvm: llvm_of_rustc(&version)? })
}

/// LLVM's major version in what `rustc -vV` prints; `None` for a rustc that is too old for the workspace.
fn llvm_of_rustc(version: &str) -> Option<u32> {
    let field = |name| version.lines().find_map(|line| line.strip_prefix(name));
    let (release, oldest) = (major_minor(field("release: ")?)?, major_minor(OLDEST_RUSTC)?);
    let (llvm, _) = major_minor(field("LLVM version: ")?)?;
    (release >= oldest).then_some(llvm)
}

/// The first two numbers of a version such as `1.97.0-nightly`.
fn major_minor(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// Major version of the LLVM in the `bpf-linker` that rustc would find; `None` if there is none that can start.
fn linker_llvm() -> Option<u32> {
    let linker = in_path(LINKER)?;
    match stdout(Command::new("ldd").arg(&linker)) {
        Some(libraries) if libraries.contains("libLLVM") => llvm_of_libraries(&libraries),
        // Linked statically: LLVM writes its version into each bitcode file, so the string is in the executable.
        _ => {
            let mut grep = Command::new("grep");
            grep.args(["-aoEm1", "LLVM[0-9]+[.][0-9]+[.][0-9]+"]).arg(&linker).env("LC_ALL", "C");
            leading_number(stdout(&mut grep)?.strip_prefix("LLVM")?)
        }
    }
}

/// LLVM's major version in the libraries that `ldd` lists; `None` if one of them is not there.
fn llvm_of_libraries(libraries: &str) -> Option<u32> {
    if libraries.contains("not found") {
        return None;
    }
    let (_, rest) = libraries.split_once("libLLVM")?;
    leading_number(rest.trim_start_matches(|c: char| !c.is_ascii_digit()))
}

/// The decimal number that a text starts with.
fn leading_number(text: &str) -> Option<u32> {
    text.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// The program of this name that a child process would run.
fn in_path(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|directory| directory.join(program)).find(|file| file.is_file())
}

/// What a command prints, or `None` if it cannot be run or fails.
fn stdout(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).output().ok().filter(|output| output.status.success())?;
    String::from_utf8(output.stdout).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn toolchain(name: &str, llvm: u32) -> Toolchain {
        Toolchain { name: name.to_owned(), llvm }
    }

    #[test]
    fn the_nightly_is_preferred_when_the_linker_fits_both() {
        let candidates = [toolchain("nightly-x86_64", 30), toolchain(DEBIAN_SYSROOT, 30)];
        assert_eq!(choose(&candidates, Some(30)), Ok(candidates[0].clone()));
    }

    #[test]
    fn a_nightly_that_the_linker_does_not_fit_gives_way_to_debian() {
        let candidates = [toolchain("nightly-x86_64", 31), toolchain(DEBIAN_SYSROOT, 30)];
        assert_eq!(choose(&candidates, Some(30)), Ok(candidates[1].clone()));
    }

    #[test]
    fn a_linker_for_no_installed_rustc_is_to_be_built_for_debian() {
        let candidates = [toolchain("nightly-x86_64", 31), toolchain(DEBIAN_SYSROOT, 30)];
        for found in [None, Some(29)] {
            let missing = Missing::Linker { toolchain: candidates[1].clone(), found };
            assert_eq!(choose(&candidates, found), Err(missing));
        }
    }

    #[test]
    fn a_linker_without_any_rustc_is_not_enough() {
        assert_eq!(choose(&[], Some(30)), Err(Missing::Rustc));
    }

    #[test]
    fn nightlies_are_read_from_lists_of_old_and_new_rustup() {
        let list = "stable-x86_64-unknown-linux-gnu (active, default) /home/a b/.rustup/toolchains/stable\n\
                    nightly-x86_64-unknown-linux-gnu /home/a b/.rustup/toolchains/nightly\n\
                    nightly-2026-01-01\t(override)\t/opt/nightly-2026\n\
                    my-nightly /opt/own\n";
        let expected = [
            ("nightly-x86_64-unknown-linux-gnu", Path::new("/home/a b/.rustup/toolchains/nightly")),
            ("nightly-2026-01-01", Path::new("/opt/nightly-2026")),
        ];
        assert_eq!(nightlies(list).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn llvm_is_read_from_what_rustc_says() {
        let version = "rustc 1.196.0 (built from a source tarball)\nrelease: 1.196.0-nightly\nLLVM version: 42.1.8\n";
        assert_eq!(llvm_of_rustc(version), Some(42));
        assert_eq!(llvm_of_rustc("release: 1.196.0\n"), None);
    }

    #[test]
    fn a_rustc_older_than_the_workspace_needs_is_passed_over() {
        assert_eq!(llvm_of_rustc("release: 1.63.0\nLLVM version: 42.0.6\n"), None);
        assert_eq!(llvm_of_rustc(&format!("release: {OLDEST_RUSTC}.0\nLLVM version: 42.0.6\n")), Some(42));
    }

    #[test]
    fn llvm_is_read_from_the_name_of_its_library() {
        let cases = [
            ("\tlibLLVM.so.42.1 => /usr/lib/llvm-42/lib/libLLVM.so.42.1 (0x00007f)\n", Some(42)),
            ("\tlibc.so.6 => /lib/libc.so.6\n\tlibLLVM-41.so.1 => /usr/lib/libLLVM-41.so.1\n", Some(41)),
            ("\tlibLLVM.so.42.1 => not found\n", None),
            ("\tlibLLVM.so.42.1 => /usr/lib/libLLVM.so.42.1\n\tlibz3.so.4 => not found\n", None),
        ];
        for (libraries, expected) in cases {
            assert_eq!(llvm_of_libraries(libraries), expected, "{libraries}");
        }
    }

    #[test]
    fn llvm_is_read_from_the_text_in_a_static_linker() {
        assert_eq!(leading_number("42.1.8\n"), Some(42));
        assert_eq!(leading_number("x"), None);
    }
}
