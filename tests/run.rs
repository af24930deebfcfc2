//! `cargo xtask run`, that is the program `cluster`: what it prints, and that nothing is left however it ends.

#![allow(clippy::unwrap_used, reason = "a test that unwraps fails with the place and the error")]

use std::{
    collections::BTreeSet,
    fs,
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, Command, Output, Stdio},
    thread,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use overlay_tests::process::wait_until;
use tempfile::TempDir;

const LIMIT: Duration = Duration::from_secs(60);

/// Marks every process that one run starts, in its environment.
const MARK: &str = "CLUSTER_RUN_MARK";

/// One run of the program, and what was on the machine before it.
struct Run {
    temporary: TempDir,
    before: BTreeSet<String>,
}

impl Run {
    fn new() -> Self {
        Self { temporary: tempfile::tempdir().unwrap(), before: traces() }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cluster"));
        command.args(arguments).env("TMPDIR", self.temporary.path()).env(MARK, self.temporary.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn start(&self, arguments: &[&str]) -> Child {
        self.command(arguments).spawn().unwrap()
    }

    /// The ids of processes that this run has started and that still live.
    fn processes(&self) -> Vec<String> {
        let mark = format!("{MARK}={}", self.temporary.path().display());
        let marked = |pid: &String| {
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environment.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes())
        };
        names(Path::new("/proc")).into_iter().filter(marked).collect()
    }

    /// Fails unless everything that the run has made is gone.
    fn assert_nothing_left(&self) {
        let gone = wait_until("the processes to end", LIMIT, || self.processes().is_empty());
        gone.unwrap_or_else(|error| panic!("{error}: {:?}", self.processes()));
        let left: Vec<_> = traces().difference(&self.before).cloned().collect();
        assert!(left.is_empty(), "left behind: {left:?}");
        assert!(names(self.temporary.path()).is_empty(), "files left: {:?}", names(self.temporary.path()));
    }
}

fn names(directory: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(directory).unwrap();
    entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect()
}

/// What a run could leave where everybody sees it: mounts, entries of `/run` and named network namespaces, devices,
/// pinned maps.
fn traces() -> BTreeSet<String> {
    let mut traces: BTreeSet<String> =
        fs::read_to_string("/proc/self/mountinfo").unwrap().lines().map(str::to_owned).collect();
    for directory in ["/run", "/run/netns", "/sys/class/net", "/sys/fs/bpf"].map(Path::new) {
        if directory.is_dir() {
            traces.extend(names(directory).into_iter().map(|name| format!("{}/{name}", directory.display())));
        }
    }
    traces
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.as_slice(), output.stderr.as_slice()].concat()).into_owned()
}

fn signal(pid: u32, signal: Signal) {
    kill(Pid::from_raw(pid.try_into().unwrap()), signal).unwrap();
}

#[test]
fn every_pair_talks_and_nothing_is_left() {
    for arguments in [["--nodes=3", "--datastore=etcd"], ["--nodes=2", "--datastore=file"]] {
        let run = Run::new();
        let output = run.start(&arguments).wait_with_output().unwrap();
        assert!(output.status.success(), "{}", text(&output));
        let nodes = if arguments[0].ends_with('3') { 3 } else { 2 };
        let rows = text(&output).lines().filter(|line| line.ends_with("ok │")).count();
        assert_eq!(rows, nodes * (nodes - 1), "{}", text(&output));
        run.assert_nothing_left();
    }
}

#[test]
fn every_pair_talks_over_each_family_that_there_is() {
    for (ip, datastore, prefixes) in
        [("dual", "file", ["10.1.", "fd00:10:1:"].as_slice()), ("6", "etcd", &["fd00:10:1:"])]
    {
        let run = Run::new();
        let arguments = ["--nodes=2", "--ip", ip, "--datastore", datastore];
        let output = run.start(&arguments).wait_with_output().unwrap();
        let said = text(&output);
        assert!(output.status.success(), "{said}");
        let talked = said.lines().filter(|line| line.ends_with("ok │")).collect::<Vec<_>>();
        assert_eq!(talked.len(), 2 * prefixes.len(), "{said}");
        for prefix in prefixes {
            let address = |line: &&&str| line.split(" ┆ ").nth(2).unwrap().starts_with(prefix);
            assert_eq!(talked.iter().filter(address).count(), 2, "{prefix}: {said}");
        }
        run.assert_nothing_left();
    }
}

#[test]
fn the_udp_backend_is_refused_where_there_is_ipv6() {
    for ip in ["6", "dual"] {
        let run = Run::new();
        let output = run.start(&["--backend", "udp", "--ip", ip]).wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        let said = "error: the udp backend carries IPv4 alone: leave out --ip, or take --backend vxlan\n";
        assert_eq!(text(&output), said);
    }
}

#[test]
fn a_cluster_with_its_leases_in_a_directory_needs_no_etcd() {
    let run = Run::new();
    let cluster = run.command(&[]).get_program().to_owned();
    let mut hidden = Command::new("unshare");
    // Without -n, `mount` leaves a directory of its own in /run where it is the first.
    let script =
        r#"mount -n --bind /dev/null "$(command -v etcd)" && ! etcd --version && exec "$0" --nodes=2 --datastore=file"#;
    hidden.args(["--mount", "sh", "-c", script]).arg(cluster).env("TMPDIR", run.temporary.path());
    let output = hidden.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    run.assert_nothing_left();
}

#[test]
fn two_runs_at_once_do_not_disturb_each_other() {
    let runs = [Run::new(), Run::new()];
    let children = runs.each_ref().map(|run| run.start(&["--nodes=2"]));
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", text(&output));
    }
    runs.iter().for_each(Run::assert_nothing_left);
}

#[test]
fn a_signal_at_any_moment_leaves_nothing() {
    // A fixed sequence: a moment that once failed is tried again.
    let mut state = 20_u32;
    let signals = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGKILL, Signal::SIGINT, Signal::SIGHUP, Signal::SIGINT];
    for (number, name) in signals.into_iter().cycle().take(12).enumerate() {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        // The first second is where all the building is.
        let moment = Duration::from_millis(u64::from(state >> 16) % if number % 2 == 0 { 1000 } else { 3000 });
        let run = Run::new();
        let child = run.start(&["--nodes=3"]);
        // The moment is the input of this test, not a wait for something.
        thread::sleep(moment);
        signal(child.id(), name);
        let output = child.wait_with_output().unwrap();
        assert!(!output.status.success(), "{name} after {moment:?}: {}", text(&output));
        run.assert_nothing_left();
    }
}

#[test]
fn a_kept_cluster_is_entered_as_it_says_and_ends_as_it_says() {
    let run = Run::new();
    let output = run.start(&["--nodes=2", "--keep"]).wait_with_output().unwrap();
    let said = text(&output);
    assert!(output.status.success(), "{said}");
    let commands = |word: &'static str| said.lines().map(str::trim).filter(move |line| line.contains(word));
    let shell = |command: &str| {
        let output = Command::new("sh").args(["-c", command]).output().unwrap();
        assert!(output.status.success(), "`{command}`: {}", text(&output));
        text(&output)
    };
    let entered: Vec<_> =
        commands(" bash").map(|line| shell(&line.replace(" bash", " ip -4 -brief address"))).collect();
    assert_eq!(entered.len(), 4, "{said}");
    assert!(entered[0].contains("192.168.50.1/24") && entered[1].contains("eth0"), "{entered:?}");
    let dumps: Vec<_> = commands(" map dump ").map(shell).collect();
    assert!(dumps[0].contains("192.168.50.2") && dumps[1].contains("192.168.50.1"), "{dumps:?}");
    commands("kill ").for_each(|line| drop(shell(line)));
    run.assert_nothing_left();
}

#[test]
fn a_failure_half_way_is_one_clear_line_and_the_log_and_leaves_nothing() {
    let run = Run::new();
    let agent = run.temporary.path().join("agent");
    fs::write(&agent, "#!/bin/sh\necho no such luck\nexit 1\n").unwrap();
    fs::set_permissions(&agent, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let output = run.command(&["--nodes=2"]).env("OVERLAY_BIN", &agent).output().unwrap();
    let said = text(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    let error = "error: the agent of node1 ended before its subnet.env (exit status: 1)\n\
                 last lines of the agent of node1:\n  no such luck\n";
    assert!(said.ends_with(error), "{said}");
    fs::remove_file(agent).unwrap();
    run.assert_nothing_left();
}

#[test]
fn without_root_it_says_so() {
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(&directory, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    // Where cargo put it, others may not be able to reach it.
    let program = directory.path().join("cluster");
    fs::copy(env!("CARGO_BIN_EXE_cluster"), &program).unwrap();
    let output = Command::new(program).uid(65534).gid(65534).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(text(&output), "error: only root can make network namespaces: run `cargo xtask run` as root\n");
}
