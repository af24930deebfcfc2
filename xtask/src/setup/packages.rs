//! Debian's packages that the project needs, and how they are installed without a service being started.

use std::{borrow::Cow, fmt::Display, iter, path::PathBuf, process::Command};

use crate::command::{run_quietly, shell};

/// A package of Debian.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Package {
    pub(super) name: Cow<'static, str>,
    /// What the project does with it.
    pub(super) reason: &'static str,
    /// A file by which its presence is known, whoever has installed it.
    pub(super) provides: Cow<'static, str>,
    /// The service that its installation would start, which nobody has asked for.
    service: Option<Service>,
}

/// A service, as either init knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Service {
    /// The units of systemd.
    units: &'static [&'static str],
    /// The script of a System V init.
    script: &'static str,
}

const fn package(name: &'static str, reason: &'static str, provides: &'static str) -> Package {
    Package { name: Cow::Borrowed(name), reason, provides: Cow::Borrowed(provides), service: None }
}

const fn server(name: &'static str, reason: &'static str, provides: &'static str, service: Service) -> Package {
    Package { name: Cow::Borrowed(name), reason, provides: Cow::Borrowed(provides), service: Some(service) }
}

/// What every machine needs.
pub(super) const PACKAGES: &[Package] = &[
    package("protobuf-compiler", "compiles etcd's protocol for the agent", "/usr/bin/protoc"),
    package("libprotobuf-dev", "types that etcd's protocol imports", "/usr/include/google/protobuf/descriptor.proto"),
    package("iproute2", "tests: sets up and reads network namespaces", "/usr/bin/ip"),
    package("iputils-ping", "tests: containers ping each other", "/usr/bin/ping"),
    package("curl", "tests: asks the agent as the operators' guide does", "/usr/bin/curl"),
    package("ethtool", "tests: switches offloads of veths", "/usr/sbin/ethtool"),
    package("tmux", "tests: a terminal for `overlay top`", "/usr/bin/tmux"),
    package("tcpdump", "tests: captures what crosses the underlay", "/usr/bin/tcpdump"),
    package("tshark", "tests: Wireshark judges the packets we send", "/usr/bin/tshark"),
    package("nftables", "masquerading, and tests that filter packets", "/usr/sbin/nft"),
    package("iptables", "tests: the FORWARD chains that Docker leaves behind", "/usr/sbin/iptables-nft"),
    package("systemd", "tests: a machine that the package is installed on", "/lib/systemd/systemd"),
    // Its DHCP service is neither enabled nor started by the installation.
    package(
        "containernetworking-plugins",
        "tests: containers are connected by CNI's own plugins",
        "/usr/lib/cni/bridge",
    ),
    server(
        "prometheus",
        "tests: its promtool judges metrics, alerts and the dashboard",
        "/usr/bin/promtool",
        Service { units: &["prometheus.service"], script: "prometheus" },
    ),
    server(
        "etcd-server",
        "tests: a real etcd, started by the test that wants one",
        "/usr/bin/etcd",
        Service { units: &["etcd.service"], script: "etcd" },
    ),
];

/// What the tests with Docker need, which say so where it is not to be had.
pub(super) const DOCKER_PACKAGES: &[Package] = &[
    // By its client, which Docker's own packages have too: the two exclude each other. It brings containerd and runc.
    server(
        "docker.io",
        "tests: real Dockers, started by the test that wants one",
        "/usr/bin/docker",
        Service { units: &["docker.socket", "docker.service", "containerd.service"], script: "docker" },
    ),
    // By dpkg's list: a busybox that is not static has the same path.
    package(
        "busybox-static",
        "tests: the image of containers, and all of a machine with another kernel",
        "/var/lib/dpkg/info/busybox-static.list",
    ),
];

/// What the tests on other kernels need beside the busybox of [`DOCKER_PACKAGES`].
pub(super) const EMULATOR_PACKAGES: &[Package] =
    &[package("qemu-system-x86", "tests: emulates the machine of another kernel", "/usr/bin/qemu-system-x86_64")];

/// What compiles the eBPF programs where no nightly of rustup does.
pub(super) const RUSTC_PACKAGES: &[Package] = &[
    package("rustc-web", "compiles the eBPF programs: the newest rustc in Debian", "/usr/bin/rustc"),
    package("rust-web-src", "source of core, which is compiled for BPF", "/usr/lib/rustlib/src/rust/library"),
    package("cargo-web", "the cargo of that rustc", "/usr/bin/cargo"),
    package("rust-web-clippy", "the clippy of that rustc, for `cargo xtask check`", "/usr/bin/cargo-clippy"),
];

/// The libraries that a `bpf-linker` for this major version of LLVM is built with.
pub(super) fn llvm_package(llvm: impl Display) -> Package {
    Package {
        name: format!("llvm-{llvm}-dev").into(),
        provides: format!("/usr/lib/llvm-{llvm}/lib/libLLVM.so").into(),
        ..package("", "builds bpf-linker with the LLVM of the compiler", "")
    }
}

/// The lines to type to install these packages.
pub(super) fn script(packages: &[Package]) -> Vec<String> {
    iter::once(apt_get_update()).chain(commands(packages)).map(|command| shell(&command)).collect()
}

/// The commands that install these packages, in order.
fn commands<'a>(packages: &'a [Package]) -> impl Iterator<Item = Command> + 'a {
    let services = || packages.iter().filter_map(|package| package.service);
    let units = services().flat_map(|service| service.units);
    let names = packages.iter().map(|package| &*package.name);
    units.filter_map(|unit| mask(unit)).chain([apt_get_install(names)]).chain(services().map(disable))
}

/// Installs packages, of which old lists may know versions that are too old, or files that are gone.
pub(super) fn install(packages: &[Package]) -> anyhow::Result<()> {
    run_quietly(&mut apt_get_update())?;
    commands(packages).try_for_each(|mut command| run_quietly(&mut command))
}

fn apt_get_update() -> Command {
    let mut apt_get = Command::new("apt-get");
    apt_get.args(["update", "-q"]);
    apt_get
}

fn apt_get_install<'a>(names: impl Iterator<Item = &'a str>) -> Command {
    let mut apt_get = Command::new("apt-get");
    // Without questions, and without needrestart, which would restart services.
    apt_get.envs([("DEBIAN_FRONTEND", "noninteractive"), ("NEEDRESTART_SUSPEND", "1")]);
    // Another apt, such as a daily update, may hold the lock for a while.
    apt_get.args(["install", "-q", "-y", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=120"]).args(names);
    apt_get
}

/// Keeps systemd from starting a unit when its package is installed and at every boot (undo: `systemctl unmask`).
///
/// A `policy-rc.d` for the time of the installation would do for that moment only, and if setup were killed it would
/// stay and keep every other service from being started.
fn mask(unit: &str) -> Option<Command> {
    let unit = PathBuf::from("/etc/systemd/system").join(unit);
    // An administrator who has put something here has decided.
    if unit.symlink_metadata().is_ok() {
        return None;
    }
    let mut mask = Command::new("ln");
    mask.args(["-s", "/dev/null"]).arg(unit);
    Some(mask)
}

/// Keeps a System V init, which knows no mask, from starting a service at boot.
fn disable(service: Service) -> Command {
    let mut disable = Command::new("update-rc.d");
    disable.args([service.script, "disable"]);
    disable
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_masked_before_its_package_is_installed_and_disabled_after() {
        let service = Service { units: &["no-such.socket", "no-such.service"], script: "no-such" };
        let lines: Vec<_> =
            commands(&[server("no-such-server", "", "", service)]).map(|command| shell(&command)).collect();
        assert_eq!(lines[0], "ln -s /dev/null /etc/systemd/system/no-such.socket");
        assert_eq!(lines[1], "ln -s /dev/null /etc/systemd/system/no-such.service");
        assert!(lines[2].contains("apt-get install") && lines[2].ends_with("no-such-server"), "{}", lines[2]);
        assert_eq!(lines[3], "update-rc.d no-such disable");
        assert_eq!(lines.len(), 4);
    }

    #[test]
    fn a_package_without_a_service_is_one_command() {
        let lines: Vec<_> = commands(RUSTC_PACKAGES).map(|command| shell(&command)).collect();
        assert_eq!(lines.len(), 1);
        for package in RUSTC_PACKAGES {
            assert!(lines[0].split(' ').any(|word| word == package.name), "{} in {}", package.name, lines[0]);
        }
    }

    #[test]
    fn every_package_is_known_by_a_file_of_its_own() {
        let all = [PACKAGES, RUSTC_PACKAGES, DOCKER_PACKAGES, EMULATOR_PACKAGES].concat();
        let mut provides: Vec<_> = all.iter().map(|package| &package.provides).collect();
        provides.sort();
        provides.dedup();
        assert_eq!(provides.len(), all.len());
        assert!(provides.iter().all(|path| path.starts_with('/')));
    }
}
