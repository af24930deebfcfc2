//! What the agent refuses to start for is red; what is not red, it starts with. Both are tried on the same node.

use std::{fs, net::UdpSocket, path::Path, process::Command};

use overlay_tests::{
    cluster::{Backend, Cluster, Settings},
    node::UNDERLAY_DEVICE,
    sandbox::scratch,
};

use crate::ground::{Checked, USUAL, agree, agree_by, on_a_node, on_a_node_with, overlay};

const NETWORK: &str = "10.1.0.0/16";

#[test]
fn a_node_in_order_starts_with_either_backend() {
    for backend in [Backend::Udp, Backend::Vxlan] {
        on_a_node(backend, |cluster| {
            let checked = agree(cluster, &["--iface", UNDERLAY_DEVICE, "--ip-masq"], None);
            for check in
                ["privileges", "bpffs", "programs", "tcx", "links", "nftables", "run-dir", "subnet-file", "agent"]
            {
                checked.says(check, "green", &[]);
            }
            for check in ["memory", "others", "datastore", "config", "underlay", "decap", "rp-filter", "mtu", "port"] {
                checked.says(check, "green", &[]);
            }
            for check in ["device", "firewall-input", "firewall-forward", "subnet", "ip-forward", "conntrack"] {
                checked.says(check, "green", &[]);
            }
            let choice = &checked.report["choice"];
            let (mtu, port) = if backend == Backend::Udp { (1472, 8285) } else { (1450, 8472) };
            assert_eq!((&choice["mtu"], &choice["port"]), (&mtu.into(), &port.into()), "{choice}");
            assert_eq!(
                (&choice["interface"], &choice["address"]),
                (&"eth0".into(), &"192.168.50.1".into()),
                "{choice}"
            );
            assert_eq!(
                (&choice["network"], &choice["backend"]),
                (&NETWORK.into(), &backend.to_string().into()),
                "{choice}"
            );
            // The lease of the agent that has just run is its own, by subnet.env.
            let again = Checked::of(cluster, USUAL);
            again.says("subnet", "green", &["our lease"]);
            assert!(again.report["choice"]["subnet"].is_string(), "{}", again.report);
        });
    }
}

/// IPv4 and IPv6.
const DUAL_STACK: &str =
    r#"{"Network":"10.1.0.0/16","EnableIPv6":true,"IPv6Network":"fd00:1::/48","Backend":{"Type":"vxlan"}}"#;

#[test]
fn network_configs() {
    on_a_node(Backend::Vxlan, |cluster| {
        for (config, red) in [
            ("{\"Network\":", "config"),
            (r#"{"Network":"10.1.0.0/16","SubnetLen":12}"#, "config"),
            (r#"{"Network":"10.1.0.0/16","EnableIPv6":true,"IPv6Network":"fd00::/48"}"#, "config"),
            (r#"{"Network":"192.168.0.0/16"}"#, "underlay"),
        ] {
            cluster.write_config(config).unwrap();
            agree(cluster, USUAL, Some(red));
        }
        cluster.etcd().delete("/").unwrap();
        agree(cluster, USUAL, Some("config")).says("config", "red", &["overlay config set"]);
        cluster.write_config(r#"{"Network":"10.1.0.0/22","SubnetLen":24}"#).unwrap();
        for subnet in 1..4 {
            let key = format!("/coreos.com/network/subnets/10.1.{subnet}.0-24");
            cluster.etcd().put(&key, r#"{"PublicIP":"192.168.50.99","PublicIPv6":null}"#).unwrap();
        }
        agree(cluster, USUAL, Some("subnet")).says("subnet", "red", &["10.1.0.0/22", "overlay lease list"]);
    });
}

#[test]
fn ipv6_inside() {
    on_a_node(Backend::Vxlan, |cluster| {
        cluster.write_config(DUAL_STACK).unwrap();
        let checked = agree(cluster, USUAL, None);
        for (check, word) in [("config", "fd00:1::/48"), ("subnet", "fd00:1:"), ("device", "fd00:1::/48")] {
            checked.says(check, "green", &[word]);
        }
        checked.says("ipv6-forward", "green", &[]);
        cluster.nodes()[0].netns().ip("link set dev eth0 mtu 1329").unwrap();
        agree(cluster, USUAL, Some("mtu")).says("mtu", "red", &["1280", "1330"]);
    });
}

#[test]
fn interfaces() {
    on_a_node(Backend::Vxlan, |cluster| {
        agree(cluster, &["--iface", "nosuch0"], Some("underlay")).says("underlay", "red", &["nosuch0"]);
        agree(cluster, &["--iface", "lo"], Some("underlay")).says("underlay", "red", &["loopback"]);
        agree(cluster, &[], Some("underlay")).says("underlay", "red", &["no default route"]);
        let node = cluster.nodes()[0].netns();
        node.ip("link set dev eth0 mtu 620").unwrap();
        agree(cluster, USUAL, Some("mtu")).says("mtu", "red", &["620"]);
        node.ip("link set dev eth0 mtu 1000").unwrap();
        agree(cluster, USUAL, None).says("mtu", "green", &["overlay 950"]);
    });
}

#[test]
fn ways_to_decapsulate() {
    on_a_node(Backend::Udp, |cluster| {
        let with = |decap: &'static str, iface: &'static str| ["--iface", iface, "--decap", decap];
        agree(cluster, &with("kernel", "eth0"), Some("decap"));
        agree(cluster, &with("xdp", "eth0"), None).says("decap", "green", &["natively"]);
        // The kernel's bridge has no XDP of its own.
        let node = cluster.nodes()[0].netns();
        node.bridge("underlay0").unwrap();
        node.ip("address add 192.0.2.1/24 dev underlay0").unwrap();
        agree(cluster, &with("xdp", "underlay0"), Some("decap")).says("decap", "red", &["underlay0"]);
        agree(cluster, &with("auto", "underlay0"), None);
    });
}

#[test]
fn what_others_have_in_the_place_of_ours() {
    on_a_node(Backend::Vxlan, |cluster| {
        let node = cluster.nodes()[0].netns();
        let holder = node.run(|| UdpSocket::bind(("0.0.0.0", 8472))).unwrap();
        let pid = format!("(pid {})", std::process::id());
        agree(cluster, USUAL, Some("port")).says("port", "red", &["8472", &pid]);
        drop(holder);

        // Down, flannel's device has the VNI but not the port.
        node.ip("link add flannel.1 type vxlan id 1 dstport 8472 dev eth0 nolearning").unwrap();
        agree(cluster, USUAL, Some("device")).says("device", "red", &["flannel.1", "VNI 1"]);
        let leases = cluster.etcd().list("/coreos.com/network/subnets/").unwrap();
        assert!(leases.is_empty(), "it has left a lease that it does not serve: {leases:?}");
        node.ip("link del flannel.1").unwrap();

        node.ip("route add 10.1.0.0/16 dev eth0").unwrap();
        agree(cluster, USUAL, Some("device")).says("device", "red", &["routed to eth0"]);
        node.ip("route del 10.1.0.0/16 dev eth0").unwrap();

        node.ip("link add name overlay.1 type bridge").unwrap();
        agree(cluster, USUAL, Some("device")).says("device", "red", &["a bridge device of this name"]);
        node.ip("link del overlay.1").unwrap();
        agree(cluster, USUAL, None);
    });
    on_a_node(Backend::Udp, |cluster| {
        let _holder = cluster.nodes()[0].netns().run(|| UdpSocket::bind(("192.168.50.1", 8285))).unwrap();
        agree(cluster, USUAL, Some("port")).says("port", "red", &["8285"]);
    });
}

#[test]
fn places_for_files() {
    on_a_node(Backend::Vxlan, |cluster| {
        let directory = scratch().join("directory");
        fs::create_dir(&directory).unwrap();
        let directory = directory.to_str().unwrap();
        let file = scratch().join("file");
        fs::write(&file, "").unwrap();
        let below = file.join("below");
        let below = below.to_str().unwrap();
        for (option, place, red) in [
            ("--run-dir", below, "run-dir"),
            ("--subnet-file", below, "subnet-file"),
            ("--subnet-file", directory, "subnet-file"),
        ] {
            let node = &cluster.nodes()[0];
            let (run_dir, subnet_file) = (node.run_dir().to_owned(), node.subnet_file());
            let command = |verb: &str| {
                let mut command = node.overlay();
                command.arg(verb).args(cluster.datastore_arguments()).args(USUAL);
                for (name, usual) in [("--run-dir", &run_dir), ("--subnet-file", &subnet_file)] {
                    let place = if name == option { Path::new(place) } else { usual };
                    command.arg(name).arg(place);
                }
                command
            };
            let checked = agree_by(cluster, &command, Some(red));
            checked.says(red, "red", &[place, option]);
            // Without subnet.env the agent would ask for long whose lease this is.
            cluster.etcd().delete("/coreos.com/network/subnets/").unwrap();
        }
    });
}

#[test]
fn rights_and_programs() {
    on_a_node(Backend::Vxlan, |cluster| {
        let cluster: &Cluster = cluster;
        // Where cargo put it, others may not be able to reach it.
        let program = scratch().join("overlay");
        fs::copy(cluster.nodes()[0].overlay().get_program(), &program).unwrap();
        let as_nobody = |verb: &str| {
            let mut command = cluster.nodes()[0].netns().command("setpriv");
            command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&program);
            command.args(overlay(cluster, verb, USUAL).get_args());
            command
        };
        let checked = Checked::by(cluster, as_nobody("check"));
        checked.says("privileges", "red", &["run it as root"]);
        assert_eq!(checked.code, Some(1));
        assert!(!as_nobody("agent").output().unwrap().status.success());

        let without_programs = |more: &'static [&'static str]| {
            move |verb: &str| -> Command {
                let mut command = overlay(cluster, verb, USUAL);
                command.args(more).env("PATH", "/nonexistent");
                command
            }
        };
        let checked = agree_by(cluster, &without_programs(&["--ip-masq"]), Some("nftables"));
        checked.says("nftables", "red", &["install"]).says("firewall", "yellow", &["nft"]);
    });
}

#[test]
fn kernel_parameters_that_cannot_be_written() {
    on_a_node(Backend::Vxlan, |cluster| {
        let none = None::<&str>;
        let flags = nix::mount::MsFlags::MS_BIND;
        nix::mount::mount(Some("/proc/sys"), "/proc/sys", none, flags, none).unwrap();
        let read_only = flags | nix::mount::MsFlags::MS_REMOUNT | nix::mount::MsFlags::MS_RDONLY;
        nix::mount::mount(none, "/proc/sys", none, read_only, none).unwrap();
        agree(cluster, USUAL, Some("links")).says("links", "red", &["/proc/sys"]);
    });
}

#[test]
fn a_cluster_of_ones_own_settings_is_no_obstacle() {
    let settings =
        Settings { backend: Backend::Vxlan, direct_routing: true, underlay_mtu: 9000, ..Settings::default() };
    on_a_node_with(&settings, |cluster| {
        agree(cluster, &["--iface-regex", "^192[.]168[.]", "--fast-path", "off", "--decap", "kernel"], None).says(
            "mtu",
            "green",
            &["8950"],
        );
    });
}
