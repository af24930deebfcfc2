//! Addresses that nobody has: the sender is told, as on any network. And one's own.

use std::{
    io::ErrorKind,
    net::{Ipv4Addr, TcpStream},
};

use overlay_common::Reason;
use overlay_tests::{netns::Netns, traffic::ping};

use crate::ground::{Backend, LIMIT, dropped, flow, for_either_backend, on_two_nodes, said, settings, two};

/// In the overlay network, and in a subnet that nobody leases: flannel's nodes skip the first one.
const UNLEASED: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 9);

fn one_ping(from: &Netns, to: Ipv4Addr) -> String {
    said(from.command("ping").args(["-n", "-c", "1", "-W", "6", &to.to_string()]))
}

for_either_backend! {
    fn an_unused_address_is_reported_as_an_unreachable_host(backend) {
        on_two_nodes(&settings(backend), |cluster| {
            let [one, two] = two(cluster);
            let here = &one.container().netns;
            for unused in [one.subnet().address(77), two.subnet().address(77)] {
                let said = one_ping(here, unused);
                assert!(said.contains("Destination Host Unreachable"), "{unused}: {said}");
            }
        });
    }

    fn a_subnet_that_nobody_leases_is_reported_as_an_unreachable_network(backend) {
        on_two_nodes(&settings(backend), |cluster| {
            let one = &two(cluster)[0];
            for from in [&one.container().netns, one.netns()] {
                let said = one_ping(from, UNLEASED);
                assert!(said.contains("Destination Net Unreachable"), "{said}; {:?}", one.counters().drops());
            }
            assert_eq!(dropped(one, Reason::NoRoute), 2);
            for from in [&one.container().netns, one.netns()] {
                let refused = from.run(|| TcpStream::connect_timeout(&(UNLEASED, 80).into(), LIMIT)).unwrap_err();
                assert_eq!(refused.kind(), ErrorKind::NetworkUnreachable, "{refused}");
            }
        });
    }

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
