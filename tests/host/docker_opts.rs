//! `overlay docker-opts`: the uses of flannel's `mk-docker-opts.sh`, and what that refuses.

use std::fs;
use std::path::Path;
use std::process::Output;

use overlay_tests::cluster::agent_program;
use overlay_tests::netns::Netns;

const SUBNET_ENV: &str =
    "FLANNEL_NETWORK=10.1.0.0/16\nFLANNEL_SUBNET=10.1.74.1/24\nFLANNEL_MTU=1472\nFLANNEL_IPMASQ=false\n";
const INDIVIDUAL: &str = "DOCKER_OPT_BIP=\"--bip=10.1.74.1/24\"\nDOCKER_OPT_IPMASQ=\"--ip-masq=true\"\n\
                          DOCKER_OPT_MTU=\"--mtu=1472\"\n";
const COMBINED: &str = "DOCKER_OPTS=\" --bip=10.1.74.1/24 --ip-masq=true --mtu=1472\"\n";

/// A node with a `subnet.env`.
struct Site {
    netns: Netns,
    directory: tempfile::TempDir,
}

impl Site {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("subnet.env"), SUBNET_ENV).unwrap();
        Self { netns: Netns::new().unwrap(), directory }
    }

    /// `overlay docker-opts` in the directory of the `subnet.env`.
    fn run(&self, arguments: &str) -> Output {
        let mut command = self.netns.command(agent_program().unwrap());
        command.current_dir(self.directory.path()).env_clear().arg("docker-opts");
        command.args(arguments.split_whitespace()).output().unwrap()
    }

    #[track_caller]
    fn prints(&self, arguments: &str) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Fails unless the command does, with exit code 1 and one line that has `says`.
    #[track_caller]
    fn refuses(&self, arguments: &str, says: &str) {
        let output = self.run(arguments);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), said.lines().count()), (Some(1), 1), "{arguments}: {said}");
        assert!(said.contains(says), "{arguments}: no {says:?} in {said}");
    }

    fn path(&self, name: &str) -> impl AsRef<Path> {
        self.directory.path().join(name)
    }
}

#[test]
fn options_are_printed_or_written_for_each_use_of_flannels_script() {
    let site = Site::new();
    let both = format!("{INDIVIDUAL}{COMBINED}");
    let named = both.replace("DOCKER_OPTS", "DOCKER_NETWORK_OPTIONS");
    let cases = [
        ("-f subnet.env", both.as_str()),
        ("-f subnet.env -i", INDIVIDUAL),
        ("-fsubnet.env -c", COMBINED),
        ("-icf subnet.env", &both),
        ("-f subnet.env -k DOCKER_NETWORK_OPTIONS", &named),
        ("-f subnet.env -cm", "DOCKER_OPTS=\" --bip=10.1.74.1/24 --mtu=1472\"\n"),
        ("--subnet-file subnet.env --individual", INDIVIDUAL),
        ("--subnet-file subnet.env --combined --no-ip-masq --combined-key X", "X=\" --bip=10.1.74.1/24 --mtu=1472\"\n"),
    ];
    for (arguments, expected) in cases {
        assert_eq!(site.prints(arguments), expected, "{arguments}");
        for output in ["-d out.env", "--output out.env"] {
            assert_eq!(site.prints(&format!("{arguments} {output}")), "");
            assert_eq!(fs::read_to_string(site.path("out.env")).unwrap(), expected, "{arguments} {output}");
        }
    }
}

#[test]
fn a_route_that_leads_the_containers_packets_elsewhere_is_refused() {
    let site = Site::new();
    site.netns.ip("link add x type veth peer name y").unwrap();
    site.netns.ip("link set x up").unwrap();
    site.netns.ip("address add 192.0.2.1/24 dev x").unwrap();
    site.netns.ip("route add 10.1.0.0/16 via 192.0.2.2").unwrap();
    assert_eq!(site.prints("-f subnet.env -c"), COMBINED, "a wider route gives way to the bridge's");
    site.netns.ip("route add 10.1.74.0/24 via 192.0.2.2").unwrap();
    site.refuses("-f subnet.env -c", "10.1.74.0/24: this node routes them via 192.0.2.2");
    site.netns.ip("address add fd00:2::1/64 dev x nodad").unwrap();
    site.netns.ip("route add fd00:1:0:4a::/64 via fd00:2::2").unwrap();
    fs::write(site.path("ipv6.env"), "FLANNEL_IPV6_SUBNET=fd00:1:0:4a::1/64\n").unwrap();
    site.refuses("-f ipv6.env -c", "fd00:1:0:4a::/64: this node routes them via fd00:2::2");
    site.netns.ip("route delete 10.1.74.0/24").unwrap();
    // Docker's own, once it runs.
    site.netns.ip("address add 10.1.74.1/24 dev x").unwrap();
    assert_eq!(site.prints("-f subnet.env -c"), COMBINED);
}

#[test]
fn what_is_wrong_with_a_file_is_said_in_a_line() {
    let site = Site::new();
    site.refuses("-f nosuch.env", "nosuch.env");
    fs::write(site.path("bad.env"), SUBNET_ENV.replace("false", "maybe")).unwrap();
    site.refuses("-f bad.env", "bad.env: FLANNEL_IPMASQ=maybe: must be true or false");
    site.refuses("-f subnet.env -d subnet.env/out", "subnet.env/out");
}
