//! Packets from a capture.

use std::{fs, path::PathBuf, slice};

use overlay_tests::{
    node::{Node, UNDERLAY_DEVICE},
    packets::{ETHER_ARP, ETHER_IPV4, ETHER_IPV6, Ipv4, Ipv6, PROTO_UDP, checksummed, ethernet, udp, vxlan},
};

use crate::ground::{Backend, Traced, all_families, for_either_backend, maps, on_two_nodes, run, settings, two};

/// Link types of captures.
pub(crate) const LINK_ETHERNET: u32 = 1;
const LINK_RAW: u32 = 101;

/// MAC addresses that nobody has.
const SOURCE: [u8; 6] = [2, 0, 0, 0, 0, 4];
const DESTINATION: [u8; 6] = [2, 0, 0, 0, 0, 2];

/// Packets as a file of tcpdump's has them, each with all its bytes but the last `missing`.
pub(crate) fn pcap(link: u32, packets: &[Vec<u8>], missing: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(0xa1b2_c3d4_u32.to_le_bytes());
    bytes.extend([2, 0, 4, 0].into_iter().chain([0; 8]));
    bytes.extend(65_535_u32.to_le_bytes());
    bytes.extend(link.to_le_bytes());
    for packet in packets {
        let length = packet.len() as u32;
        bytes.extend([0; 8]);
        bytes.extend([length, length + missing].iter().flat_map(|length| length.to_le_bytes()));
        bytes.extend(packet);
    }
    bytes
}

/// A packet as a file of Wireshark's has it.
fn pcapng(packet: &[u8]) -> Vec<u8> {
    let block = |kind: u32, body: &[u8]| {
        let padded = [body, &vec![0; body.len().next_multiple_of(4) - body.len()]].concat();
        let length = (padded.len() as u32 + 12).to_le_bytes();
        [kind.to_le_bytes().as_slice(), &length, &padded, &length].concat()
    };
    let length = (packet.len() as u32).to_le_bytes();
    let section = [0x1a2b_3c4d_u32.to_le_bytes().as_slice(), &[1, 0, 0, 0], &[0xff; 8]].concat();
    let interface = [LINK_ETHERNET.to_le_bytes().as_slice(), &[0; 4]].concat();
    let enhanced = [&[0; 12], length.as_slice(), &length, packet].concat();
    [block(0x0a0d_0d0a, &section), block(1, &interface), block(6, &enhanced)].concat()
}

/// The capture in a file.
pub(crate) fn file(node: &Node, capture: &[u8]) -> PathBuf {
    let file = node.run_dir().join("captured.pcap");
    fs::write(&file, capture).expect("write the capture");
    file
}

/// What is traced on `node` of the one packet in `capture`.
fn traced(node: &Node, capture: &[u8], options: &str) -> Traced {
    Traced::by(node, &format!("--pcap {} {options}", file(node, capture).display()))
}

/// From the container of `one` to that of `two`.
fn inner(one: &Node, two: &Node) -> Ipv4 {
    Ipv4::new(one.container().v4(), two.container().v4(), PROTO_UDP, udp(1000, 2000, b"hello"))
}

fn frame(packet: &Ipv4) -> Vec<u8> {
    ethernet(DESTINATION, SOURCE, ETHER_IPV4, &packet.bytes())
}

/// The same in a tunnel, with these VXLAN flags, as it is on the wire.
fn outer(backend: Backend, one: &Node, two: &Node, inner: &Ipv4, flags: u8) -> Vec<u8> {
    let [from, to] = [one, two].map(|node| node.counters().local_node().unwrap().vtep::<[u8; 4]>());
    let payload = match backend {
        Backend::Udp => inner.bytes(),
        Backend::Vxlan => vxlan(flags, 1, &ethernet(to.mac, from.mac, ETHER_IPV4, &inner.bytes())),
    };
    frame(&Ipv4::new(one.address(), two.address(), PROTO_UDP, udp(50_000, to.port, &payload)))
}

for_either_backend! {
    fn a_captured_packet_is_traced_where_its_addresses_tell(backend) {
        on_two_nodes(&settings(backend), |cluster| {
            let [one, two] = two(cluster);
            let inner = inner(one, two);
            let outer = outer(backend, one, two, &inner, 0x08);
            let before = [one, two].map(maps);
            let arrives = "arrives in the container behind container";
            let leaves = format!("leaves by {UNDERLAY_DEVICE} for node {}", two.address());
            for (what, node, capture, result) in [
                ("the tunnel packet comes in", two, pcap(LINK_ETHERNET, slice::from_ref(&outer), 0), arrives),
                ("of pcapng as well", two, pcapng(&outer), arrives),
                ("what it carries goes out", one, pcapng(&outer), leaves.as_str()),
                ("the container's packet goes out", one, pcapng(&frame(&inner)), &leaves),
                ("it comes from its node", two, pcapng(&frame(&inner)), arrives),
            ] {
                let traced = traced(node, &capture, "");
                assert_eq!(traced.result(), result, "{what}: {traced:?}");
            }
            assert_eq!([one, two].map(maps), before);
        });
    }
}

#[test]
fn a_captured_packet_of_ipv6_is_traced_as_well() {
    on_two_nodes(&all_families(Backend::Vxlan), |cluster| {
        let [one, two] = two(cluster);
        let (source, destination) = (one.container().v6(), two.container().v6());
        let inner = checksummed(source, destination, PROTO_UDP, udp(1000, 2000, b"hello"));
        let inner = Ipv6::new(source, destination, PROTO_UDP, inner).bytes();
        let [from, to] = [one, two].map(|node| node.counters().local_node().unwrap().vtep::<[u8; 16]>());
        let framed = |packet: &[u8]| ethernet(DESTINATION, SOURCE, ETHER_IPV6, packet);
        let tunnelled = |flags| {
            let payload = vxlan(flags, 1, &ethernet(to.mac, from.mac, ETHER_IPV6, &inner));
            let datagram = checksummed(from.address, to.address, PROTO_UDP, udp(50_000, to.port, &payload));
            framed(&Ipv6::new(from.address, to.address, PROTO_UDP, datagram).bytes())
        };
        let (bare, whole) = (framed(&inner), tunnelled(0x08));
        let before = [one, two].map(maps);
        let arrives = "arrives in the container behind container";
        let leaves = format!("leaves by {UNDERLAY_DEVICE} for node {}", to.address);
        for (what, node, frame, result) in [
            ("the tunnel packet comes in", two, &whole, arrives),
            ("what it carries goes out", one, &whole, leaves.as_str()),
            ("the container's packet goes out", one, &bare, &leaves),
            ("it comes from its node", two, &bare, arrives),
        ] {
            let traced = traced(node, &pcapng(frame), "");
            assert_eq!(traced.result(), result, "{what}: {traced:?}");
        }
        for (frame, options, program, reason) in [
            (&bare, format!("--on {UNDERLAY_DEVICE}"), "from_underlay", "NotEncapsulated"),
            (&tunnelled(0x88), String::new(), "from_underlay", "BadVxlanFlags"),
            (&whole, "--on lo".to_owned(), "admit", "NotAccepted"),
        ] {
            let traced = traced(two, &pcapng(frame), &options);
            assert_eq!((traced.reasons(), traced.success), (vec![reason], false), "{traced:?}");
            assert_eq!(traced.result(), format!("dropped by {program}, {reason}"), "{traced:?}");
            assert_eq!(traced.at("kernel").contains("overlay-v6.1"), program == "admit", "{traced:?}");
        }
        assert_eq!([one, two].map(maps), before);
    });
}

#[test]
fn a_captured_packet_is_traced_byte_by_byte_or_refused_in_one_line() {
    on_two_nodes(&settings(Backend::Vxlan), |cluster| {
        let [one, two] = two(cluster);
        let back = inner(two, one);
        let tunnelled = |inner: &Ipv4, flags| outer(Backend::Vxlan, two, one, inner, flags);
        let long = Ipv4 { total_length: Some(1000), ..back.clone() };
        let gateway = Ipv4 { source: one.subnet().address(1), ..inner(one, two) };
        let overlay = format!("--on {}", overlay_device(one));
        let underlay = format!("--on {UNDERLAY_DEVICE}");
        for (frame, options, program, reason) in [
            (frame(&gateway), "--on container", "from_container", "SpoofedNeighbour"),
            (ethernet(DESTINATION, SOURCE, ETHER_ARP, &[0; 28]), &overlay, "to_overlay", "NotIpv4"),
            (frame(&back), &underlay, "from_underlay", "NotEncapsulated"),
            (tunnelled(&back, 0x88), "", "from_underlay", "BadVxlanFlags"),
            (tunnelled(&long, 0x08), "", "from_underlay", "BadLength"),
            (tunnelled(&back, 0x08), "--on lo", "admit", "NotAccepted"),
        ] {
            let traced = traced(one, &pcap(LINK_ETHERNET, &[frame], 0), options);
            assert_eq!((traced.reasons(), traced.success), (vec![reason], false), "{traced:?}");
            assert_eq!(traced.result(), format!("dropped by {program}, {reason}"), "{traced:?}");
        }
        let whole = tunnelled(&back, 0x08);
        let cut = pcap(LINK_ETHERNET, slice::from_ref(&whole), 0);
        for (capture, options, said) in [
            (pcap(LINK_ETHERNET, &[], 0), "", "has no packet"),
            (pcap(LINK_ETHERNET, &[whole.clone(), whole.clone()], 0), "", "has more than one packet"),
            (pcap(LINK_RAW, &[back.bytes()], 0), "", "link type 101"),
            (pcap(LINK_ETHERNET, slice::from_ref(&whole), 9), "", "bytes of a packet of"),
            (cut[..cut.len() - 1].to_vec(), "", "read the capture"),
            (b"no capture at all, but text".to_vec(), "", "read the capture"),
            (pcapng(&ethernet(DESTINATION, SOURCE, ETHER_ARP, &[0; 28])), "", "--on"),
            (pcapng(&whole), "--on nothing", "find interface nothing"),
        ] {
            let output = run(one, &format!("--pcap {} {options}", file(one, &capture).display()));
            let error = String::from_utf8(output.stderr).expect("text");
            assert_eq!(output.status.code(), Some(1), "{said}: {error}");
            assert!(error.contains(said) && error.lines().count() == 1, "{said}: {error}");
        }
    });
}

/// The name of the overlay device of `node`.
fn overlay_device(node: &Node) -> String {
    let index = node.counters().local_node().unwrap().usual_device::<[u8; 4]>().ifindex;
    let name = node.netns().run(|| nix::net::if_::if_indextoname(index)).expect("the overlay device");
    name.into_string().expect("a name")
}
