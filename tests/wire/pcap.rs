//! Our packets as Wireshark reads them.

use std::{net::UdpSocket, path::Path};

use nix::sys::signal::Signal;
use overlay_tests::{
    cluster::Cluster,
    node::UNDERLAY_DEVICE,
    process::{self, Process},
    traffic::ping,
};

use crate::ground::{Backend, LIMIT, flow, for_either_backend, on_two_nodes, settings, two};

/// Expert information of this severity or above is a warning.
const WARNING: u32 = 0x60_0000;

/// What the last packet of a capture carries, and all packets but that one.
const LAST: &[u8] = b"that is all";
const TUNNEL: &str = "not udp.port == 9";

/// What tcpdump sees on the underlay of the first node while `work` is done, in the file `path`.
fn capture(cluster: &Cluster, path: &Path, work: impl FnOnce()) {
    let mut command = two(cluster)[0].netns().command("tcpdump");
    command
        .args(["-i", UNDERLAY_DEVICE, "-n", "-U", "-s", "0", "-B", "16384", "-Z", "root", "-w"])
        .arg(path)
        .arg("udp");
    let mut tcpdump = Process::spawn("tcpdump", command, &cluster.directory().join("tcpdump.log")).unwrap();
    let log = cluster.directory().join("tcpdump.log");
    let listens = || Ok(std::fs::read_to_string(&log)?.contains("listening on").then_some(()));
    tcpdump.wait_ready("its capture", LIMIT, listens).unwrap();
    work();
    // tcpdump takes packets from the kernel in batches and drops the last one when it is told to end.
    let [one, two] = two(cluster);
    let socket = one.netns().run(|| UdpSocket::bind((one.address(), 0))).unwrap();
    socket.send_to(LAST, (two.address(), 9)).unwrap();
    let complete = || Ok(std::fs::read(path)?.windows(LAST.len()).any(|window| window == LAST).then_some(()));
    tcpdump.wait_ready("its last packet", LIMIT, complete).unwrap();
    tcpdump.signal(Signal::SIGINT).unwrap();
    tcpdump.wait(LIMIT).unwrap();
    assert!(tcpdump.log().contains("0 packets dropped by kernel"), "{}", tcpdump.log());
}

/// The `fields` of the packets in `path` that `filter` lets through, one packet a line. Every checksum is verified.
fn tshark(backend: Backend, path: &Path, filter: &str, fields: &[&str]) -> Vec<String> {
    let port = match backend {
        Backend::Udp => "udp.port==8285,ip",
        Backend::Vxlan => "udp.port==8472,vxlan",
    };
    let mut command = process::command("tshark");
    command.args(["-n", "-r"]).arg(path).args(["-d", port, "-Y", filter, "-T", "fields"]);
    for checksum in ["ip.check_checksum", "udp.check_checksum", "tcp.check_checksum"] {
        command.args(["-o", &format!("{checksum}:TRUE")]);
    }
    // How TCP fared says nothing about our headers.
    command.args(["-o", "tcp.analyze_sequence_numbers:FALSE"]);
    command.args(fields.iter().flat_map(|field| ["-e", field]));
    process::output(&mut command).unwrap().lines().map(str::to_owned).collect()
}

for_either_backend! {
    fn wireshark_finds_nothing_wrong_in_our_packets(backend) {
        on_two_nodes(&settings(backend), |cluster| {
            let [one, two] = two(cluster);
            for node in [one, two] {
                // Or checksums would be left for hardware that a veth does not have.
                node.container().netns.offload("eth0", &["tx"], false).unwrap();
                // To Wireshark, what arrives twice on a busy machine is worth a warning.
                node.container().netns.sysctl("net.ipv4.tcp_dsack", "0").unwrap();
            }
            let path = cluster.directory().join("underlay.pcap");
            capture(cluster, &path, || {
                assert_eq!(ping(&one.container().netns, two.container().v4(), 1).unwrap().received, 1);
                for (from, to) in [(one, two), (two, one)] {
                    assert_eq!(flow(from, to).udp_echo(2, 100).unwrap(), 2);
                    assert_eq!(flow(from, to).udp_echo(1, 4000).unwrap(), 1);
                    flow(from, to).tcp_transfer(200_000).unwrap();
                }
            });
            let wrong = format!("(_ws.malformed or _ws.expert.severity >= {WARNING}) and {TUNNEL}");
            let wrong = tshark(backend, &path, &wrong, &["frame.number", "frame.protocols", "_ws.expert.message"]);
            assert_eq!(wrong, [""; 0]);
            check_contents(backend, &path);
        });
    }
}

/// That the dissector has understood what the packets are, or it would have found nothing wrong in anything.
fn check_contents(backend: Backend, path: &Path) {
    let protocols = match backend {
        Backend::Udp => "eth:ethertype:ip:udp:ip:",
        Backend::Vxlan => "eth:ethertype:ip:udp:vxlan:eth:ethertype:ip:",
    };
    let fields = ["frame.protocols", "ip.checksum.status", "tcp.checksum.status"];
    let packets = tshark(backend, path, TUNNEL, &fields);
    for kind in ["icmp", "udp", "tcp"] {
        let seen = packets.iter().filter(|line| line.starts_with(&format!("{protocols}{kind}"))).count();
        assert!(seen > 1, "{seen} packets are {protocols}{kind} in {packets:#?}");
    }
    for packet in &packets {
        let fields: Vec<_> = packet.split('\t').collect();
        // Outer and inner header, both verified and good.
        assert_eq!(fields[1], "1,1", "{packet}");
        assert!(["", "1"].contains(&fields[2]), "{packet}");
    }
}
