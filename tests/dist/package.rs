//! [`Packages`]: what `cargo xtask dist` makes.

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use overlay_tests::{cluster::agent_program, process::output};

/// The directory with the packages.
pub(crate) struct Packages(PathBuf);

impl Packages {
    /// Makes them anew. `cargo xtask` lies beside the agent.
    pub(crate) fn build(arguments: &[&OsStr]) -> Self {
        let xtask = agent_program().unwrap().with_file_name("xtask");
        let status = Command::new(xtask).arg("dist").args(arguments).status().unwrap();
        assert!(status.success(), "cargo xtask dist: {status}");
        Self(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../target/dist")).canonicalize().unwrap())
    }

    /// The one package whose name ends in `extension`.
    pub(crate) fn file(&self, extension: &str) -> PathBuf {
        let files = fs::read_dir(&self.0).unwrap().map(|entry| entry.unwrap().path());
        let mut found = files.filter(|path| path.to_str().is_some_and(|path| path.ends_with(extension)));
        let file = found.next().unwrap_or_else(|| panic!("no {extension} in {}", self.0.display()));
        assert_eq!(found.next(), None);
        file
    }

    /// The check sums, when they are right.
    pub(crate) fn sums(&self) -> String {
        output(Command::new("sha256sum").args(["--check", "--strict", "SHA256SUMS"]).current_dir(&self.0)).unwrap();
        fs::read_to_string(self.0.join("SHA256SUMS")).unwrap()
    }

    /// The files in the `.tar.gz`, below its one directory.
    pub(crate) fn archived(&self) -> Vec<String> {
        let list = output(Command::new("tar").arg("--list").arg("--file").arg(self.file(".tar.gz"))).unwrap();
        list.lines().filter_map(|path| Some(path.split_once('/')?.1.to_owned())).collect()
    }
}
