//! Translated flows keep to netfilter where they are translated, and come out as without the fast path.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
};

use overlay_tests::{cluster::Cluster, netns::Netns, node::Node};

use crate::ground::{
    Backend, Conversation, LIMIT, approving, for_either_backend, nft, on_two_nodes, slow, two, udp_socket,
};

/// A service's address, outside the overlay network.
const SERVICE: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 1);
const SERVICE_PORT: u16 = 80;
/// Where the container behind it listens.
const PORT: u16 = 8080;

/// Packets of a conversation: enough for an approval, many times.
const PACKETS: u32 = 200;

/// Runs `test` with the fast path, and without.
fn both_ways(backend: Backend, test: impl Fn(&Cluster) + Send + Sync) {
    for settings in [approving(backend, 2), slow(backend)] {
        on_two_nodes(&settings, |cluster| test(cluster));
    }
}

/// Fails if `node` carries a flow on the fast path.
#[track_caller]
fn assert_all_slow(node: &Node) {
    assert_eq!(node.counters().flows().unwrap(), [], "on {}", node.name());
}

/// Translates the destination of what comes to `address` and `SERVICE_PORT` on `node`.
fn balance(node: &Node, address: Ipv4Addr, to: Ipv4Addr) {
    nft(
        node,
        &format!(
            "add table ip service
             add chain ip service prerouting {{ type nat hook prerouting priority dstnat; }}
             add rule ip service prerouting ip daddr {address} meta l4proto {{ tcp, udp }} th dport {SERVICE_PORT} \
             dnat to {to}:{PORT}"
        ),
    );
}

/// Lets `from` talk over TCP with `to`, which `listener` serves; returns whom the connection seems to come from.
fn talk_over_tcp(from: &Netns, to: SocketAddr, listener: &TcpListener) -> SocketAddr {
    let mut near = from.run(|| TcpStream::connect_timeout(&to, LIMIT)).unwrap();
    let (mut far, client) = listener.accept().unwrap();
    for stream in [&near, &far] {
        stream.set_read_timeout(Some(LIMIT)).unwrap();
    }
    for number in 0..PACKETS {
        let (word, mut heard) = (number.to_be_bytes(), [0; 4]);
        near.write_all(&word).unwrap();
        far.read_exact(&mut heard).unwrap();
        far.write_all(&heard).unwrap();
        near.read_exact(&mut heard).unwrap();
        assert_eq!(heard, word);
    }
    client
}

for_either_backend! {
    fn a_service_that_is_balanced_to_a_remote_container(backend) {
        both_ways(backend, |cluster| {
            let [one, two] = two(cluster);
            let (here, there) = (one.container(), two.container());
            balance(one, SERVICE, there.address);
            let service = SocketAddr::from((SERVICE, SERVICE_PORT));
            let conversation = Conversation::towards(here, service, udp_socket(&there.netns, there.address, PORT));
            conversation.exchange_many(PACKETS);
            assert_eq!(conversation.ask().unwrap(), conversation.near.local_addr().unwrap());
            let listener = there.netns.run(|| TcpListener::bind((there.address, PORT))).unwrap();
            assert_eq!(talk_over_tcp(&here.netns, service, &listener).ip(), here.address);
            assert_all_slow(one);
        });
    }

    fn a_service_whose_address_is_a_remote_containers_and_whose_port_is_another(backend) {
        both_ways(backend, |cluster| {
            let [one, two] = two(cluster);
            let (here, there) = (one.container(), two.container());
            balance(two, there.address, there.address);
            let service = SocketAddr::from((there.address, SERVICE_PORT));
            let conversation = Conversation::towards(here, service, udp_socket(&there.netns, there.address, PORT));
            conversation.exchange_many(PACKETS);
            let listener = there.netns.run(|| TcpListener::bind((there.address, PORT))).unwrap();
            assert_eq!(talk_over_tcp(&here.netns, service, &listener).ip(), here.address);
            assert_all_slow(two);
        });
    }

    fn overlay_traffic_with_a_translated_source(backend) {
        both_ways(backend, |cluster| {
            let [one, two] = two(cluster);
            let (here, there) = (one.container(), two.container());
            let source = one.subnet().subnet();
            nft(
                one,
                &format!(
                    "add table ip hide
                     add chain ip hide postrouting {{ type nat hook postrouting priority srcnat; }}
                     add rule ip hide postrouting ip saddr {} ip daddr {} snat to {source}",
                    here.address, there.address
                ),
            );
            let conversation = Conversation::between(here, there);
            conversation.exchange_many(PACKETS);
            assert_eq!(conversation.ask().unwrap().ip(), source);
            let listener = there.netns.run(|| TcpListener::bind((there.address, PORT))).unwrap();
            let seen = talk_over_tcp(&here.netns, (there.address, PORT).into(), &listener);
            assert_eq!(seen.ip(), source);
            assert_all_slow(one);
        });
    }

    fn a_port_published_on_the_node(backend) {
        both_ways(backend, |cluster| {
            let [one, _] = two(cluster);
            let (outsider, address) = cluster.attach("outsider", 77).unwrap();
            let container = one.container();
            balance(one, one.address(), container.address);
            let outsider = overlay_tests::node::Container { netns: outsider, address };
            let published = SocketAddr::from((one.address(), SERVICE_PORT));
            let far = udp_socket(&container.netns, container.address, PORT);
            let conversation = Conversation::towards(&outsider, published, far);
            conversation.exchange_many(PACKETS);
            assert_eq!(conversation.ask().unwrap(), conversation.near.local_addr().unwrap());
            let listener = container.netns.run(|| TcpListener::bind((container.address, PORT))).unwrap();
            assert_eq!(talk_over_tcp(&outsider.netns, published, &listener).ip(), address);
            assert_all_slow(one);
        });
    }
}
