//! Packs the tests, the agent and what they call into a file system that a kernel unpacks into memory.

use std::{
    env, fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context as _;

use super::{SUITES, compile, fetch::Image, list};
use crate::command::{run_quietly, stdout};

/// What runs inside as process 1.
pub(super) const INIT: &str = include_str!("init.sh");

/// The busybox that needs no library.
const BUSYBOX: &str = "/usr/bin/busybox";

/// Programs that agent and tests call, and that busybox has not or has with less in it.
const PROGRAMS: [&str; 9] = ["ip", "nft", "tc", "bridge", "ethtool", "ping", "nsenter", "unshare", "etcd"];

/// Directories of modules with all that a network of containers needs.
const MODULES: [&str; 4] = ["net", "drivers/net", "lib", "crypto"];

/// Files that programs read at run time, as they are on this machine.
const CONFIGURATION: [&str; 2] = ["/etc/protocols", "/etc/services"];

/// Libraries that programs load when they need them, and that `ldd` therefore does not know of.
const LOADED_LATER: [&str; 2] = ["libnss_files.so.2", "libgcc_s.so.1"];

/// Builds it anew, for tests and agent may have changed, and returns its path.
pub(super) fn build(directory: &Path, image: &Image) -> anyhow::Result<PathBuf> {
    let root = Root { path: directory.join("initramfs") };
    if root.path.exists() {
        fs::remove_dir_all(&root.path).with_context(|| format!("remove {}", root.path.display()))?;
    }
    for path in ["bin", "sbin", "usr/bin", "usr/sbin", "proc", "sys", "dev", "run", "tmp", "etc", "root", "var/tmp"] {
        root.directory(path)?;
    }
    root.modules(image)?;
    root.busybox()?;
    for name in PROGRAMS {
        let program = find_program(name)?;
        root.program(&program, program.to_string_lossy().trim_start_matches('/'))?;
    }
    root.compiled(&compile::agent()?, "usr/bin/overlay")?;
    for suite in &SUITES {
        root.compiled(&compile::test(suite.target)?, &format!("tests/{}", suite.target))?;
    }
    root.write("tests/list", &list())?;
    root.configuration()?;
    root.write("init", INIT)?;
    run_quietly(Command::new("chmod").arg("755").arg(root.path.join("init")))?;
    root.pack(&directory.join("initramfs.cpio"))
}

/// The root directory of the emulated machine. Paths in it are without the leading slash.
struct Root {
    path: PathBuf,
}

impl Root {
    fn directory(&self, path: &str) -> anyhow::Result<()> {
        fs::create_dir_all(self.path.join(path)).with_context(|| format!("create {path} in {}", self.path.display()))
    }

    fn write(&self, path: &str, text: &str) -> anyhow::Result<()> {
        fs::write(self.path.join(path), text).with_context(|| format!("write {path} in {}", self.path.display()))
    }

    fn copy(&self, from: &Path, to: &str) -> anyhow::Result<()> {
        if let Some((parent, _)) = to.rsplit_once('/') {
            self.directory(parent)?;
        }
        fs::copy(from, self.path.join(to)).with_context(|| format!("copy {} to {to}", from.display()))?;
        Ok(())
    }

    /// Copies a program, and the libraries it needs to where it looks for them.
    fn program(&self, program: &Path, to: &str) -> anyhow::Result<()> {
        // It fails for a static program, which needs none.
        let ldd = Command::new("ldd").arg(program).output().context("start `ldd`")?;
        for library in libraries(&String::from_utf8_lossy(&ldd.stdout)) {
            self.copy(Path::new(library), library.trim_start_matches('/'))?;
        }
        self.copy(program, to)
    }

    /// The same for one of ours: most of it is debug information, and memory is scarce.
    fn compiled(&self, program: &Path, to: &str) -> anyhow::Result<()> {
        self.program(program, to)?;
        run_quietly(Command::new("strip").arg(self.path.join(to)))
    }

    fn modules(&self, image: &Image) -> anyhow::Result<()> {
        let modules = format!("lib/modules/{}", image.release);
        for part in MODULES {
            let to = format!("{modules}/kernel/{part}");
            self.directory(&to)?;
            let from = image.modules.join("kernel").join(part);
            run_quietly(Command::new("cp").arg("-rT").arg(from).arg(self.path.join(to)))?;
        }
        for list in ["modules.builtin", "modules.order"] {
            self.copy(&image.modules.join(list), &format!("{modules}/{list}"))?;
        }
        // Neither depmod nor modprobe of busybox reads compressed modules.
        let mut unpack = Command::new("find");
        unpack.arg(self.path.join(&modules)).args(["-name", "*.ko.xz", "-exec", BUSYBOX, "unxz", "{}", "+"]);
        run_quietly(&mut unpack)?;
        run_quietly(Command::new(BUSYBOX).args(["depmod", "-b"]).arg(&self.path).arg(&image.release))
    }

    fn busybox(&self) -> anyhow::Result<()> {
        self.copy(Path::new(BUSYBOX), "bin/busybox")?;
        let applets = stdout(Command::new(BUSYBOX).arg("--list"))?;
        for name in applets.lines().filter(|name| *name != "busybox" && !PROGRAMS.contains(name)) {
            self.link(&format!("bin/{name}"))?;
        }
        // The kernel calls it by this path.
        self.link("sbin/modprobe")
    }

    /// Makes a path a name of busybox.
    fn link(&self, path: &str) -> anyhow::Result<()> {
        symlink("/bin/busybox", self.path.join(path)).with_context(|| format!("link {path}"))
    }

    fn configuration(&self) -> anyhow::Result<()> {
        self.write("etc/passwd", "root:x:0:0::/root:/bin/sh\n")?;
        self.write("etc/hosts", "127.0.0.1 localhost\n")?;
        for path in CONFIGURATION {
            self.copy(Path::new(path), path.trim_start_matches('/'))?;
        }
        for name in LOADED_LATER {
            let library = Path::new("/lib/x86_64-linux-gnu").join(name);
            self.copy(&library, library.to_string_lossy().trim_start_matches('/'))?;
        }
        Ok(())
    }

    fn pack(&self, archive: &Path) -> anyhow::Result<PathBuf> {
        let pack = format!("find . | {BUSYBOX} cpio -o -H newc > '{}'", archive.display());
        run_quietly(Command::new("sh").args(["-c", &pack]).current_dir(&self.path))?;
        Ok(archive.to_owned())
    }
}

/// The files that `ldd` names. The kernel's own, which has no file, is without a path.
fn libraries(ldd: &str) -> impl Iterator<Item = &str> {
    ldd.split_whitespace().filter(|word| word.starts_with('/'))
}

/// Where a program of this machine is, as the shell finds it, or root's shell.
fn find_program(name: &str) -> anyhow::Result<PathBuf> {
    let path = env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    let mut candidates = env::split_paths(&path).map(|directory| directory.join(name));
    candidates.find(|path| path.is_file()).with_context(|| format!("find `{name}`: run `cargo xtask setup`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_found_wherever_ldd_names_a_file() {
        let ldd = "\tlinux-vdso.so.1 (0x00007f)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)\n\
                   \t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        let found: Vec<_> = libraries(ldd).collect();
        assert_eq!(found, ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"]);
    }
}
