//! What the tests share: conversations that are watched, and netfilter's view of them.

use std::{
    io,
    net::{IpAddr, SocketAddr, TcpStream, UdpSocket},
    os::fd::AsRawFd as _,
    time::{Duration, Instant},
};

use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, setsockopt, socket, sockopt,
};
pub(crate) use overlay_tests::{
    cluster::Backend,
    for_each_family, for_either_backend, for_every_way,
    two_nodes::{LIMIT, Way, drops, flow, gateway, on_two_nodes, raise_container_mtu, settings, two},
};
use overlay_tests::{
    cluster::Settings,
    netns::Netns,
    node::{Container, Node},
    process::{output, wait_until},
    traffic::ping,
};

/// How long a packet may be on its way before it counts as lost.
const LOST: Duration = Duration::from_millis(200);

/// How long a stream of packets waits for one before it sends the next.
const PACE: Duration = Duration::from_millis(2);

/// Begins a TCP connection from an address and port of our choice, and waits for what comes of it unless `flags` say not to.
pub(crate) fn connecting(from: SocketAddr, to: SocketAddr, flags: SockFlag) -> io::Result<TcpStream> {
    let family = if to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let socket = socket(family, SockType::Stream, flags | SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    bind(socket.as_raw_fd(), &SockaddrStorage::from(from))?;
    match connect(socket.as_raw_fd(), &SockaddrStorage::from(to)) {
        Err(error) if error != nix::Error::EINPROGRESS => Err(error.into()),
        _ => Ok(socket.into()),
    }
}

/// How a lost packet shows: by silence, or by what ICMP has said of an earlier one.
const LOST_AS: [io::ErrorKind; 3] =
    [io::ErrorKind::WouldBlock, io::ErrorKind::ConnectionRefused, io::ErrorKind::HostUnreachable];

/// Two nodes whose agents approve flows for `seconds`.
pub(crate) fn approving(way: impl Into<Way>, seconds: u32) -> Settings {
    with(way, &["--fast-path-approval", &seconds.to_string()])
}

/// Two nodes without a fast path.
pub(crate) fn slow(way: impl Into<Way>) -> Settings {
    with(way, &["--fast-path", "off"])
}

/// Two nodes that decapsulate in native XDP.
pub(crate) fn xdp(way: impl Into<Way>) -> Settings {
    with(way, &["--decap", "xdp"])
}

fn with(way: impl Into<Way>, arguments: &[&str]) -> Settings {
    Settings { agent_arguments: arguments.iter().map(|&argument| argument.to_owned()).collect(), ..settings(way) }
}

/// A UDP socket in `netns` that gives a packet up soon.
pub(crate) fn udp_socket(netns: &Netns, address: impl Into<IpAddr>, port: u16) -> UdpSocket {
    let address = SocketAddr::new(address.into(), port);
    let socket = netns.run(|| UdpSocket::bind(address)).unwrap();
    socket.set_read_timeout(Some(LOST)).unwrap();
    socket
}

/// A UDP flow between two containers, one question at a time.
pub(crate) struct Conversation {
    pub(crate) near: UdpSocket,
    pub(crate) far: UdpSocket,
}

impl Conversation {
    /// From the container `from` to the container `to`.
    pub(crate) fn between(from: &Container, to: &Container) -> Self {
        let far = udp_socket(&to.netns, to.address(), 0);
        Self::towards(from, far.local_addr().unwrap(), far)
    }

    /// From the container `from` to `service`, where `far` answers.
    pub(crate) fn towards(from: &Container, service: SocketAddr, far: UdpSocket) -> Self {
        let near = udp_socket(&from.netns, from.address(), 0);
        near.connect(service).unwrap();
        Self { near, far }
    }

    /// Sends one packet there and one back. Says whether both have arrived.
    pub(crate) fn exchange(&self) -> bool {
        let answered = self.ask().and_then(|from| {
            self.far.send_to(b"answer", from)?;
            self.near.recv(&mut [0; 16])
        });
        match answered {
            Ok(length) => length == b"answer".len(),
            Err(error) if LOST_AS.contains(&error.kind()) => false,
            Err(error) => panic!("exchange: {error}"),
        }
    }

    /// Sends one packet there, and returns whom it seems to come from.
    pub(crate) fn ask(&self) -> io::Result<SocketAddr> {
        self.near.send(b"question")?;
        self.far.recv_from(&mut [0; 16]).map(|(_, from)| from)
    }

    pub(crate) fn exchange_many(&self, count: u32) {
        for number in 0..count {
            assert!(self.exchange(), "exchange {number} of {count} was lost");
        }
    }

    /// Exchanges packets until both nodes carry the flow on the fast path.
    pub(crate) fn engage(&self, nodes: [&Node; 2]) {
        wait_until("the flow to be approved on both nodes", LIMIT, || {
            self.exchange() && nodes.iter().all(|node| self.is_fast(node))
        })
        .unwrap_or_else(|error| panic!("{error:#}: {:?}", nodes.map(|node| node.counters().carried())));
        // The answer to the last question may have been the one that was approved last.
        assert!(self.exchange());
    }

    /// Whether `node` carries the flow on the fast path.
    pub(crate) fn is_fast(&self, node: &Node) -> bool {
        is_fast(node, 17, [&self.near, &self.far].map(|socket| socket.local_addr().unwrap()))
    }

    /// Sends packets both ways for `time`, whether they arrive or not, and returns when the last one arrived at the near and
    /// at the far end.
    pub(crate) fn last_arrivals_within(&self, time: Duration) -> [Duration; 2] {
        let start = Instant::now();
        let mut last = [Duration::ZERO; 2];
        let (near, far) = (self.near.local_addr().unwrap(), self.near.peer_addr().unwrap());
        for socket in [&self.near, &self.far] {
            socket.set_read_timeout(Some(PACE)).unwrap();
        }
        while start.elapsed() < time {
            // An ICMP error about something sent earlier shows here, and is over then.
            self.near.send_to(b"there", far).ok();
            self.far.send_to(b"back", near).ok();
            for (socket, last) in [&self.near, &self.far].into_iter().zip(&mut last) {
                if socket.recv(&mut [0; 16]).is_ok() {
                    *last = start.elapsed();
                }
            }
        }
        for socket in [&self.near, &self.far] {
            socket.set_read_timeout(Some(LOST)).unwrap();
        }
        self.drain();
        last
    }

    /// Takes what has come and was not yet read.
    fn drain(&self) {
        for socket in [&self.near, &self.far] {
            socket.set_nonblocking(true).unwrap();
            while socket.recv(&mut [0; 16]).is_ok() {}
            socket.set_nonblocking(false).unwrap();
        }
    }
}

/// Whether `node` carries the flow of `protocol` between `ends` on the fast path.
pub(crate) fn is_fast(node: &Node, protocol: u8, ends: [SocketAddr; 2]) -> bool {
    carries(node, |flow, [local, remote]| flow == protocol && ends.contains(&local) && ends.contains(&remote))
}

/// Whether `node` carries a flow on the fast path whose protocol and ends, the local one first, `wanted` likes.
pub(crate) fn carries(node: &Node, wanted: impl Fn(u8, [SocketAddr; 2]) -> bool) -> bool {
    node.counters().carried().unwrap().into_iter().any(|(protocol, ends)| wanted(protocol, ends))
}

/// Starts another container on `node`, with the last byte `host` of the address; `veth` is the node's side.
pub(crate) fn start_container(node: &Node, veth: &str, host: u32) -> Container {
    Container::join(node.netns(), node.subnet(), veth, host).unwrap()
}

/// Lets the new owner of an address make itself known, by the question for its gateway that comes before its first packet.
pub(crate) fn announce(container: &Container, node: &Node) {
    let answered = || ping(&container.netns, gateway(node).ip(), 1).unwrap().received == 1;
    wait_until("the gateway to answer the new container", LIMIT, answered).unwrap();
}

/// Adds rules of nftables, as `nft -f` reads them, to `node`.
pub(crate) fn nft(node: &Node, rules: &str) -> String {
    output(node.netns().command("nft").arg(rules)).unwrap()
}

/// Counts the packets of `filter` that `node` forwards past netfilter, from now on.
pub(crate) struct Forwarded<'a> {
    node: &'a Node,
}

impl<'a> Forwarded<'a> {
    /// Goes on with a count that was begun on `node`, or begins one of all TCP and UDP packets.
    pub(crate) fn continued(node: &'a Node) -> Self {
        match output(node.netns().command("nft").arg("list table inet probe")) {
            Ok(_) => Self { node },
            Err(_) => Self::count(node, "meta l4proto { tcp, udp }"),
        }
    }

    pub(crate) fn count(node: &'a Node, filter: &str) -> Self {
        nft(
            node,
            &format!(
                "add table inet probe
                 add counter inet probe forwarded
                 add chain inet probe forward {{ type filter hook forward priority -150; }}
                 add rule inet probe forward {filter} counter name forwarded"
            ),
        );
        Self { node }
    }

    /// How many they are so far.
    pub(crate) fn packets(&self) -> u64 {
        let text = nft(self.node, "list counter inet probe forwarded");
        let packets = text.split("packets ").nth(1).and_then(|rest| rest.split(' ').next());
        packets.and_then(|packets| packets.parse().ok()).unwrap_or_else(|| panic!("no count: {text}"))
    }
}
