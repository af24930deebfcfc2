//! Decapsulation in native XDP: forced on a veth, which has it as well, and chosen for a NIC.

use aya::{
    Ebpf,
    programs::{Xdp, XdpMode},
};
use overlay_common::Reason;
use overlay_tests::{
    cluster::{Cluster, Settings},
    node::UNDERLAY_DEVICE,
    process::wait_until,
    sandbox::isolated,
    tap_nic::TapNic,
    traffic::ping,
};
use overlay_user::loader;

use crate::{
    ground::{Backend, LIMIT, dropped, flow, for_either_backend, on_two_nodes, settings, two},
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
            assert_eq!(ping(&one.container().netns, two.container().v4(), 2).unwrap().received, 2);
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

    fn a_nic_whose_driver_runs_xdp_gets_it_unasked_and_its_flows_go_the_fast_way(backend) {
        isolated(|| {
            let settings = settings(backend);
            let mut cluster = Cluster::new(&settings).unwrap();
            let _nics = tap_nics(&cluster);
            cluster.bring_up(&settings.network_config()).unwrap();
            let [one, two] = two(&cluster);
            for node in [one, two] {
                assert!(node.netns().ip("link show dev eth0").unwrap().contains("prog/xdp"), "XDP is not attached");
            }
            for size in [1, 1400, 4000] {
                assert_eq!(flow(one, two).udp_echo(2, size).unwrap(), 2, "{size} bytes");
            }
            flow(one, two).tcp_transfer(4 << 20).unwrap();
            let flow = flow(one, two);
            wait_until("the fast path", LIMIT, || {
                assert!(flow.udp_echo(20, 100).unwrap() >= 19);
                [one, two].iter().all(|node| !node.counters().flows().unwrap().is_empty())
            })
            .unwrap();
            assert_eq!((one.counters().drops().unwrap(), two.counters().drops().unwrap()), (vec![], vec![]));
        });
    }
}

#[test]
fn where_others_have_an_xdp_program_theirs_stays_and_tc_decapsulates() {
    isolated(|| {
        let settings = xdp(Backend::Vxlan);
        let mut cluster = Cluster::new(&settings).unwrap();
        let _nics = tap_nics(&cluster);
        let theirs: Vec<_> = cluster.nodes().iter().map(|node| node.netns().run(foreign_xdp)).collect();
        cluster.bring_up(&settings.network_config()).unwrap();
        let [one, two] = two(&cluster);
        flow(one, two).tcp_transfer(1 << 20).unwrap();
        for (node, theirs) in [one, two].into_iter().zip(&theirs) {
            let attached = node.netns().ip("link show dev eth0").unwrap();
            assert!(attached.contains(&format!("prog/xdp id {} ", program_id(theirs))), "{attached}");
        }
        for node in cluster.nodes_mut() {
            let log = node.agent().log();
            let said = log.lines().filter(|line| line.contains("decapsulating")).collect::<Vec<_>>();
            assert!(matches!(said[..], [line] if line.contains("XDP could not be had")), "{said:?}");
        }
    });
}

/// Attaches an XDP program to [`UNDERLAY_DEVICE`] for as long as the result lives: one of ours with maps of its own.
/// These are empty, so it takes nothing for a tunnel packet and lets everything pass.
fn foreign_xdp() -> Ebpf {
    let mut object = Ebpf::load(loader::object()).unwrap();
    let program: &mut Xdp = object.program_mut("xdp_decap").unwrap().try_into().unwrap();
    program.load().unwrap();
    program.attach(UNDERLAY_DEVICE, XdpMode::Driver).unwrap();
    object
}

fn program_id(object: &Ebpf) -> u32 {
    let program: &Xdp = object.program("xdp_decap").unwrap().try_into().unwrap();
    program.info().unwrap().id()
}

/// Gives every node an underlay interface like a NIC's.
fn tap_nics(cluster: &Cluster) -> Vec<TapNic> {
    cluster.nodes().iter().map(|node| TapNic::replace_underlay_of(node, cluster).unwrap()).collect()
}
