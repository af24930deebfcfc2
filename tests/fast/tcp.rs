//! TCP connections from their first packet to their last.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    thread,
    time::Duration,
};

use nix::sys::socket::{SockFlag, setsockopt, sockopt};
use overlay_tests::{node::Node, packet_socket::PacketSocket, packets::Complaint, process::wait_until};

use crate::{
    ground::{
        LIMIT, approving, connecting, flow, for_each_family, for_every_way, gateway, is_fast, nft, on_two_nodes,
        raise_container_mtu, two,
    },
    headers::complaint,
};

/// A connection between two containers.
struct Connection {
    near: TcpStream,
    far: TcpStream,
    ends: [SocketAddr; 2],
}

impl Connection {
    /// From the container of `from` to `listener`; from `port`, if it is not 0.
    fn open(from: &Node, port: u16, listener: &TcpListener) -> Self {
        let to = listener.local_addr().unwrap();
        let own = SocketAddr::new(from.container().address(), port);
        let near = from.container().netns.run(|| connecting(own, to, SockFlag::empty()));
        let near = near.unwrap_or_else(|error| panic!("connect to {to}: {error}"));
        let (far, client) = listener.accept().unwrap();
        for stream in [&near, &far] {
            stream.set_read_timeout(Some(LIMIT)).unwrap();
            stream.set_nodelay(true).unwrap();
        }
        Self { near, far, ends: [client, to] }
    }

    fn exchange(&mut self) {
        let (word, mut heard) = (*b"word", [0; 4]);
        self.near.write_all(&word).unwrap();
        self.far.read_exact(&mut heard).unwrap();
        self.far.write_all(&heard).unwrap();
        self.near.read_exact(&mut heard).unwrap();
        assert_eq!(heard, word);
    }

    /// Exchanges words until both nodes carry the connection on the fast path.
    fn engage(&mut self, nodes: [&Node; 2]) {
        wait_until("the connection to be approved on both nodes", LIMIT, || {
            self.exchange();
            nodes.iter().all(|node| is_fast(node, 6, self.ends))
        })
        .unwrap();
        self.exchange();
    }
}

fn listen(node: &Node) -> TcpListener {
    let container = node.container();
    container.netns.run(|| TcpListener::bind((container.address(), 0))).unwrap()
}

/// Makes closing `stream` reset the connection.
fn reset_on_close(stream: &TcpStream) {
    setsockopt(stream, sockopt::Linger, &nix::libc::linger { l_onoff: 1, l_linger: 0 }).unwrap();
}

/// Sends some megabytes, and fails unless they arrive as they were sent.
fn carry(mut from: &TcpStream, mut to: &TcpStream) {
    let sent: Vec<u8> = (0..4_u32 << 20).map(|number| (number >> 8) as u8).collect();
    let mut received = vec![0; sent.len()];
    thread::scope(|scope| {
        scope.spawn(|| from.write_all(&sent).unwrap());
        to.read_exact(&mut received).unwrap();
    });
    assert!(received == sent, "other bytes arrived");
}

fn assert_leaves(ends: [SocketAddr; 2], nodes: [&Node; 2], why: &str) {
    wait_until(&format!("{why} to end the approval on both nodes"), LIMIT, || {
        nodes.iter().all(|node| !is_fast(node, 6, ends))
    })
    .unwrap();
}

for_each_family! {
    fn closing_or_resetting_a_connection_ends_its_approval_on_both_nodes(way) {
        on_two_nodes(&approving(way, 60), |cluster| {
            let nodes = two(cluster);
            let listener = listen(nodes[1]);
            for (why, reset) in [("FIN", false), ("RST", true)] {
                let mut connection = Connection::open(nodes[0], 0, &listener);
                connection.engage(nodes);
                let ends = connection.ends;
                if reset {
                    reset_on_close(&connection.near);
                }
                drop(connection);
                assert_leaves(ends, nodes, why);
            }
        });
    }

    fn a_port_can_be_used_again_at_once(way) {
        on_two_nodes(&approving(way, 60), |cluster| {
            let nodes = two(cluster);
            let listener = listen(nodes[1]);
            for round in 0..6 {
                let mut connection = Connection::open(nodes[0], 40_000, &listener);
                connection.engage(nodes);
                assert_eq!(connection.ends[0].port(), 40_000);
                // The container that is gone without a word comes back as a new one: every second time, nobody closes.
                if round % 2 == 0 {
                    reset_on_close(&connection.near);
                }
                // Whoever closes first keeps the port for a while: not the near side.
                drop(connection.far);
                assert_eq!(connection.near.read(&mut [0; 1]).unwrap(), 0, "the far side's end");
                drop(connection.near);
            }
        });
    }

    fn a_connection_closed_on_one_side_goes_on_carrying_the_other(way) {
        on_two_nodes(&approving(way, 60), |cluster| {
            let nodes = two(cluster);
            let listener = listen(nodes[1]);
            let mut connection = Connection::open(nodes[0], 0, &listener);
            connection.engage(nodes);
            connection.near.shutdown(Shutdown::Write).unwrap();
            assert_eq!(connection.far.read(&mut [0; 1]).unwrap(), 0, "the end of what the near side sends");
            carry(&connection.far, &connection.near);
            connection.far.shutdown(Shutdown::Write).unwrap();
            assert_eq!(connection.near.read(&mut [0; 1]).unwrap(), 0, "the end of what the far side sends");
            assert_leaves(connection.ends, nodes, "the second FIN");
        });
    }

    fn conntrack_that_drops_what_it_calls_invalid_does_not_stall_a_stream(way) {
        on_two_nodes(&approving(way, 1), |cluster| {
            let [one, two] = two(cluster);
            for node in [one, two] {
                nft(
                    node,
                    "add table inet strict
                     add counter inet strict invalid
                     add chain inet strict forward { type filter hook forward priority 0; }
                     add rule inet strict forward ct state invalid counter name invalid drop",
                );
            }
            for (from, to) in [(one, two), (two, one)] {
                flow(from, to).tcp_stream(Duration::from_secs(5)).unwrap();
            }
            for node in [one, two] {
                let counted = nft(node, "list counter inet strict invalid");
                assert!(counted.contains("packets 0 "), "{}: {counted}", node.name());
            }
        });
    }
}

for_every_way! {
    fn segments_that_do_not_fit_are_refused_with_the_overlays_mtu_and_the_stream_arrives_whole(way) {
        on_two_nodes(&approving(way, 60), |cluster| {
            let nodes = two(cluster);
            nodes.iter().for_each(|node| raise_container_mtu(node));
            let listener = listen(nodes[1]);
            let mut connection = Connection::open(nodes[0], 0, &listener);
            connection.engage(nodes);
            let sees = PacketSocket::open(&nodes[0].container().netns, "eth0").unwrap();
            carry(&connection.near, &connection.far);
            // Not by what opens or closes a connection: that meets the kernel anyway.
            let expected = (gateway(nodes[0]).ip(), Complaint::TooBig { mtu: 1500 - way.overhead() });
            assert_eq!(complaint(&sees, nodes[0].container()), expected);
        });
    }
}
