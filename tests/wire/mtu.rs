//! Packets of every size: what fits, what is told that it does not, what is cut up.

use overlay_tests::{
    cluster::Cluster,
    node::{BRIDGE, Container, Node, UNDERLAY_DEVICE},
    packet_socket::PacketSocket,
    packets::Ipv4,
};

use crate::ground::{Backend, flow, for_either_backend, on_two_nodes, said, settings, two};

/// IPv4 and ICMP header: what ping adds to the size it is told.
const PING_HEADERS: u32 = 28;

/// Bit in an IPv4 header: more fragments follow.
const MORE_FRAGMENTS: u16 = 0x2000;

fn overlay_mtu(backend: Backend) -> u32 {
    match backend {
        Backend::Udp => 1472,
        Backend::Vxlan => 1450,
    }
}

/// Sends one ping of which the IP packet has `size` bytes, with DF as `pmtudisc` says, and returns what ping said.
fn ping(from: &Container, to: &Container, size: u32, pmtudisc: &str) -> String {
    let mut command = from.netns.command("ping");
    command.args(["-n", "-c", "1", "-W", "2", "-M", pmtudisc, "-s", &(size - PING_HEADERS).to_string()]);
    said(command.arg(to.v4().to_string()))
}

#[track_caller]
fn assert_answered(ping: &str) {
    assert!(ping.contains(" 0% packet loss"), "{ping}");
}

/// Lets the container of `node` send larger packets than the overlay carries.
fn raise_container_mtu(node: &Node) {
    node.netns().ip("link set dev container mtu 9000").unwrap();
    node.netns().ip(&format!("link set dev {BRIDGE} mtu 9000")).unwrap();
    node.container().netns.ip("link set dev eth0 mtu 9000").unwrap();
}

/// The outer packets that `node` sends while `work` is done.
fn outer_packets(node: &Node, work: impl FnOnce()) -> Vec<Ipv4> {
    let sees = PacketSocket::open(node.netns(), UNDERLAY_DEVICE).unwrap();
    work();
    sees.drain(|frame| frame.outgoing.then(|| Ipv4::in_frame(&frame.bytes)).flatten()).unwrap()
}

fn containers(cluster: &Cluster) -> [&Container; 2] {
    two(cluster).map(Node::container)
}

for_either_backend! {
    fn exactly_the_overlay_mtu_fits_and_one_byte_more_is_refused_with_it(backend) {
        on_two_nodes(&settings(backend), |cluster| {
            let mtu = overlay_mtu(backend);
            let [one, two] = containers(cluster);
            assert_answered(&ping(one, two, mtu, "do"));
            let refused = ping(one, two, mtu + 1, "do");
            assert!(refused.contains(&format!("message too long, mtu={mtu}")), "{refused}");
        });
    }

    fn a_container_with_a_larger_mtu_is_told_the_overlays(backend) {
        on_two_nodes(&settings(backend), |cluster| {
            let mtu = overlay_mtu(backend);
            raise_container_mtu(two(cluster)[0]);
            let [one, two] = containers(cluster);
            assert_answered(&ping(one, two, mtu, "do"));
            for size in [mtu + 1, 9000] {
                one.netns.ip("route flush cache").unwrap();
                let refused = ping(one, two, size, "do");
                assert!(refused.contains(&format!("Frag needed and DF set (mtu = {mtu})")), "{size}: {refused}");
            }
            // Having been told, its kernel keeps to it.
            let refused = ping(one, two, mtu + 1, "do");
            assert!(refused.contains(&format!("message too long, mtu={mtu}")), "{refused}");
        });
    }

    fn what_does_not_fit_and_may_be_fragmented_is_so_before_encap(backend) {
        on_two_nodes(&settings(backend), |cluster| {
            raise_container_mtu(two(cluster)[0]);
            let [one, two_] = containers(cluster);
            let outer = outer_packets(two(cluster)[0], || assert_answered(&ping(one, two_, 4000, "dont")));
            let tunnel: Vec<_> = outer.iter().filter(|packet| packet.destination == two(cluster)[1].address()).collect();
            assert_eq!(tunnel.len(), 3, "{tunnel:?}");
            for packet in tunnel {
                assert!(packet.payload.len() <= 1480, "{} bytes", packet.payload.len());
                assert_eq!(packet.flags_and_offset, 0, "neither a fragment nor DF");
            }
        });
    }

    fn the_largest_datagram_and_a_long_stream_arrive_whole(backend) {
        on_two_nodes(&settings(backend), |cluster| {
            let [one, two] = two(cluster);
            for (from, to) in [(one, two), (two, one)] {
                assert_eq!(flow(from, to).udp_echo(2, 65_507).unwrap(), 2);
                assert!(flow(from, to).tcp_transfer(8 << 20).unwrap().bytes >= 8 << 20);
            }
            assert_eq!((one.counters().drops().unwrap(), two.counters().drops().unwrap()), (vec![], vec![]));
        });
    }

    /// Nothing but its addresses tells where a fragment goes that does not begin with a UDP header.
    fn inner_fragments_of_one_datagram_all_arrive(backend) {
        on_two_nodes(&settings(backend), |cluster| {
            let [one, two] = two(cluster);
            let sees = PacketSocket::open(&two.container().netns, "eth0").unwrap();
            assert_eq!(flow(one, two).udp_echo(1, 4000).unwrap(), 1);
            let arrived = |packet: &Ipv4| packet.destination == two.container().v4();
            let fragments = sees.drain(|frame| Ipv4::in_frame(&frame.bytes).filter(arrived)).unwrap();
            let fragments: Vec<_> = fragments.iter().map(|packet| packet.flags_and_offset).collect();
            assert_eq!(fragments.len(), 3, "{fragments:x?}");
            assert!(fragments[..2].iter().all(|flags| flags & MORE_FRAGMENTS != 0), "{fragments:x?}");
        });
    }
}
