//! Gets a kernel from Debian, by way of whichever mirror this machine uses. Nothing of the machine's own apt is changed.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context as _;

use super::Kernel;
use crate::command::{run_quietly, stdout};

/// A kernel of Debian, unpacked.
pub(super) struct Image {
    /// The compressed kernel.
    pub(super) kernel: PathBuf,
    /// The directory of its modules.
    pub(super) modules: PathBuf,
    /// Its version, as `uname -r` says it.
    pub(super) release: String,
}

/// Downloads and unpacks the kernel into a directory, unless that was done before.
pub(super) fn fetch(kernel: Kernel, directory: &Path) -> anyhow::Result<Image> {
    let root = directory.join("root");
    if !root.exists() {
        let apt = Apt::new(kernel.suite(), directory)?;
        let package = apt.newest(kernel.version())?;
        println!("== download {package} from Debian");
        run_quietly(apt.command("apt-get").args(["download", "-q", &package]).current_dir(directory))?;
        // Under another name until it is whole.
        let unpacked = directory.join("unpacking");
        run_quietly(Command::new("dpkg").arg("-x").arg(downloaded(directory, &package)?).arg(&unpacked))?;
        fs::rename(&unpacked, &root).with_context(|| format!("rename {} to root", unpacked.display()))?;
    }
    let release = only_entry(&root.join("lib/modules"))?;
    Ok(Image {
        kernel: root.join(format!("boot/vmlinuz-{release}")),
        modules: root.join("lib/modules").join(&release),
        release,
    })
}

/// An apt with one suite of Debian and lists of its own.
struct Apt {
    options: Vec<String>,
}

impl Apt {
    fn new(suite: &str, directory: &Path) -> anyhow::Result<Self> {
        let lists = directory.join("lists");
        fs::create_dir_all(lists.join("partial")).with_context(|| format!("create {}", lists.display()))?;
        let mut options = vec![
            format!("Dir::State::lists={}", lists.display()),
            "Dir::Cache::pkgcache=".to_owned(),
            "Dir::Cache::srcpkgcache=".to_owned(),
            // Whoever apt would become instead may not be allowed to write here.
            "APT::Sandbox::User=".to_owned(),
        ];
        let machine = Self { options: options.clone() };
        let sources = directory.join("sources.list");
        let line = format!("deb {} {suite} main\n", machine.mirror()?);
        fs::write(&sources, line).with_context(|| format!("write {}", sources.display()))?;
        options.push(format!("Dir::Etc::sourcelist={}", sources.display()));
        options.push("Dir::Etc::sourceparts=-".to_owned());
        let apt = Self { options };
        apt.update()?;
        Ok(apt)
    }

    fn command(&self, program: &str) -> Command {
        let mut apt = Command::new(program);
        apt.args(self.options.iter().flat_map(|option| ["-o", option]));
        apt
    }

    fn update(&self) -> anyhow::Result<()> {
        run_quietly(self.command("apt-get").args(["update", "-q"]))
    }

    /// Where the sources have Debian from.
    fn mirror(&self) -> anyhow::Result<String> {
        // Which source is Debian, and not its security updates or somebody else's, is known from what it answers.
        self.update()?;
        let mut targets = self.command("apt-get");
        targets.args(["indextargets", "--format", "$(REPO_URI)", "Created-By: Packages", "Label: Debian"]);
        let mirrors = stdout(&mut targets)?;
        let mirror = mirrors.lines().next().context("find a mirror of Debian in apt's sources: add one")?;
        Ok(mirror.to_owned())
    }

    /// The package of the newest kernel of this version.
    fn newest(&self, version: &str) -> anyhow::Result<String> {
        let prefix = format!("linux-image-{version}.");
        let names = stdout(self.command("apt-cache").args(["pkgnames", &prefix]))?;
        let newest = newest(&names).with_context(|| format!("find a package {prefix}*{CLOUD}: apt knows none"))?;
        Ok(newest.to_owned())
    }
}

/// The kernel for virtual machines: the same network, and a tenth of the drivers.
const CLOUD: &str = "-cloud-amd64";

/// The newest of these packages, one a line, in any order.
fn newest(names: &str) -> Option<&str> {
    names.lines().filter(|name| name.ends_with(CLOUD)).max_by_key(|name| numbers(name))
}

/// The numbers in a name, by which 6.1.0-9 is older than 6.1.0-54.
fn numbers(name: &str) -> Vec<u64> {
    name.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse().ok()).collect()
}

/// The file into which a package was downloaded.
fn downloaded(directory: &Path, package: &str) -> anyhow::Result<PathBuf> {
    let entries = fs::read_dir(directory).with_context(|| format!("list {}", directory.display()))?;
    let prefix = format!("{package}_");
    let mut files = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let file = files.find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&prefix)));
    file.with_context(|| format!("find {prefix}*.deb in {}", directory.display()))
}

fn only_entry(directory: &Path) -> anyhow::Result<String> {
    let mut entries = fs::read_dir(directory).with_context(|| format!("list {}", directory.display()))?;
    let entry = entries.next().with_context(|| format!("find a kernel in {}", directory.display()))?;
    let entry = entry.with_context(|| format!("list {}", directory.display()))?;
    Ok(entry.file_name().to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_kernel_is_found_by_its_numbers_among_those_for_virtual_machines() {
        let names = "linux-image-6.1.0-9-cloud-amd64\nlinux-image-6.1.0-54-cloud-amd64\nlinux-image-6.1.0-60-amd64\n\
                     linux-image-6.1.0-60-cloud-amd64-dbg\nlinux-image-6.1.0-10-cloud-amd64\n";
        assert_eq!(newest(names), Some("linux-image-6.1.0-54-cloud-amd64"));
        let backports = "linux-image-6.12.95+deb12-cloud-amd64\nlinux-image-6.12.9+deb12-cloud-amd64\n";
        assert_eq!(newest(backports), Some("linux-image-6.12.95+deb12-cloud-amd64"));
        assert_eq!(newest("linux-image-6.1.0-60-amd64\n"), None);
    }
}
