//! Decapsulation in native XDP, which a veth has as well.

use overlay_common::Reason;
use overlay_tests::{cluster::Settings, traffic::ping};

use crate::{
    ground::{Backend, dropped, flow, for_either_backend, on_two_nodes, settings, two},
    hostile,
};

fn xdp(backend: Backend) -> Settings {
    Settings { agent_arguments: vec!["--decap".to_owned(), "xdp".to_owned()], ..settings(backend) }
}

for_either_backend! {
    fn containers_talk_and_every_packet_is_counted_once(backend) {
        on_two_nodes(&xdp(backend), |cluster| {
            let [one, two] = two(cluster);
            assert!(one.netns().ip("link show dev eth0").unwrap().contains("prog/xdp"), "XDP is not attached");
            assert_eq!(ping(&one.container().netns, two.container().address, 2).unwrap().received, 2);
            let received = two.counters().traffic(one.subnet().subnet()).unwrap();
            assert_eq!((received.decap_packets, received.decap_bytes), (2, 168));
            for (from, to) in [(one, two), (two, one)] {
                for size in [1, 1400, 8000] {
                    assert_eq!(flow(from, to).udp_echo(2, size).unwrap(), 2, "{size} bytes");
                }
                flow(from, to).tcp_transfer(4 << 20).unwrap();
            }
            assert_eq!((one.counters().drops().unwrap(), two.counters().drops().unwrap()), (vec![], vec![]));
        });
    }

    fn a_bare_inner_packet_is_dropped(backend) {
        on_two_nodes(&xdp(backend), |cluster| {
            let attacker = hostile::Attacker::new(cluster, backend);
            let before = dropped(two(cluster)[0], Reason::NotEncapsulated);
            attacker.inject_bare();
            attacker.wait_dropped(Reason::NotEncapsulated, before + 1);
            attacker.assert_nothing_came();
        });
    }
}
