//! `cargo xtask dist`: the agent as files to hand out, in `target/dist`: a `.tar.gz`, a `.deb` and their check sums.
//!
//! The release program is linked with the C library inside, so that one file runs on any distribution. With glibc, for
//! no other C library's `std` comes with Debian's or a bare rustup's toolchain. What is known to go wrong in a static
//! glibc is name resolution, which loads NSS modules; but `files` and `dns` are inside since glibc 2.34, and where
//! `nsswitch.conf` names others as well, those that cannot be loaded are passed over. `--long` tests show it: host names
//! of etcd are resolved in a root with no library at all.

mod deb;
mod tarball;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, bail};

use crate::{
    command::{self, cargo, step},
    setup,
};

/// What to hand out.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Package this program, whatever libraries it needs, instead of building one; for tests of the packages
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
}

/// What the packages are made of, and where they go.
struct Dist {
    /// `target/dist`, where only packages are.
    output: PathBuf,
    /// Laid out as a target directory, with the stripped program in it.
    stage: PathBuf,
    /// Seconds since 1970 that every file in a package carries: the same commit makes the same bytes.
    epoch: String,
}

impl Dist {
    /// The program to package.
    fn program(&self) -> PathBuf {
        self.stage.join("release/overlay")
    }

    /// Where the program writes its shell completions and manual pages.
    fn documents(&self) -> PathBuf {
        self.stage.join("release/documents")
    }
}

/// Builds the program and the packages.
///
/// # Errors
///
/// The step that failed; or a release program that needs libraries.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    setup::run()?;
    let target = command::workspace().join("target").canonicalize().context("find the target directory")?;
    let dist = Dist { output: target.join("dist"), stage: target.join("dist-stage"), epoch: epoch() };
    for directory in [&dist.output, &dist.stage] {
        if directory.exists() {
            fs::remove_dir_all(directory).with_context(|| format!("empty {}", directory.display()))?;
        }
    }
    for directory in [&dist.output, &dist.stage.join("release")] {
        fs::create_dir_all(directory).with_context(|| format!("create {}", directory.display()))?;
    }
    let built = options.program.clone().map_or_else(|| build_release(&target), Ok)?;
    step("strip", || command::run(Command::new("strip").arg("-o").arg(dist.program()).arg(&built)))?;
    step("completions and manual pages", || {
        command::run(Command::new(dist.program()).arg("documents").arg(dist.documents()))?;
        // As Debian wants them; without name and time, so that the bytes depend on the contents alone.
        command::run(
            Command::new("gzip").args(["--best", "--no-name", "--recursive"]).arg(dist.documents().join("man")),
        )
    })?;
    step("tar.gz", || tarball::build(&dist))?;
    step("deb", || deb::build(&dist, options.program.is_some()))?;
    summarize(&dist, options.program.is_some())
}

fn build_release(target: &Path) -> anyhow::Result<PathBuf> {
    let triple = host()?;
    println!("dist: building for release and linking statically; that takes minutes the first time");
    step("build, release", || {
        let mut build = cargo();
        // By target, for build scripts and procedural macros have to stay dynamic.
        build.args(["build", "--locked", "--release", "--package", "overlay-user", "--bin", "overlay"]);
        build.args(["--target", &triple]);
        let variable = format!("CARGO_TARGET_{}_RUSTFLAGS", triple.to_uppercase().replace('-', "_"));
        // A RUSTFLAGS of the caller's would win.
        command::run(build.env(variable, "-Ctarget-feature=+crt-static").env_remove("RUSTFLAGS"))
    })?;
    Ok(target.join(triple).join("release/overlay"))
}

/// The machine's target triple, as its compiler names it.
fn host() -> anyhow::Result<String> {
    let rustc =
        Command::new(command::cargo_path().with_file_name("rustc")).arg("-vV").output().context("start rustc")?;
    let said = String::from_utf8_lossy(&rustc.stdout);
    let host = said.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc does not say what it compiles for")?.to_owned())
}

/// The time of the commit, or that of nothing where this is no git repository.
fn epoch() -> String {
    let mut git = Command::new("git");
    git.args(["log", "-1", "--format=%ct"]).current_dir(command::workspace()).stderr(Stdio::null());
    let output = git.output().ok().filter(|output| output.status.success());
    output.map_or_else(|| "0".to_owned(), |output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Writes the check sums and prints what came out.
fn summarize(dist: &Dist, dynamic: bool) -> anyhow::Result<()> {
    let mut packages: Vec<_> = fs::read_dir(&dist.output)
        .and_then(|entries| entries.map(|entry| Ok(entry?.file_name())).collect::<std::io::Result<_>>())
        .with_context(|| format!("list {}", dist.output.display()))?;
    packages.sort();
    let sums =
        Command::new("sha256sum").args(&packages).current_dir(&dist.output).output().context("start sha256sum")?;
    fs::write(dist.output.join("SHA256SUMS"), sums.stdout).context("write SHA256SUMS")?;
    let libraries = Command::new("ldd").arg(dist.program()).output().context("start ldd")?;
    let said = [libraries.stdout, libraries.stderr].concat();
    let said = String::from_utf8_lossy(&said).trim().replace("\n\t", "; ");
    for file in [dist.program()].into_iter().chain(packages.iter().map(|name| dist.output.join(name))) {
        let bytes = fs::metadata(&file).with_context(|| format!("look at {}", file.display()))?.len();
        println!("dist: {:5.1} MiB  {}", bytes as f64 / f64::from(1 << 20), file.display());
    }
    println!("dist: ldd says: {said}");
    if !dynamic && !["statically linked", "not a dynamic executable"].iter().any(|words| said.contains(words)) {
        bail!("the release program needs libraries: {said}");
    }
    Ok(())
}
