//! Packets of every size: what fits, what is told that it does not, what is cut up.

use std::net::IpAddr;

use overlay_tests::{
    cluster::Cluster,
    node::{Container, Node, UNDERLAY_DEVICE},
    packet_socket::{Frame, PacketSocket},
    packets::{Complaint, Either},
};

use crate::ground::{
    LIMIT, Way, drops, flow, for_every_way, gateway, on_two_nodes, raise_container_mtu, said, settings, two,
};

/// ICMP's header, which ping adds to the size it is told, as it does the IP header.
const PING_HEADER: u32 = 8;

/// An underlay's MTU.
const UNDERLAY: u32 = 1500;

/// Sends one ping of which the IP packet has `size` bytes, with DF as `pmtudisc` says, and returns what ping said.
fn ping(way: Way, [from, to]: [&Container; 2], size: u32, pmtudisc: &str) -> String {
    let mut command = from.netns.command("ping");
    let data = size - way.inner_header() - PING_HEADER;
    command.args(["-n", "-c", "1", "-W", "2", "-M", pmtudisc, "-s", &data.to_string()]);
    said(command.arg(to.address().to_string()))
}

#[track_caller]
fn assert_answered(ping: &str) {
    assert!(ping.contains(" 0% packet loss"), "{ping}");
}

/// Fails unless ping's own kernel has refused to send more than `mtu`, which ping writes one way or the other.
#[track_caller]
fn assert_refused_here(ping: &str, mtu: u32) {
    let told = ["mtu=", "mtu: "].map(|word| format!("message too long, {word}{mtu}"));
    assert!(told.iter().any(|told| ping.contains(told)), "{ping}");
}

/// Forgets which MTUs the container was told.
fn forget_mtus(container: &Container) {
    let family = if container.address().is_ipv4() { "-4" } else { "-6" };
    container.netns.ip(&format!("{family} route flush cache")).unwrap();
}

/// The outer packets that `from` sends to `to` while `work` is done.
fn outer_packets([from, to]: [&Node; 2], work: impl FnOnce()) -> Vec<Either> {
    let sees = PacketSocket::open(from.netns(), UNDERLAY_DEVICE).unwrap();
    work();
    let sent = |frame: &Frame| frame.outgoing.then(|| Either::in_frame(&frame.bytes)).flatten();
    sees.drain(|frame| sent(frame).filter(|packet| to.addresses().contains(&packet.destination))).unwrap()
}

fn containers(cluster: &Cluster) -> [&Container; 2] {
    two(cluster).map(Node::container)
}

for_every_way! {
    fn exactly_the_overlay_mtu_fits_and_one_byte_more_is_refused_with_it(way) {
        on_two_nodes(&settings(way), |cluster| {
            let mtu = UNDERLAY - way.overhead();
            assert_answered(&ping(way, containers(cluster), mtu, "do"));
            assert_refused_here(&ping(way, containers(cluster), mtu + 1, "do"), mtu);
        });
    }

    fn a_container_with_a_larger_mtu_is_told_the_overlays(way) {
        on_two_nodes(&settings(way), |cluster| {
            let (node, mtu) = (two(cluster)[0], UNDERLAY - way.overhead());
            raise_container_mtu(node);
            let [one, two] = containers(cluster);
            assert_answered(&ping(way, [one, two], mtu, "do"));
            let sees = PacketSocket::open(&one.netns, "eth0").unwrap();
            for size in [mtu + 1, 9000] {
                forget_mtus(one);
                let refused = ping(way, [one, two], size, "do");
                let told = |frame: &Frame| {
                    let packet = Either::in_frame(&frame.bytes).filter(|packet| packet.destination == one.address())?;
                    Some((packet.source, packet.complaint()?))
                };
                let expected: (IpAddr, _) = (gateway(node).ip(), Complaint::TooBig { mtu });
                assert_eq!(sees.find("a complaint", LIMIT, told).unwrap(), expected, "{size}: {refused}");
            }
            // Having been told, its kernel keeps to it.
            let route = one.netns.ip(&format!("route get {}", two.address())).unwrap();
            assert!(route.contains(&format!(" mtu {mtu} ")), "{route}");
            assert_refused_here(&ping(way, [one, two], mtu + 1, "do"), mtu);
        });
    }

    fn streams_between_containers_with_larger_mtus_arrive_whole(way) {
        on_two_nodes(&settings(way), |cluster| {
            let nodes = two(cluster);
            nodes.iter().for_each(|node| raise_container_mtu(node));
            for [from, to] in [nodes, [nodes[1], nodes[0]]] {
                // Who was told takes no larger segments either.
                nodes.iter().for_each(|node| forget_mtus(node.container()));
                flow(from, to).tcp_transfer(4 << 20).unwrap();
                let route = from.container().netns.ip(&format!("route get {}", to.container().address())).unwrap();
                assert!(route.contains(&format!(" mtu {} ", UNDERLAY - way.overhead())), "was told nothing: {route}");
            }
        });
    }

    fn what_does_not_fit_and_may_be_fragmented_is_so_before_encap(way) {
        on_two_nodes(&settings(way), |cluster| {
            raise_container_mtu(two(cluster)[0]);
            let large = || ping(way, containers(cluster), 4000, "dont");
            if !way.overlay.has_v4() {
                // Nobody but the sender may cut it up: it is told so first.
                assert!(large().contains("Packet too big"));
            }
            let tunnel = outer_packets(two(cluster), || assert_answered(&large()));
            assert_eq!(tunnel.len(), 3, "{tunnel:?}");
            for packet in tunnel {
                let fits = UNDERLAY as usize - if packet.source.is_ipv4() { 20 } else { 40 };
                assert!(packet.payload.len() <= fits, "{} bytes", packet.payload.len());
                assert!(!packet.fragment && !packet.must_stay_whole, "neither a fragment nor DF: {packet:?}");
            }
        });
    }

    fn the_largest_datagram_and_a_long_stream_arrive_whole(way) {
        on_two_nodes(&settings(way), |cluster| {
            let [one, two] = two(cluster);
            for (from, to) in [(one, two), (two, one)] {
                assert_answered(&ping(way, [from.container(), to.container()], 8000, "dont"));
                assert_eq!(flow(from, to).udp_echo(2, 65_507).unwrap(), 2);
                assert!(flow(from, to).tcp_transfer(8 << 20).unwrap().bytes >= 8 << 20);
            }
            assert_eq!((drops(one), drops(two)), (vec![], vec![]));
        });
    }

    /// Nothing but its addresses tells where a fragment goes that does not begin with a UDP header.
    fn inner_fragments_of_one_datagram_all_arrive(way) {
        on_two_nodes(&settings(way), |cluster| {
            let [one, two] = two(cluster);
            let sees = PacketSocket::open(&two.container().netns, "eth0").unwrap();
            assert_eq!(flow(one, two).udp_echo(1, 4000).unwrap(), 1);
            let arrived = |packet: &Either| packet.destination == two.container().address() && packet.fragment;
            let fragments = sees.drain(|frame| Either::in_frame(&frame.bytes).filter(arrived)).unwrap();
            assert_eq!(fragments.len(), 3, "{fragments:?}");
        });
    }
}
