//! Containers come and go, and keep to their own addresses.

use std::{fs, net::Ipv4Addr, time::Instant};

use overlay_common::Reason;
use overlay_tests::{
    netns::Netns,
    node::Node,
    packet_socket::PacketSocket,
    packets::{self, ETHER_IPV4, Ipv4, PROTO_UDP, ethernet},
    process::wait_until,
    traffic::ping,
};

use crate::{
    ground::{Backend, LIMIT, dropped, for_either_backend, on_two_nodes, settings, two},
    hostile::mac,
};

/// Adds another container to the bridge of `node`.
fn add(node: &Node, name: &str, host: u32) -> (Netns, Ipv4Addr) {
    let subnet = node.subnet();
    let (netns, address) = (Netns::new().unwrap(), subnet.address(host));
    node.netns().veth(name, &netns, "eth0", subnet.mtu).unwrap();
    node.netns().ip(&format!("link set dev {name} master br0")).unwrap();
    netns.ip(&format!("address add {address}/{} dev eth0", subnet.length())).unwrap();
    netns.ip(&format!("route add default via {}", subnet.gateway())).unwrap();
    (netns, address)
}

/// The names of the links that are pinned for containers.
fn container_links(node: &Node) -> usize {
    let links = fs::read_dir(node.run_dir().join("bpf/v1/links")).unwrap();
    links.filter(|link| link.as_ref().unwrap().file_name().to_string_lossy().contains("_container-")).count()
}

/// What `overlay map dump ENDPOINTS` shows of `address`.
fn endpoint(node: &Node, address: Ipv4Addr) -> Option<String> {
    let output = node.overlay().args(["map", "dump", "endpoints", "--run-dir"]).arg(node.run_dir()).output().unwrap();
    let table = String::from_utf8(output.stdout).unwrap();
    table.lines().find(|line| line.split_whitespace().next() == Some(&address.to_string())).map(str::to_owned)
}

for_either_backend! {
    fn a_container_cannot_send_with_its_neighbours_address(backend) {
        on_two_nodes(&settings(backend), |cluster| {
            let [here, there] = two(cluster);
            let (spoofer, own) = add(here, "spoofer", 3);
            let neighbour = here.container().v4();
            for address in [own, neighbour] {
                wait_until("the agent to know both", LIMIT, || endpoint(here, address).is_some()).unwrap();
            }
            let sees = PacketSocket::open(&there.container().netns, "eth0").unwrap();
            let socket = PacketSocket::open(&spoofer, "eth0").unwrap();
            let gateway = mac(here.netns(), "br0");
            let packet = |source, payload: &[u8]| {
                let datagram = packets::udp(1000, 2000, payload);
                let ip = Ipv4::new(source, there.container().v4(), PROTO_UDP, datagram);
                ethernet(gateway, mac(&spoofer, "eth0"), ETHER_IPV4, &ip.bytes())
            };
            socket.send(&packet(neighbour, b"forged")).unwrap();
            wait_until("the drop", LIMIT, || dropped(here, Reason::SpoofedNeighbour) == 1).unwrap();
            socket.send(&packet(own, b"honest")).unwrap();
            let first = sees.find("a datagram", LIMIT, |frame| {
                let bytes = &frame.bytes;
                [b"forged", b"honest"].into_iter().find(|text| bytes.windows(text.len()).any(|part| part == *text))
            });
            assert_eq!(first.unwrap(), b"honest");
            assert_eq!(ping(&here.container().netns, there.container().v4(), 1).unwrap().received, 1);
        });
    }

    fn containers_that_come_and_go_leave_nothing_behind(backend) {
        on_two_nodes(&settings(backend), |cluster| {
            let [here, there] = two(cluster);
            wait_until("the first container's programs", LIMIT, || container_links(here) == 2).unwrap();
            let mut slowest = std::time::Duration::ZERO;
            // An address each: nobody tells the node's own ARP cache that an address has moved, as runtimes do.
            for host in 10..30 {
                let (netns, address) = add(here, "guest", host);
                let start = Instant::now();
                wait_until("the agent to find it", LIMIT, || endpoint(here, address).is_some()).unwrap();
                slowest = slowest.max(start.elapsed());
                assert_eq!(ping(&there.container().netns, address, 1).unwrap().received, 1);
                here.netns().ip("link delete dev guest").unwrap();
                drop(netns);
                wait_until("the agent to forget it", LIMIT, || {
                    endpoint(here, address).is_none() && container_links(here) == 2
                })
                .unwrap();
            }
            println!("the slowest of 20 containers was found after {} ms", slowest.as_millis());
        });
    }
}
