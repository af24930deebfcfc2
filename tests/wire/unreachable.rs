//! Addresses that nobody has: the sender is told, as on any network. And one's own.

use std::{
    io::ErrorKind,
    net::{IpAddr, SocketAddr, TcpStream},
    thread,
};

use overlay_common::Reason;
use overlay_tests::{netns::Netns, node::Node, traffic::ping};

use crate::ground::{
    Backend, LIMIT, Way, dropped, flow, for_either_backend, for_every_way, gateway, on_two_nodes, said, settings, two,
};

/// In the overlay network, and in a subnet that nobody leases: flannel's nodes skip the first one.
fn unleased(way: Way) -> IpAddr {
    let address = if way.overlay.has_v4() { "10.1.0.9" } else { "fd00:10:1::9" };
    address.parse().unwrap()
}

/// An address of the subnet of `node` that no container has.
fn unused(node: &Node) -> IpAddr {
    gateway(node).iter().nth(77).unwrap()
}

/// What ping says of one ping that is not answered: in IPv4's words, or in IPv6's.
fn one_ping(from: &Netns, to: IpAddr) -> String {
    said(from.command("ping").args(["-n", "-c", "1", "-W", "6", &to.to_string()]))
}

for_every_way! {
    fn an_unused_address_is_reported_as_an_unreachable_host(way) {
        on_two_nodes(&settings(way), |cluster| {
            let [one, two] = two(cluster);
            let here = &one.container().netns;
            // Each takes as long as neighbours are asked for.
            thread::scope(|scope| {
                for unused in [unused(one), unused(two)] {
                    scope.spawn(move || {
                        let said = one_ping(here, unused);
                        let words = ["Destination Host Unreachable", "Destination unreachable: Address unreachable"];
                        assert!(words.iter().any(|words| said.contains(words)), "{unused}: {said}");
                    });
                }
            });
        });
    }

    fn a_subnet_that_nobody_leases_is_reported_as_an_unreachable_network(way) {
        on_two_nodes(&settings(way), |cluster| {
            let (one, unleased) = (two(cluster)[0], unleased(way));
            for from in [&one.container().netns, one.netns()] {
                let said = one_ping(from, unleased);
                let words = ["Destination Net Unreachable", "Destination unreachable: No route"];
                assert!(words.iter().any(|words| said.contains(words)), "{said}; {:?}", one.counters().drops());
            }
            assert_eq!(dropped(one, Reason::NoRoute), 2);
            for from in [&one.container().netns, one.netns()] {
                let refused = from.run(|| TcpStream::connect_timeout(&SocketAddr::new(unleased, 80), LIMIT)).unwrap_err();
                assert_eq!(refused.kind(), ErrorKind::NetworkUnreachable, "{refused}");
            }
        });
    }
}

for_either_backend! {
    fn a_container_talks_to_itself_by_its_overlay_address(backend) {
        on_two_nodes(&settings(backend), |cluster| {
            let one = &two(cluster)[0];
            let hairpin = flow(one, one);
            assert_eq!(ping(&hairpin.from, hairpin.address, 1).unwrap().received, 1);
            assert_eq!(hairpin.udp_echo(2, 1400).unwrap(), 2);
            hairpin.tcp_transfer(1 << 20).unwrap();
        });
    }
}
