//! [`Docker`]: a real dockerd in a node's network namespace, with containers from an image made on the spot.
//!
//! dockerd is the first process of a PID namespace and has a mount namespace with a read-only machine in it: all that it
//! and its containers do is in the sandbox, in the node's network namespace, or in control groups that are removed.

mod cgroup;

use std::{
    env, fs,
    net::IpAddr,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;

use self::cgroup::Cgroup;
use crate::{
    netns::Netns,
    node::{Container, Node},
    process::{self, Process, output, wait_for},
    sandbox,
};

/// What has to be installed, and the package that has it.
const PROGRAMS: [(&str, &str); 6] = [
    ("dockerd", "docker.io"),
    ("docker", "docker.io"),
    ("containerd", "containerd"),
    ("runc", "runc"),
    ("iptables", "iptables"),
    (BUSYBOX, "busybox-static"),
];

const BUSYBOX: &str = "busybox";
/// What the image has, beside busybox itself.
const APPLETS: [&str; 7] = ["sh", "sleep", "ping", "wget", "httpd", "md5sum", "cat"];
/// The name of the image.
pub const IMAGE: &str = "busybox";

/// How long dockerd may take to start.
const START: Duration = Duration::from_secs(30);

/// Docker writes below /etc, /opt and /tmp, whatever it is told. What it writes is seen by it alone, and the rest of the machine
/// cannot be written. The daemon is a child, so that the shell buries what it leaves.
const LAUNCH: &str = "mount -t overlay overlay -o lowerdir=/etc,upperdir=etc,workdir=work /etc &&
    mount -t tmpfs tmpfs /opt && mount -t tmpfs tmpfs /tmp && mount -o remount,bind,ro / && . \"$0\" && { dockerd $DOCKER_OPTS \"$@\" & wait; }";

/// A running dockerd. It ends, and its containers with it, when dropped or when the thread that started it ends.
#[derive(Debug)]
pub struct Docker {
    process: Process,
    // After the processes that are in them.
    _cgroup: Cgroup,
    netns: Netns,
    directory: TempDir,
}

/// A container of Docker's.
#[derive(Debug)]
pub struct DockerContainer {
    /// Its name.
    pub name: String,
    /// Its network namespace, as long as it is not started again, and its addresses.
    pub container: Container,
}

/// Why dockerd cannot be started here, if it cannot: what is missing, and the package that has it.
#[must_use]
pub fn missing() -> Option<String> {
    let path = env::var_os("PATH").unwrap_or_default();
    let absent = |program: &str| !env::split_paths(&path).any(|directory| directory.join(program).is_file());
    let missing: Vec<_> = PROGRAMS.iter().filter(|(program, _)| absent(program)).collect();
    let (program, package) = missing.first()?;
    Some(format!("no {program} is installed (package {package})"))
}

impl Docker {
    /// Starts dockerd on `node` with what `overlay docker-opts` makes of its `subnet.env`, and imports the image [`IMAGE`].
    ///
    /// # Errors
    ///
    /// When dockerd does not come up: with the end of its log. When there is no such `subnet.env`, or no image to be had.
    pub fn start(node: &Node) -> Result<Self> {
        Self::start_with(node, &[])
    }

    /// The same with more `options` for dockerd.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start).
    pub fn start_with(node: &Node, options: &[&str]) -> Result<Self> {
        ensure!(sandbox::is_private(), "a dockerd outside a sandbox would leave its files behind");
        let directory = tempfile::Builder::new().prefix("docker-").tempdir_in(sandbox::scratch())?;
        let from_subnet = directory.path().join("docker_opts.env");
        let mut docker_opts = node.overlay();
        docker_opts.args(["docker-opts", "-c", "-f"]).arg(node.subnet_file()).arg("-d").arg(&from_subnet);
        output(&mut docker_opts)?;

        let cgroup = Cgroup::new()?;
        for name in ["etc", "work"] {
            fs::create_dir(directory.path().join(name))?;
        }
        let mut command = node.netns().command("unshare");
        command.current_dir(directory.path()).env("TMPDIR", "/tmp");
        command
            .args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", LAUNCH])
            .arg(&from_subnet)
            .args(options);
        command.arg("--data-root").arg(directory.path().join("data"));
        command.arg("--exec-root").arg(directory.path().join("exec"));
        command.arg("--pidfile").arg(directory.path().join("pid"));
        command.arg("--host").arg(socket(directory.path())).args(["--cgroup-parent", &cgroup.parent()]);
        let name = format!("dockerd on {}", node.name());
        let process = Process::spawn(name, command, &directory.path().join("log"))?;
        let mut docker = Self { process, _cgroup: cgroup, netns: node.netns().clone(), directory };
        docker.wait_ready()?;
        docker.import_image()?;
        Ok(docker)
    }

    fn wait_ready(&mut self) -> Result<()> {
        let socket = self.directory.path().join("socket");
        // It listens before it answers; `docker` waits for the answer.
        self.process.wait_ready("dockerd's socket", START, || Ok(socket.exists().then_some(())))?;
        self.docker("version").map(drop)
    }

    /// Makes an image of a static busybox and nothing else.
    fn import_image(&self) -> Result<()> {
        let root = self.directory.path().join("image");
        let programs = root.join("bin");
        fs::create_dir_all(&programs)?;
        fs::create_dir(root.join("tmp"))?;
        let busybox = output(process::command("sh").args(["-c", "command -v busybox"]))?;
        fs::copy(busybox.trim(), programs.join(BUSYBOX)).context("copy busybox into the image")?;
        for applet in APPLETS {
            symlink(BUSYBOX, programs.join(applet))?;
        }
        let archive = self.directory.path().join("image.tar");
        output(process::command("tar").arg("-C").arg(&root).args(["-c", "-f"]).arg(&archive).arg("."))?;
        output(self.command().arg("import").arg(&archive).arg(IMAGE)).map(drop)
    }

    /// The program `docker`, told to talk to this dockerd.
    #[must_use]
    pub fn command(&self) -> Command {
        let mut command = self.netns.command("docker");
        command.env("DOCKER_CONFIG", self.directory.path().join("config"));
        command.arg("--host").arg(socket(self.directory.path()));
        command
    }

    /// Runs `docker` with `arguments`, split at white space, and returns what it prints.
    ///
    /// # Errors
    ///
    /// When it fails, with what it said.
    pub fn docker(&self, arguments: &str) -> Result<String> {
        output(self.command().args(arguments.split_whitespace()))
    }

    /// Starts a container `name` that does nothing for ever, with more `options` of `docker run`.
    ///
    /// # Errors
    ///
    /// When Docker refuses.
    pub fn run(&self, name: &str, options: &str) -> Result<DockerContainer> {
        self.docker(&format!("run --detach --name {name} {options} {IMAGE} sleep 100000"))?;
        self.container(name)
    }

    /// The running container `name`.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub fn container(&self, name: &str) -> Result<DockerContainer> {
        let mut inspect = self.command();
        inspect.args([
            "inspect",
            "--format",
            "{{.State.Pid}} {{.NetworkSettings.IPAddress}} {{.NetworkSettings.GlobalIPv6Address}}",
            name,
        ]);
        let said = output(&mut inspect)?;
        let mut words = said.split_whitespace();
        let pid = words.next().with_context(|| format!("no id of {name}"))?;
        let addresses: Result<Vec<IpAddr>, _> = words.map(str::parse).collect();
        let addresses = addresses.with_context(|| format!("the addresses of {name}: {said:?}"))?;
        ensure!(!addresses.is_empty(), "{name} has no address: {said:?}");
        // Docker's ids are those of its own PID namespace.
        let namespace = PathBuf::from(format!("/proc/{}/root/proc/{pid}/ns/net", self.init()?));
        let netns = Netns::open(&namespace)?;
        Ok(DockerContainer { name: name.to_owned(), container: Container { netns, addresses } })
    }

    /// Runs `shell` in the container `name` and returns what it prints.
    ///
    /// # Errors
    ///
    /// When it fails, with what it said.
    pub fn exec(&self, name: &str, shell: &str) -> Result<String> {
        output(self.command().args(["exec", name, "sh", "-c", shell]))
    }

    /// The first process of dockerd's PID namespace.
    fn init(&self) -> Result<Pid> {
        let pid = self.process.pid();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
        Ok(Pid::from_raw(children.trim().parse().context("dockerd has ended")?))
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        // It can be waited for when all that is in its PID namespace is gone.
        let ended = self
            .init()
            .and_then(|init| Ok(kill(init, Signal::SIGKILL)?))
            .and_then(|()| wait_for("dockerd and its containers to end", START, || self.process.ended()).map(drop));
        if let Err(error) = ended {
            eprintln!("{error:#}");
        }
    }
}

fn socket(directory: &Path) -> String {
    format!("unix://{}", directory.join("socket").display())
}
