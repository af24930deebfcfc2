//! [`Machine`]: a copy of this machine with systemd as its first process, in namespaces. What is installed or written
//! there lies in a layer above this machine's files, and goes with it.
//!
//! ```text
//! /            overlayfs: this machine's files, and above them a tmpfs that takes every change
//! /run, /tmp   empty tmpfs; /dev a few devices; /sys and /proc/sys read-only but for the network
//! network      a namespace with eth0, 192.168.50.1/24
//! ```

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};
use nix::mount::{MsFlags, mount};
use overlay_tests::{
    cgroup::remove_tree,
    netns::Netns,
    process::{self, Process, wait_for, wait_until},
    sandbox,
};

/// How long systemd, or a service, may take to come up before that counts as a failure.
const LIMIT: Duration = Duration::from_secs(30);

/// The underlay interface.
pub(crate) const UNDERLAY_DEVICE: &str = "eth0";

/// Where programs are looked for.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A running machine. Everything of it ends when this is dropped.
pub(crate) struct Machine {
    systemd: Process,
    first: u32,
    netns: Netns,
    /// Keeps the other end of the underlay interface.
    _underlay: Netns,
    layer: PathBuf,
    root: PathBuf,
    /// Below the processes, for they have to be gone before it can.
    _cgroup: Cgroup,
}

impl Machine {
    /// Boots a machine on which nothing runs. Must be called in a sandbox.
    pub(crate) fn boot() -> Result<Self> {
        let directory = sandbox::scratch().join("machine");
        let (layer, root) = (directory.join("layer"), directory.join("root"));
        for path in [&layer, &directory.join("work"), &root] {
            fs::create_dir_all(path).with_context(|| format!("create {}", path.display()))?;
        }
        let options = format!("lowerdir=/,upperdir={},workdir={}", layer.display(), directory.join("work").display());
        mount_at("overlay", &root, Some(&options))?;
        for path in ["run", "tmp"] {
            mount_at("tmpfs", &root.join(path), Some("mode=0755"))?;
        }
        devices(&root)?;
        // What a machine does with its hardware and its kernel parameters when it boots would be done to this one's.
        for directory in ["usr/lib", "etc"] {
            let wants = root.join(directory).join("systemd/system/sysinit.target.wants");
            if wants.exists() {
                mount_at("tmpfs", &wants, None)?;
            }
        }
        write(&root, "etc/systemd/system/bare.target", "[Unit]\nDefaultDependencies=no\n")?;

        let (netns, underlay) = (Netns::new()?, Netns::new()?);
        netns.veth(UNDERLAY_DEVICE, &underlay, "port", 1500)?;
        netns.ip(&format!("address add 192.168.50.1/24 dev {UNDERLAY_DEVICE}"))?;
        let cgroup = Cgroup::new(&directory)?;
        let (systemd, first) = boot_systemd(&netns, &cgroup, &root, &directory.join("console"))?;
        let machine = Self { systemd, first, netns, _underlay: underlay, layer, root, _cgroup: cgroup };
        machine.wait_booted()?;
        Ok(machine)
    }

    fn wait_booted(&self) -> Result<()> {
        // The socket is there a moment before it answers.
        let up = || self.shell("systemctl is-system-running").is_ok_and(|state| state.trim() == "running");
        wait_until("systemd to be up", LIMIT, up).with_context(|| self.systemd.tail())
    }

    /// The machine's network.
    pub(crate) fn netns(&self) -> &Netns {
        &self.netns
    }

    /// Where this process finds a file of the machine's, `/run` included.
    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// Runs a line of shell on the machine, as its administrator would, and returns what it prints.
    ///
    /// # Errors
    /// When it fails: what it said.
    pub(crate) fn shell(&self, line: &str) -> Result<String> {
        let mut command = process::command("nsenter");
        command.arg("--target").arg(self.first.to_string()).args(["--all", "--root", "--wd", "sh", "-c", line]);
        process::output(command.env_clear().env("PATH", PATH))
    }

    /// What systemd has said so far, and the services that write there.
    pub(crate) fn console(&self) -> String {
        self.systemd.tail()
    }

    /// The id that a process of the machine's has in this process's eyes.
    pub(crate) fn outside(&self, inside: u32) -> Result<u32> {
        // The last number of NSpid is the one in the innermost namespace.
        let is = |pid: &u32| {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let ids = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap_or_default();
            ids.split_whitespace().nth(1).and_then(|id| id.parse().ok()) == Some(inside)
                && fs::read_link(format!("/proc/{pid}/ns/pid")).ok()
                    == fs::read_link(format!("/proc/{}/ns/pid", self.first)).ok()
        };
        let pids = fs::read_dir("/proc")?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        { pids }.find(is).with_context(|| format!("find process {inside} of the machine"))
    }

    /// Writes a file of the machine's.
    pub(crate) fn write(&self, path: &str, text: &str) -> Result<()> {
        write(&self.root, path.trim_start_matches('/'), text)
    }

    /// What there is that an overlay network could leave behind, one item a line: changed and new files (but for the
    /// package manager's records), what is in `/run`, mounts, devices, addresses, routes and netfilter rules.
    pub(crate) fn traces(&self) -> Result<BTreeSet<String>> {
        let mut traces = BTreeSet::new();
        list(&self.layer, &self.layer, &mut traces)?;
        let commands = [
            // What systemd itself notes there comes and goes.
            "find /run -path /run/systemd -prune -o -print",
            "awk '{ print $2, $3 }' /proc/mounts",
            "ip -o link | cut -d' ' -f2",
            "ip -o address | cut -d' ' -f2-7",
            "ip route",
            "nft list ruleset",
            "ls /etc/systemd/system/*",
        ];
        for command in commands {
            traces.extend(self.shell(command)?.lines().map(|line| format!("{command}: {line}")));
        }
        let kept = ["/var/lib/dpkg/", "/var/lib/apt/", "/var/log/", "/var/cache/"];
        traces.retain(|trace| !kept.iter().any(|path| trace.contains(path)));
        Ok(traces)
    }
}

/// Starts systemd; returns the process that ends with it, and its own process id.
fn boot_systemd(netns: &Netns, cgroup: &Cgroup, root: &Path, console: &Path) -> Result<(Process, u32)> {
    let mut command = netns.command("sh");
    // Into the control group before the namespace is made whose root it becomes. Then systemd's own mounts.
    let outer = r#"echo $$ > "$1/cgroup.procs"
exec unshare --mount --pid --ipc --uts --cgroup --fork --kill-child --root="$2" --mount-proc sh -c "$3""#;
    // Of the kernel's parameters only those of the network are the machine's own.
    let inner = "mount -t sysfs -o ro sysfs /sys && mount -t cgroup2 cgroup2 /sys/fs/cgroup && \
                 mount --bind /proc/sys /proc/sys && mount --bind /proc/sys/net /proc/sys/net && \
                 mount -o remount,bind,ro /proc/sys && \
                 exec /lib/systemd/systemd --system --unit=bare.target --log-target=console --log-level=notice";
    command.args(["-c", outer, "sh"]).arg(&cgroup.path).arg(root).arg(inner);
    command.env_clear().envs([("container", "test"), ("PATH", PATH)]);
    let mut systemd = Process::spawn("systemd", command, console)?;
    let children = format!("/proc/{0}/task/{0}/children", systemd.pid());
    let first = systemd.wait_ready("its first process", LIMIT, || {
        let children = fs::read_to_string(&children).unwrap_or_default();
        Ok(children.split_whitespace().next().and_then(|pid| pid.parse().ok()))
    })?;
    Ok((systemd, first))
}

/// The devices that programs expect, in a `/dev` of its own.
fn devices(root: &Path) -> Result<()> {
    let dev = root.join("dev");
    mount_at("tmpfs", &dev, Some("mode=0755"))?;
    fs::create_dir(dev.join("net"))?;
    for name in ["null", "zero", "full", "random", "urandom", "tty", "net/tun"] {
        let (theirs, ours) = (Path::new("/dev").join(name), dev.join(name));
        fs::write(&ours, "")?;
        mount(Some(&theirs), &ours, None::<&str>, MsFlags::MS_BIND, None::<&str>)
            .with_context(|| format!("bind {}", theirs.display()))?;
    }
    Ok(())
}

fn mount_at(kind: &str, path: &Path, options: Option<&str>) -> Result<()> {
    mount(Some(kind), path, Some(kind), MsFlags::empty(), options)
        .with_context(|| format!("mount {kind} on {}", path.display()))
}

fn write(root: &Path, path: &str, text: &str) -> Result<()> {
    let path = root.join(path);
    fs::create_dir_all(path.parent().context("a file has a directory")?)?;
    fs::write(&path, text).with_context(|| format!("write {}", path.display()))
}

/// Adds every file below `directory`, by its path below `top`, with its size; a deleted one shows as a device.
fn list(top: &Path, directory: &Path, files: &mut BTreeSet<String>) -> Result<()> {
    for entry in fs::read_dir(directory).with_context(|| format!("list {}", directory.display()))? {
        let path = entry?.path();
        let kind = path.symlink_metadata()?;
        if kind.is_dir() {
            list(top, &path, files)?;
        } else {
            files.insert(format!("/{} {:?} {}", path.strip_prefix(top)?.display(), kind.file_type(), kind.len()));
        }
    }
    Ok(())
}

/// A control group that systemd takes for the root of all. The one thing of a machine's that lies in no namespace.
struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    fn new(directory: &Path) -> Result<Self> {
        let all = directory.join("cgroup");
        fs::create_dir(&all)?;
        mount_at("cgroup2", &all, None)?;
        let path = all.join(format!("overlay-tests-{}-systemd", std::process::id()));
        // A run that was killed has left it behind. One that lives keeps it, and then there cannot be a second.
        remove_tree(&path).ok();
        fs::create_dir(&path).with_context(|| format!("create {}", path.display()))?;
        Ok(Self { path })
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let gone = || Ok(remove_tree(&self.path).is_ok().then_some(()));
        if let Err(error) = wait_for("the control groups to be empty", LIMIT, gone) {
            eprintln!("{error:#}: {}", self.path.display());
        }
    }
}
