//! Containers that a runtime has connected talk to each other, to the outside, and the outside to them.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    time::Duration,
};

use overlay_tests::{
    cluster::{Backend, Cluster, Settings},
    families::{Families, any_like},
    netns::Netns,
    node::Node,
    sandbox::isolated,
    traffic::{Flow, ping},
    two_nodes::drops,
    underlay::Underlay,
};
use serde_json::{Value, json};

use crate::{
    networks::{Delegate, WRITERS, Writer, runtime},
    runtime::{Pod, Runtime},
    state::State,
};

pub(crate) const LIMIT: Duration = Duration::from_secs(5);

/// The port that nodes publish, and the container's behind it.
const HOST_PORT: u16 = 8080;
const PORT: u16 = 80;

/// Runs `test` on two nodes without containers, with etcd, and agents that have `arguments` as well.
pub(crate) fn on_two_nodes(backend: Backend, arguments: &[&str], test: impl FnOnce(&mut Cluster) + Send) {
    let agent_arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
    on_nodes(&Settings { backend, agent_arguments, ..Settings::default() }, test);
}

/// Runs `test` on nodes without containers, and with agents.
pub(crate) fn on_nodes(settings: &Settings, test: impl FnOnce(&mut Cluster) + Send) {
    isolated(|| {
        let mut cluster = Cluster::new(settings).expect("make a cluster");
        cluster.bring_up_agents(&settings.network_config()).expect("start the agents");
        test(&mut cluster);
    });
}

fn flow(from: &Pod, to: &Pod, address: impl Into<IpAddr>) -> Flow {
    Flow::new(from.netns(), to.netns(), address)
}

/// Opens a connection to `service`, which `listener` serves, has a word there and one back, and returns whom it seems
/// to come from.
#[track_caller]
pub(crate) fn talk(from: &Netns, service: SocketAddr, listener: &TcpListener) -> SocketAddr {
    let connected = from.run(|| TcpStream::connect_timeout(&service, LIMIT));
    let mut near = connected.unwrap_or_else(|error| panic!("connect to {service}: {error}"));
    let (mut far, client) = listener.accept().unwrap();
    near.write_all(b"there").unwrap();
    far.set_read_timeout(Some(LIMIT)).unwrap();
    far.read_exact(&mut [0; 5]).unwrap();
    far.write_all(b"back").unwrap();
    near.set_read_timeout(Some(LIMIT)).unwrap();
    near.read_exact(&mut [0; 4]).unwrap();
    client
}

/// Asks `service`, where `server` listens, over UDP; the answer comes from there. Returns whom it seemed to come from.
#[track_caller]
fn ask(from: &Netns, service: SocketAddr, server: &UdpSocket) -> SocketAddr {
    let client = from.run(|| UdpSocket::bind((any_like(service.ip()), 0))).unwrap();
    client.connect(service).unwrap();
    for socket in [&client, server] {
        socket.set_read_timeout(Some(LIMIT)).unwrap();
    }
    client.send(b"question").unwrap();
    let (_, seen) = server.recv_from(&mut [0; 8]).unwrap();
    server.send_to(b"answer", seen).unwrap();
    client.recv(&mut [0; 6]).unwrap();
    seen
}

/// Two containers talk in every way, both ways, at each of their addresses.
pub(crate) fn assert_talk(one: (&Runtime<'_>, &Pod), two: (&Runtime<'_>, &Pod)) {
    let before = [one, two].map(|(runtime, _)| drops(runtime.node));
    for (from, to) in [(one, two), (two, one)] {
        for address in to.1.addresses() {
            let pings = ping(from.1.netns(), address, 1).unwrap();
            assert_eq!(pings.received, 1, "{:?} to {address}", from.1.addresses());
            let flow = flow(from.1, to.1, address);
            let headers = if address.is_ipv4() { 28 } else { 48 };
            let largest = usize::try_from(from.0.node.subnet().mtu).unwrap() - headers;
            for size in [1, largest, largest + 1, 8000] {
                assert_eq!(flow.udp_echo(3, size).unwrap(), 3, "{size} bytes to {address}");
            }
            flow.tcp_transfer(16 << 20).unwrap();
        }
    }
    assert_eq!([one, two].map(|(runtime, _)| drops(runtime.node)), before);
}

/// Containers on both nodes, each connected by its own `delegates`, through their whole life.
fn whole_life(backend: Backend, delegates: [Delegate; 2]) {
    on_two_nodes(backend, &["--ip-masq"], |cluster| {
        let [one, two] = cluster.nodes() else { panic!("two nodes") };
        let (outside, outsider) = cluster.attach("outside", 200).unwrap();
        for writer in WRITERS {
            let runtimes = [runtime(one, writer, delegates[0]), runtime(two, writer, delegates[1])];
            let ports: Value = ["tcp", "udp"]
                .map(|protocol| json!({"hostPort": HOST_PORT, "containerPort": PORT, "protocol": protocol}))
                .to_vec()
                .into();
            let before = runtimes.each_ref().map(|runtime| State::after_first(runtime, &ports));
            for round in 0..2 {
                let pods = runtimes.each_ref().map(|runtime| runtime.pod("pod", ports.clone()));
                let [here, there] = &pods;
                assert_talk((&runtimes[0], here), (&runtimes[1], there));
                let fast = |runtime: &Runtime<'_>| !runtime.node.counters().flows().unwrap().is_empty();
                assert!(runtimes.iter().all(fast), "the fast path was not taken");

                let listener = here.netns().run(|| TcpListener::bind((here.address(), PORT))).unwrap();
                let published = SocketAddr::from((one.address(), HOST_PORT));
                assert_eq!(talk(&outside, published, &listener).ip(), outsider);
                assert_eq!(talk(two.netns(), published, &listener).ip(), two.address());
                // From a container, the other node stands for it outside of the overlay network.
                assert_eq!(talk(there.netns(), published, &listener).ip(), two.address());
                // Its own node, and itself.
                for from in [one.netns(), here.netns()] {
                    talk(from, published, &listener);
                }
                let service = here.netns().run(|| UdpSocket::bind((here.address(), PORT))).unwrap();
                assert_eq!(ask(&outside, published, &service).ip(), outsider);
                let server = outside.run(|| TcpListener::bind((outsider, PORT))).unwrap();
                assert_eq!(talk(here.netns(), SocketAddr::from((outsider, PORT)), &server).ip(), one.address());

                for (runtime, pod) in runtimes.iter().zip(&pods) {
                    // Debian's portmap looks for IPv6 rules, which it has not made; without ports it looks for none.
                    runtime.check(&Pod { ports: json!([]), ..pod.clone() }).unwrap();
                    runtime.del(pod).unwrap();
                    runtime.del(pod).expect("a second DEL finds nothing to do");
                }
                for (runtime, before) in runtimes.iter().zip(&before) {
                    before.wait(runtime.node, &format!("{writer:?}, round {round}"));
                }
            }
        }
    });
}

fn on(node: &Node, delegate: Delegate) -> Runtime<'_> {
    runtime(node, Writer::Overlay, delegate)
}

#[test]
fn containers_come_and_go_while_the_agent_is_away_and_the_next_agent_knows_them() {
    on_two_nodes(Backend::Vxlan, &["--ip-masq"], |cluster| {
        let [one, two] = cluster.nodes() else { panic!("two nodes") };
        let there = on(two, Delegate::Bridge).pod("there", json!([]));
        let before = State::after_first(&on(one, Delegate::Bridge), &json!([]));
        let goes = on(one, Delegate::Bridge).pod("goes", json!([]));
        cluster.nodes_mut()[0].agent().kill().unwrap();

        let one = &cluster.nodes()[0];
        on(one, Delegate::Bridge).del(&goes).unwrap();
        let come = [(Delegate::Bridge, "bridge"), (Delegate::Ptp, "ptp")].map(|(delegate, id)| {
            let mut pod = Pod::new(id);
            on(one, delegate).add(&mut pod).unwrap();
            for (from, to) in [(&pod, &there), (&there, &pod)] {
                flow(from, to, to.address()).tcp_transfer(1 << 20).unwrap();
            }
            (delegate, pod)
        });

        let one = &mut cluster.nodes_mut()[0];
        one.start_agent().unwrap();
        one.wait_ready().unwrap();
        let one = &cluster.nodes()[0];
        for (delegate, pod) in &come {
            one.wait_endpoint(pod.address()).unwrap();
            flow(pod, &there, there.address()).tcp_transfer(1 << 20).unwrap();
            on(one, *delegate).del(pod).unwrap();
        }
        before.wait(one, "all deleted");
    });
}

#[test]
fn where_the_agent_does_not_masquerade_the_plugin_does() {
    let (overlay, underlay) = (Families::Dual, Families::Dual);
    let settings = Settings { backend: Backend::Vxlan, overlay, underlay, ..Settings::default() };
    on_nodes(&settings, |cluster| {
        let [one, two] = cluster.nodes() else { panic!("two nodes") };
        let (outside, ipv4) = cluster.attach("outside", 200).unwrap();
        let ways: [(IpAddr, IpAddr); 2] =
            [(ipv4.into(), one.address().into()), (Underlay::v6(200).into(), Underlay::v6(1).into())];
        for (writer, delegate) in WRITERS.into_iter().flat_map(|w| [(w, Delegate::Bridge), (w, Delegate::Ptp)]) {
            let runtimes = [one, two].map(|node| runtime(node, writer, delegate));
            let pods = runtimes.each_ref().map(|runtime| runtime.pod("pod", json!([])));
            let [here, there] = &pods;
            assert_talk((&runtimes[0], here), (&runtimes[1], there));
            for (outsider, its_node) in ways {
                let server = outside.run(|| TcpListener::bind((outsider, PORT))).unwrap();
                assert_eq!(talk(here.netns(), SocketAddr::from((outsider, PORT)), &server).ip(), its_node);
            }
            for (runtime, pod) in runtimes.iter().zip(&pods) {
                let nat = State::of(runtime.node).nat;
                assert_eq!(nat.matches("MASQUERADE").count(), ways.len(), "{writer:?}, {delegate:?}: {nat}");
                runtime.del(pod).unwrap();
                assert!(!State::of(runtime.node).nat.contains("MASQUERADE"), "{writer:?}, {delegate:?}");
            }
        }
    });
}

#[test]
fn containers_on_bridges_live_and_leave_nothing_vxlan() {
    whole_life(Backend::Vxlan, [Delegate::Bridge, Delegate::Bridge]);
}

#[test]
fn containers_behind_host_routes_live_and_leave_nothing_vxlan() {
    whole_life(Backend::Vxlan, [Delegate::Ptp, Delegate::Ptp]);
}

#[test]
fn a_container_on_a_bridge_and_one_behind_a_host_route_live_and_leave_nothing_udp() {
    whole_life(Backend::Udp, [Delegate::Bridge, Delegate::Ptp]);
}
