//! What the packages do.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use overlay_tests::{
    cluster::agent_program, netns::Netns, node::Container, process::wait_until, sandbox::isolated,
    subnet_env::SubnetEnv,
};

use crate::{
    machine::{Machine, UNDERLAY_DEVICE},
    names,
    package::Packages,
};

const LIMIT: Duration = Duration::from_secs(20);

/// There is one `target/dist`.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

#[test]
fn what_is_installed_runs_is_upgraded_and_goes_without_a_trace() {
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let packages = Packages::build(&["--program".as_ref(), agent_program().unwrap().as_os_str()]);
    assert_eq!(packages.sums().lines().count(), 2);
    let archived = packages.archived();
    for file in [
        "overlay",
        "LICENSE",
        "README.md",
        "packaging/systemd/overlay.service",
        "packaging/default",
        "completions/_overlay",
        "man/overlay-agent.1.gz",
        "docs/operators-guide.md",
        "packaging/monitoring/overlay.rules.yml",
    ] {
        assert!(archived.iter().any(|path| path == file), "no {file} in {archived:?}");
    }
    isolated(|| life_of_a_package(&packages));
}

#[test]
#[ignore = "long: builds for release"]
fn long_a_release_is_reproducible_static_and_lives_as_well() {
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let sums = Packages::build(&[]).sums();
    let packages = Packages::build(&[]);
    assert_eq!(packages.sums(), sums);
    isolated(|| names::are_resolved_without_a_library(&packages));
    isolated(|| life_of_a_package(&packages));
}

/// Runs a line on the machine that the README tells people to run.
#[track_caller]
fn as_documented(machine: &Machine, line: &str) -> String {
    let readme = include_str!("../../README.md");
    assert!(readme.lines().any(|written| written.split(" #").next() == Some(line)), "README.md does not say: {line}");
    machine.shell(&format!("cd /srv/packages; {line}")).unwrap()
}

fn life_of_a_package(packages: &Packages) {
    let machine = Machine::boot().unwrap();
    let deb = packages.file(".deb");
    fs::create_dir(machine.path("/srv/packages")).unwrap();
    fs::copy(&deb, machine.path("/srv/packages").join(deb.file_name().unwrap())).unwrap();
    // The README's commands, without questions.
    machine.write("/etc/apt/apt.conf.d/99-test", "APT::Get::Assume-Yes \"true\";\n").unwrap();
    // Images for containers forbid with it that packages start or stop services.
    machine.shell("rm -f /usr/sbin/policy-rc.d").unwrap();
    // Setup masks Docker's units where it installs Docker for tests.
    machine.shell("rm -f /etc/systemd/system/docker.service /etc/systemd/system/docker.socket").unwrap();
    let before = machine.traces().unwrap();

    install(&machine);
    documents_are_where_shells_and_man_look(&machine);
    let subnet = start(&machine);
    let _container = follow_a_container(&machine, &subnet);
    tell_whether_traffic_flows(&machine);
    stop_and_start(&machine);
    upgrade(&machine);
    start_docker(&machine, &subnet);
    swap_flanneld(&machine);

    machine.shell("apt-get purge overlay").unwrap();
    machine.shell("ip link delete container; ip link delete br0; rm -r /srv/store").unwrap();
    let after = machine.traces().unwrap();
    let left: Vec<_> = before.symmetric_difference(&after).collect();
    assert!(left.is_empty(), "left or missing: {left:#?}");
}

fn install(machine: &Machine) {
    as_documented(machine, "apt-get install ./overlay_*.deb");
    let state = machine.shell("systemctl show --property=ActiveState,UnitFileState --value overlay").unwrap();
    assert_eq!(state.split_whitespace().collect::<Vec<_>>(), ["inactive", "disabled"]);
    let complaints =
        machine.shell("systemd-analyze verify --man=no overlay.service run-overlay-bpf.mount 2>&1").unwrap();
    assert!(!complaints.contains("overlay"), "{complaints}");
}

/// Each shell has the file in its own directory, and bash, the one that is here, completes with it.
fn documents_are_where_shells_and_man_look(machine: &Machine) {
    let complete = ". /usr/share/bash-completion/completions/overlay; \
                    COMP_WORDS=(overlay agent --log-fo) COMP_CWORD=2; \
                    _overlay overlay --log-fo agent; echo ${COMPREPLY[*]}";
    let completed = machine.shell(&format!("bash -c '{complete}'")).unwrap();
    assert_eq!(completed.trim(), "--log-format");
    machine
        .shell(
            "grep -q log-format /usr/share/zsh/vendor-completions/_overlay \
                    /usr/share/fish/vendor_completions.d/overlay.fish",
        )
        .unwrap();
    let pages = machine.shell("cd /usr/share/man/man1; ls overlay*").unwrap();
    for page in ["overlay.1.gz", "overlay-agent.1.gz", "overlay-map-dump.1.gz"] {
        assert!(pages.lines().any(|line| line == page), "no {page} in {pages}");
    }
    assert!(!pages.contains("documents"), "a page for a hidden command: {pages}");
    let page = machine.shell("zcat /usr/share/man/man1/overlay-agent.1.gz").unwrap();
    assert!(page.contains("OVERLAY_LOG_FORMAT"), "{page}");
}

fn start(machine: &Machine) -> SubnetEnv {
    machine
        .shell(
            r#"overlay config set --datastore file:/srv/store '{"Network":"10.1.0.0/16","Backend":{"Type":"vxlan"}}'"#,
        )
        .unwrap();
    let mut settings = fs::read_to_string(machine.path("/etc/default/overlay")).unwrap();
    assert!(settings.lines().all(|line| line.is_empty() || line.starts_with('#')), "{settings}");
    settings +=
        "OVERLAY_DATASTORE=file:/srv/store\nFLANNELD_IFACE=eth0\nFLANNELD_IP_MASQ=1\nFLANNELD_HEALTHZ_PORT=8471\n";
    machine.write("/etc/default/overlay", &settings).unwrap();
    if let Err(error) = machine.shell("systemctl enable --now overlay") {
        panic!("{error:#}\n{}", machine.console());
    }
    let subnet: SubnetEnv = fs::read_to_string(machine.path("/run/flannel/subnet.env")).unwrap().parse().unwrap();
    assert!(subnet.ip_masq);
    assert!(machine.shell("nft list tables").unwrap().contains("overlay.1"));
    let status = fs::read_to_string(format!("/proc/{}/status", agent(machine))).unwrap();
    let field = |name| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim();
    const SYS_ADMIN: u32 = 21;
    assert_eq!(u64::from_str_radix(field("CapEff:"), 16).unwrap() >> SYS_ADMIN & 1, 0, "{status}");
    assert_eq!((field("NoNewPrivs:"), field("Seccomp:")), ("1", "2"));
    subnet
}

/// A container is known, and so is what changes inside it: the agent may hear of both.
fn follow_a_container(machine: &Machine, subnet: &SubnetEnv) -> Container {
    let container = Container::on_bridge(machine.netns(), subnet).unwrap();
    let known = |address: &str| machine.shell("overlay map dump ENDPOINTS").unwrap().contains(&format!(" {address} "));
    wait_until("the container to be known", LIMIT, || known(&container.v4().to_string())).unwrap();
    let second = subnet.address(77);
    container.netns.ip(&format!("address add {second}/{} dev eth0", subnet.length())).unwrap();
    wait_until("its second address to be known", LIMIT, || known(&second.to_string())).unwrap();
    container
}

fn tell_whether_traffic_flows(machine: &Machine) {
    let ask = |path| get(machine.netns(), path);
    assert_eq!(ask("/healthz"), (200, "flanneld is running".to_owned()));
    assert_eq!(ask("/readyz"), (200, "ready".to_owned()));
    assert_eq!(ask("/metrics").0, 404);
    for (state, answer) in [("down", (503, "the underlay interface is down")), ("up", (200, "ready"))] {
        machine.netns().ip(&format!("link set {UNDERLAY_DEVICE} {state}")).unwrap();
        wait_until(answer.1, LIMIT, || ask("/readyz") == (answer.0, answer.1.to_owned())).unwrap();
        assert_eq!(ask("/healthz").0, 200);
    }
}

/// Status and body of what the agent's health server answers.
fn get(netns: &Netns, path: &str) -> (u16, String) {
    let answer = netns.run(|| {
        let mut stream = TcpStream::connect("127.0.0.1:8471").unwrap();
        write!(stream, "GET {path} HTTP/1.0\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    });
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

/// The agent's process id, as this process sees it.
fn agent(machine: &Machine) -> u32 {
    let inside = machine.shell("systemctl show --property=MainPID --value overlay").unwrap();
    machine.outside(inside.trim().parse().unwrap()).unwrap()
}

/// The attached programs; another number is another attachment.
fn attached(machine: &Machine) -> String {
    machine.shell("ls --inode /run/overlay/bpf/v1/links/*").unwrap()
}

fn stop_and_start(machine: &Machine) {
    let (links, subnet) = (attached(machine), fs::read(machine.path("/run/flannel/subnet.env")).unwrap());
    machine.shell("systemctl stop overlay").unwrap();
    assert_eq!(attached(machine), links);
    assert!(machine.shell("overlay map list").unwrap().contains("ROUTES"));
    machine.shell("systemctl start overlay").unwrap();
    assert_eq!(fs::read(machine.path("/run/flannel/subnet.env")).unwrap(), subnet);
}

fn upgrade(machine: &Machine) {
    let (links, before) = (attached(machine), agent(machine));
    machine.shell("cd /srv/packages; dpkg --force-unsafe-io --install overlay_*.deb").unwrap();
    assert_eq!(attached(machine), links);
    assert_ne!(agent(machine), before);
    assert_eq!(get(machine.netns(), "/readyz").0, 200);
    assert!(machine.shell("cat /etc/default/overlay").unwrap().contains("FLANNELD_IFACE=eth0"));
}

/// The drop-in, before a dockerd that only writes down how it was started.
fn start_docker(machine: &Machine, subnet: &SubnetEnv) {
    machine.write("/usr/local/bin/dockerd", "#!/bin/sh\necho \"$@\" > /run/dockerd\nexec sleep infinity\n").unwrap();
    let unit = "[Service]\nEnvironment=DOCKER_OPTS=--debug\nExecStart=/usr/bin/dockerd -H fd:// $DOCKER_OPTS\n";
    machine.write("/etc/systemd/system/docker.service", unit).unwrap();
    machine.shell("chmod +x /usr/local/bin/dockerd").unwrap();
    as_documented(machine, "mkdir -p /etc/systemd/system/docker.service.d");
    as_documented(machine, "cp /usr/share/overlay/docker/overlay.conf /etc/systemd/system/docker.service.d/");
    as_documented(machine, "systemctl daemon-reload");
    as_documented(machine, "systemctl restart docker");
    let started = || fs::read_to_string(machine.path("/run/dockerd")).is_ok_and(|arguments| arguments.ends_with('\n'));
    wait_until("dockerd to be started", LIMIT, started).unwrap();
    let arguments = fs::read_to_string(machine.path("/run/dockerd")).unwrap();
    let bip = format!("--bip={}/{}", subnet.gateway(), subnet.length());
    for argument in ["--debug", &bip, "--mtu=1450", "--ip-masq=false"] {
        assert!(arguments.split_whitespace().any(|given| given == argument), "no {argument} in {arguments}");
    }
    machine
        .shell("systemctl stop docker; rm -r /run/dockerd /usr/local/bin/dockerd /etc/systemd/system/docker.service*")
        .unwrap();
}

/// A unit file of flanneld's needs only another program.
fn swap_flanneld(machine: &Machine) {
    machine.shell("systemctl stop overlay").unwrap();
    let unit = "[Service]\nType=notify\nEnvironment=FLANNELD_IFACE= OVERLAY_DATASTORE=file:/srv/store\n\
                ExecStart=/usr/bin/overlay agent -etcd-endpoints=http://127.0.0.1:2379 -etcd-cafile= -iface=eth0 \
                -ip-masq -kube-subnet-mgr=false -iptables-resync 5 -healthz-port=8471 -v=2 -public-ip=${NOBODY_SETS_THIS}\n";
    machine.write("/run/systemd/system/flanneld.service", unit).unwrap();
    machine.shell("systemctl daemon-reload; systemctl start flanneld").unwrap();
    assert_eq!(get(machine.netns(), "/readyz").0, 200);
    machine.shell("systemctl stop flanneld; rm /run/systemd/system/flanneld.service; systemctl daemon-reload").unwrap();
    machine.shell("systemctl start overlay").unwrap();
}
