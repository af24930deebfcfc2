//! [`Netns`]: network namespaces without a name, and the devices in and between them.
//!
//! A namespace is held by a file descriptor. It is gone, with every device in it, when the last clone is dropped and
//! the last process in it has ended, so also when this process is killed.

mod address;

use std::{
    ffi::OsStr,
    fs::{self, File},
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::process::CommandExt,
    },
    panic,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    thread,
};

use anyhow::{Context, Result, ensure};
use nix::{
    mount::{MsFlags, mount},
    net::if_::if_nametoindex,
    sched::{CloneFlags, setns, unshare},
};

use crate::{process, sandbox};

/// A network namespace without a name. Cloning yields another handle to the same namespace.
#[derive(Debug, Clone)]
pub struct Netns {
    fd: Arc<OwnedFd>,
}

impl Netns {
    /// Makes a network namespace whose loopback is up, and whose devices use their link-local addresses at once instead
    /// of looking for another device with the same for a second.
    ///
    /// # Errors
    ///
    /// When the kernel refuses, as it does without root.
    pub fn new() -> Result<Self> {
        let make = || -> Result<OwnedFd> {
            unshare(CloneFlags::CLONE_NEWNET).context("make a network namespace")?;
            Ok(File::open("/proc/thread-self/ns/net").context("hold the network namespace")?.into())
        };
        let fd = thread::scope(|scope| scope.spawn(make).join()).unwrap_or_else(|panic| panic::resume_unwind(panic))?;
        let netns = Self { fd: Arc::new(fd) };
        netns.sysctl("net.ipv6.conf.default.accept_dad", "0")?;
        netns.ip("link set lo up")?;
        Ok(netns)
    }

    /// The namespace that somebody else has made, by the path of its file, such as `/proc/1/ns/net`.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).with_context(|| format!("hold the network namespace {}", path.display()))?;
        Ok(Self { fd: Arc::new(file.into()) })
    }

    /// Runs `task` on a thread inside the namespace and waits for it.
    ///
    /// Sockets opened there belong to the namespace wherever they are used afterwards. Processes should rather be
    /// started with [`Netns::command`]: they would not outlive the thread. A panic of `task` is a panic of the caller.
    ///
    /// # Panics
    ///
    /// When the namespace cannot be entered, which needs root.
    pub fn run<T: Send>(&self, task: impl FnOnce() -> T + Send) -> T {
        let inside = || {
            self.enter();
            task()
        };
        thread::scope(|scope| scope.spawn(inside).join()).unwrap_or_else(|panic| panic::resume_unwind(panic))
    }

    /// Moves the calling thread into the namespace, for good. For threads that others start, such as a runtime's.
    ///
    /// # Panics
    ///
    /// When the namespace cannot be entered, which needs root.
    pub fn enter(&self) {
        setns(&self.fd, CloneFlags::CLONE_NEWNET).expect("enter a network namespace");
    }

    /// Runs an async `task` on a runtime inside the namespace and waits for it.
    ///
    /// # Panics
    ///
    /// As [`Netns::run`] does, and when no runtime can be made.
    pub fn block_on<T: Send>(&self, task: impl Future<Output = T> + Send) -> T {
        self.run(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("make an async runtime").block_on(task)
        })
    }

    /// A command that runs `program` inside the namespace and dies with the thread that starts it.
    #[must_use]
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = process::command(program);
        let fd = Arc::clone(&self.fd);
        // SAFETY: between fork and exec only `setns` is called, a bare system call on a descriptor that stays open.
        unsafe { command.pre_exec(move || setns(&*fd, CloneFlags::CLONE_NEWNET).map_err(Into::into)) };
        command
    }

    /// Runs iproute2's `ip` with `arguments`, split at white space, and returns what it prints.
    ///
    /// # Errors
    ///
    /// When it cannot be started or fails, with what it said.
    pub fn ip(&self, arguments: &str) -> Result<String> {
        process::output(self.command("ip").args(arguments.split_whitespace()))
    }

    /// The kernel's number of the interface `device`.
    ///
    /// # Errors
    ///
    /// When there is no such device.
    pub fn index_of(&self, device: &str) -> Result<u32> {
        self.run(|| if_nametoindex(device)).with_context(|| format!("look up interface {device}"))
    }

    /// Sets a sysctl below `net.` for this namespace: `sysctl("net.ipv4.ip_forward", "1")`.
    ///
    /// # Errors
    ///
    /// When the kernel has no such setting or refuses the value.
    pub fn sysctl(&self, name: &str, value: &str) -> Result<()> {
        // The kernel resolves /proc/sys/net by the namespace of the thread that opens it.
        let path = format!("/proc/sys/{}", name.replace('.', "/"));
        self.run(|| fs::write(&path, value)).with_context(|| format!("write {value} to {path}"))
    }

    /// Switches offloads of `device`: `offload("eth0", &["tso", "gso"], false)`, names as `ethtool -K` has them.
    ///
    /// # Errors
    ///
    /// When `ethtool` is missing or the device does not have the feature.
    pub fn offload(&self, device: &str, features: &[&str], on: bool) -> Result<()> {
        let state = if on { "on" } else { "off" };
        let pairs = features.iter().flat_map(|feature| [*feature, state]);
        process::output(self.command("ethtool").args(["-K", device]).args(pairs)).map(drop)
    }

    /// Writes `value` to the setting `name` of `device`: `device_setting("eth0", "queues/rx-0/rps_cpus", "1")` is
    /// `/sys/class/net/eth0/queues/rx-0/rps_cpus` as a machine of its own would have it.
    ///
    /// # Errors
    ///
    /// When there is no such device or setting, or the kernel refuses the value.
    pub fn device_setting(&self, device: &str, name: &str, value: &str) -> Result<()> {
        let path = format!("/sys/class/net/{device}/{name}");
        let write = || -> Result<()> {
            // A sysfs shows the devices of the namespace that it was mounted in; this one goes with the thread.
            unshare(CloneFlags::CLONE_NEWNS).context("make a mount namespace")?;
            let none = None::<&str>;
            mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).context("make the mounts private")?;
            mount(Some("sysfs"), "/sys", Some("sysfs"), MsFlags::empty(), none).context("mount a sysfs")?;
            fs::write(&path, value).with_context(|| format!("write {value} to {path}"))
        };
        self.run(write)
    }

    /// Makes the bridge `name` and sets it up.
    ///
    /// # Errors
    ///
    /// When `ip` fails.
    pub fn bridge(&self, name: &str) -> Result<()> {
        self.ip(&format!("link add name {name} type bridge"))?;
        self.ip(&format!("link set dev {name} up")).map(drop)
    }

    /// Connects `device` here with `peer_device` in `peer` by a veth pair of the given MTU, both ends up.
    ///
    /// # Errors
    ///
    /// When `ip` fails, for example because a name is taken.
    pub fn veth(&self, device: &str, peer: &Self, peer_device: &str, mtu: u32) -> Result<()> {
        let peer_path = peer.path();
        self.ip(&format!(
            "link add name {device} mtu {mtu} type veth peer name {peer_device} mtu {mtu} netns {}",
            peer_path.display()
        ))?;
        self.ip(&format!("link set dev {device} up"))?;
        peer.ip(&format!("link set dev {peer_device} up")).map(drop)
    }

    /// Gives the namespace a name that `ip netns` knows, in this mount namespace alone.
    ///
    /// From then on the namespace lives as long as the mount namespace.
    ///
    /// # Errors
    ///
    /// When the caller is not in a sandbox: the name would outlive us. When the name is taken.
    pub fn publish(&self, name: &str) -> Result<()> {
        ensure!(sandbox::is_private(), "a name for a namespace outside a sandbox would outlive it");
        let path = Path::new("/run/netns").join(name);
        let publish = || -> Result<()> {
            fs::create_dir_all("/run/netns")?;
            File::create_new(&path)?;
            mount(Some(&self.path()), &path, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
            Ok(())
        };
        publish().with_context(|| format!("name a network namespace {}", path.display()))
    }

    /// A path under which programs can open the namespace (`ip link ... netns PATH`, `nsenter --net=PATH`).
    ///
    /// It is valid as long as this handle.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        format!("/proc/{}/fd/{}", std::process::id(), self.fd.as_raw_fd()).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_is_its_own_and_gone_after_the_last_handle() {
        let netns = Netns::new().unwrap();
        let inside = netns.run(|| fs::read_link("/proc/thread-self/ns/net")).unwrap();
        assert_ne!(inside, fs::read_link("/proc/thread-self/ns/net").unwrap());
        assert_eq!(inside, fs::read_link(netns.path()).unwrap());
        let path = netns.path();
        drop(netns);
        assert_ne!(fs::read_link(path).ok(), Some(inside));
    }

    #[test]
    fn a_veth_pair_joins_two_namespaces() {
        let (left, right) = (Netns::new().unwrap(), Netns::new().unwrap());
        left.veth("a", &right, "b", 1400).unwrap();
        left.ip("address add 192.0.2.1/24 dev a").unwrap();
        right.ip("address add 192.0.2.2/24 dev b").unwrap();
        process::output(left.command("ping").args(["-q", "-c1", "-W5", "192.0.2.2"])).unwrap();
        assert!(right.ip("link show b").unwrap().contains("mtu 1400"));
    }

    #[test]
    fn a_published_name_is_known_inside_the_sandbox_only() {
        let name = format!("published-{}", std::process::id());
        let netns = Netns::new().unwrap();
        assert!(netns.publish(&name).is_err());
        sandbox::isolated(|| {
            netns.publish(&name).unwrap();
            assert!(process::output(process::command("ip").args(["netns", "list"])).unwrap().contains(&name));
        });
        assert!(!Path::new("/run/netns").join(&name).exists());
    }

    #[test]
    fn a_sysctl_is_set_inside_only() {
        let netns = Netns::new().unwrap();
        let path = "/proc/sys/net/ipv4/ip_default_ttl";
        let outside = fs::read_to_string(path).unwrap();
        netns.sysctl("net.ipv4.ip_default_ttl", "7").unwrap();
        assert_eq!(netns.run(|| fs::read_to_string(path)).unwrap().trim(), "7");
        assert_eq!(fs::read_to_string(path).unwrap(), outside);
    }

    #[test]
    fn a_setting_of_a_device_is_written_where_the_device_is() {
        let netns = Netns::new().unwrap();
        netns.bridge("here0").unwrap();
        netns.device_setting("here0", "tx_queue_len", "77").unwrap();
        assert!(netns.ip("link show here0").unwrap().contains("qlen 77"));
        assert!(netns.device_setting("nosuch0", "tx_queue_len", "77").is_err());
        assert!(!Path::new("/sys/class/net/here0").exists());
    }

    #[test]
    fn a_failing_command_tells_what_it_said() {
        let error = Netns::new().unwrap().ip("link show nosuch0").unwrap_err().to_string();
        assert!(error.contains("ip link show nosuch0") && error.contains("nosuch0\" does not exist"), "{error}");
    }
}
