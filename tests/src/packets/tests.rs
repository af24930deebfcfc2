//! The kernel judges what is built here: it answers, or its sockets receive.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket},
    time::Duration,
};

use super::{
    ndp::{self, Neighbour},
    *,
};
use crate::{
    netns::Netns,
    packet_socket::{Frame, PacketSocket, mac},
    process::wait_until,
};

const LIMIT: Duration = Duration::from_secs(5);

/// Us, who are nobody but a packet socket, and the kernel at the other end of a link.
const US: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
const KERNEL: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);

/// A kernel that knows us, and our end of the link to it.
struct Ground {
    kernel: Netns,
    socket: PacketSocket,
    ours: [u8; 6],
    theirs: [u8; 6],
    _near: Netns,
}

impl Ground {
    fn new() -> Self {
        let (near, kernel) = (Netns::new().unwrap(), Netns::new().unwrap());
        near.veth("a", &kernel, "b", 1500).unwrap();
        for address in ["2001:db8::2/64", "192.0.2.2/24"] {
            kernel.add_address("b", address.parse().unwrap()).unwrap();
        }
        let (ours, theirs) = (mac(&near, "a").unwrap(), mac(&kernel, "b").unwrap());
        let socket = PacketSocket::open(&near, "a").unwrap();
        let ground = Self { kernel, socket, ours, theirs, _near: near };
        let question = Neighbour::Solicitation { target: KERNEL, mac: ours };
        ground.multicast(US, ndp::solicited_node(KERNEL), question.message());
        ground.answer("an answer to our question", |packet| {
            (Neighbour::parse(packet)? == Neighbour::Advertisement { target: KERNEL, mac: theirs }).then_some(())
        });
        ground
    }

    fn send(&self, packet: &Ipv6) {
        self.socket.send(&ethernet(self.theirs, self.ours, ETHER_IPV6, &packet.bytes())).unwrap();
    }

    /// Sends a message of neighbour discovery to all who listen to `destination`.
    fn multicast(&self, source: Ipv6Addr, destination: Ipv6Addr, message: Vec<u8>) {
        let packet = ndp::packet(source, destination, message).bytes();
        self.socket.send(&ethernet(ndp::multicast_mac(destination), self.ours, ETHER_IPV6, &packet)).unwrap();
    }

    /// What `pick` makes of a packet that the kernel sends us.
    fn answer<T>(&self, what: &str, pick: impl Fn(&Ipv6) -> Option<T>) -> T {
        let ours =
            |frame: &Frame| Ipv6::in_frame(&frame.bytes).filter(|packet| !frame.outgoing && packet.destination == US);
        self.socket.find(what, LIMIT, |frame| pick(&ours(frame)?)).unwrap()
    }

    /// A packet from us to the kernel, with a right checksum.
    fn packet(protocol: u8, segment: Vec<u8>) -> Ipv6 {
        Ipv6::new(US, KERNEL, protocol, checksummed(US, KERNEL, protocol, segment))
    }

    fn udp_socket(&self, address: IpAddr) -> UdpSocket {
        let socket = self.kernel.run(|| UdpSocket::bind((address, 0))).unwrap();
        socket.set_read_timeout(Some(LIMIT)).unwrap();
        socket
    }
}

/// The next datagram that arrives. One that must not arrive is sent before one that does, on the same way.
fn next(socket: &UdpSocket) -> String {
    let mut buffer = vec![0; 2000];
    let length = socket.recv(&mut buffer).unwrap();
    String::from_utf8_lossy(&buffer[..length]).into_owned()
}

#[test]
fn what_is_built_is_read_again() {
    let built = Ipv4 {
        options: vec![1; 4],
        ..Ipv4::new([10, 1, 2, 3].into(), [10, 1, 4, 5].into(), PROTO_UDP, udp(1, 2, b"payload"))
    };
    let frame = ethernet([0; 6], [0; 6], ETHER_IPV4, &[built.bytes(), vec![0; 9]].concat());
    assert_eq!(Ipv4::in_frame(&frame), Some(built));
    assert_eq!(Ipv4::in_frame(&frame[..frame.len() - 10]), None);

    let built = Ipv6 {
        traffic_class: 0xb9,
        flow_label: 0xf_edcb,
        extensions: vec![Extension::padding(Extension::HOP_BY_HOP), Extension::fragment(0, true, 7)],
        ..Ground::packet(PROTO_UDP, udp(1, 2, b"payload"))
    };
    let frame = ethernet([0; 6], [0; 6], ETHER_IPV6, &[built.bytes(), vec![0; 9]].concat());
    assert_eq!(Ipv6::in_frame(&frame), Some(built));
    assert_eq!(Ipv6::in_frame(&frame[..frame.len() - 10]), None);
    let later = Ipv6 { extensions: vec![Extension::fragment(1, false, 7)], ..Ground::packet(PROTO_UDP, vec![0; 64]) };
    assert_eq!(Ipv6::parse(&later.bytes()), Some(later), "what is in a later fragment is no header");
}

#[test]
fn the_kernel_answers_an_echo_request_whatever_stands_in_front_of_it() {
    let ground = Ground::new();
    let (hop_by_hop, destination) = (Extension::HOP_BY_HOP, Extension::DESTINATION);
    let cases = [vec![], vec![hop_by_hop], vec![destination], vec![hop_by_hop, destination]];
    for (sequence, kinds) in cases.into_iter().enumerate() {
        let extensions = kinds.iter().map(|kind| Extension::padding(*kind)).collect();
        let request = echo_request(9, sequence as u16, b"is anybody there?");
        ground.send(&Ipv6 { extensions, ..Ground::packet(PROTO_ICMPV6, request.clone()) });
        let reply = ground.answer("an echo reply", |packet| {
            (packet.protocol == PROTO_ICMPV6 && packet.payload[0] == 129).then(|| packet.clone())
        });
        assert_eq!(reply.payload[4..], request[4..], "behind {kinds:?}");
        assert!(is_checksum_right(reply.source, reply.destination, PROTO_ICMPV6, &reply.payload));
    }
}

#[test]
fn the_kernel_puts_fragments_together() {
    let ground = Ground::new();
    let whole = Ground::packet(PROTO_ICMPV6, echo_request(9, 1, &[7; 1000]));
    let (first, second) = whole.payload.split_at(800);
    for (offset, more, part) in [(0, true, first), (100, false, second)] {
        let extensions = vec![Extension::fragment(offset, more, 0xabcd)];
        ground.send(&Ipv6 { extensions, payload: part.to_vec(), ..whole.clone() });
    }
    let reply = ground.answer("an echo reply", |packet| (packet.payload[0] == 129).then(|| packet.payload.clone()));
    assert_eq!(reply[4..], whole.payload[4..]);
}

#[test]
fn the_kernel_refuses_a_connection_to_a_port_that_nobody_listens_on() {
    let ground = Ground::new();
    ground.send(&Ground::packet(PROTO_TCP, tcp(1000, 2000)));
    let refusal = ground.answer("a refusal", |packet| (packet.protocol == PROTO_TCP).then(|| packet.payload.clone()));
    assert_eq!((&refusal[..4], refusal[13]), ([0x07, 0xd0, 0x03, 0xe8].as_slice(), 0x14), "RST and ACK");
}

#[test]
fn a_datagram_without_a_checksum_is_received_over_ipv4_and_not_over_ipv6_and_a_wrong_one_never() {
    let ground = Ground::new();
    let v6 = ground.udp_socket(KERNEL.into());
    let datagram = |socket: &UdpSocket, text: &str| udp(1000, socket.local_addr().unwrap().port(), text.as_bytes());
    ground.send(&Ipv6::new(US, KERNEL, PROTO_UDP, datagram(&v6, "bare")));
    ground.send(&Ground::packet(PROTO_UDP, datagram(&v6, "checked")));
    assert_eq!(next(&v6), "checked");

    let (us, kernel) = (Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2));
    let v4 = ground.udp_socket(kernel.into());
    let mut wrong = checksummed(us, kernel, PROTO_UDP, datagram(&v4, "wrong"));
    wrong[7] ^= 1;
    let right = checksummed(us, kernel, PROTO_UDP, datagram(&v4, "checked"));
    for datagram in [wrong, datagram(&v4, "bare"), right] {
        let packet = Ipv4::new(us, kernel, PROTO_UDP, datagram).bytes();
        ground.socket.send(&ethernet(ground.theirs, ground.ours, ETHER_IPV4, &packet)).unwrap();
    }
    assert_eq!([next(&v4), next(&v4)], ["bare", "checked"]);
}

#[test]
fn the_kernels_vxlan_device_takes_ipv6_in_ipv6_without_a_checksum_only_if_it_is_told_to() {
    for (option, first) in [("", "checked"), ("udp6zerocsumrx", "bare")] {
        let ground = Ground::new();
        let vxlan_device = "link add vxlan0 type vxlan id 1 dstport 8472 dev b";
        ground.kernel.ip(&format!("{vxlan_device} local {KERNEL} {option}")).unwrap();
        ground.kernel.add_address("vxlan0", "fd00::2/64".parse().unwrap()).unwrap();
        ground.kernel.ip("link set dev vxlan0 up").unwrap();
        let [from, to] = ["fd00::1", "fd00::2"].map(|address| address.parse::<Ipv6Addr>().unwrap());
        let (socket, device) = (ground.udp_socket(to.into()), mac(&ground.kernel, "vxlan0").unwrap());
        let outer = |text: &str| {
            let datagram = udp(1000, socket.local_addr().unwrap().port(), text.as_bytes());
            let inner = Ipv6::new(from, to, PROTO_UDP, checksummed(from, to, PROTO_UDP, datagram)).bytes();
            udp(50_000, 8472, &vxlan(0x08, 1, &ethernet(device, [2, 0, 0, 0, 0, 9], ETHER_IPV6, &inner)))
        };
        ground.send(&Ipv6::new(US, KERNEL, PROTO_UDP, outer("bare")));
        ground.send(&Ground::packet(PROTO_UDP, outer("checked")));
        assert_eq!(next(&socket), first, "{option:?}");
    }
}

#[test]
fn the_kernel_takes_an_advertised_router_and_makes_itself_an_address() {
    let ground = Ground::new();
    let router: Ipv6Addr = "fe80::1".parse().unwrap();
    let message = ndp::router_advertisement(ground.ours, "2001:db8:7::".parse().unwrap(), 1800);
    ground.multicast(router, "ff02::1".parse().unwrap(), message);
    let taken = |arguments: &str, part: &str| {
        let shown = || ground.kernel.ip(arguments).is_ok_and(|text| text.contains(part));
        wait_until(part, LIMIT, shown).unwrap();
    };
    taken("-6 route show default", "via fe80::1 dev b");
    taken("-6 address show dev b", "2001:db8:7:");
}
