//! Containers and nodes talk, also while an agent does not run.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use nix::sys::signal::Signal;
use overlay_tests::{
    cluster::{Backend, Cluster, Settings},
    netns::Netns,
    node::Node,
    sandbox::isolated,
    traffic::{Flow, ping},
};

/// Overhead of the udp backend: IPv4 and UDP header.
const UDP_OVERHEAD: u32 = 28;
/// Overhead of VXLAN: those, VXLAN's own header, and the inner Ethernet header.
const VXLAN_OVERHEAD: u32 = UDP_OVERHEAD + 8 + 14;

/// Runs `test` on a cluster of two nodes for each backend.
fn for_each_backend(test: impl Fn(Backend, Cluster) + Sync) {
    for backend in [Backend::Udp, Backend::Vxlan] {
        println!("backend {backend}");
        isolated(|| test(backend, Cluster::start(&Settings { backend, ..Settings::default() }).unwrap()));
    }
}

/// Fails unless a ping from `from` to the container of `to` is answered.
#[track_caller]
fn assert_reaches(from: &Netns, to: &Node) {
    let pings = ping(from, to.container().v4(), 2).unwrap();
    assert_eq!(pings.received, 2, "to the container of {}; drops: {:?}", to.name(), to.counters().drops());
}

fn flow(from: &Node, to: &Node) -> Flow {
    let (from, to) = (from.container(), to.container());
    Flow::new(&from.netns, &to.netns, to.v4())
}

#[test]
fn containers_talk_across_nodes_both_ways() {
    for_each_backend(|_, cluster| {
        let [one, two] = cluster.nodes() else { panic!("two nodes") };
        for (from, to) in [(one, two), (two, one)] {
            assert_reaches(&from.container().netns, to);
            let stream = flow(from, to).tcp_stream(Duration::from_millis(200)).unwrap();
            assert!(stream.bytes > 1_000_000, "{stream:?}");
            // Small, as large as one packet can be, and too large for one.
            let largest = usize::try_from(from.subnet().mtu).unwrap() - 28;
            for size in [1, largest, largest + 1, 8000] {
                assert_eq!(flow(from, to).udp_echo(3, size).unwrap(), 3, "{size} bytes");
            }
        }
    });
}

#[test]
fn every_packet_between_containers_is_counted_once_at_either_end() {
    for_each_backend(|_, cluster| {
        let [one, two] = cluster.nodes() else { panic!("two nodes") };
        assert_reaches(&one.container().netns, two);
        let (here, there) = (one.subnet().subnet(), two.subnet().subnet());
        // Two requests one way, two replies the other.
        let (sent, received) = (one.counters().traffic(there).unwrap(), two.counters().traffic(here).unwrap());
        assert_eq!((sent.encap_packets, sent.decap_packets), (2, 2));
        assert_eq!((received.encap_packets, received.decap_packets), (2, 2));
        // A ping is 84 bytes with its IP header.
        assert_eq!((sent.encap_bytes, received.decap_bytes), (168, 168));
        assert_eq!(one.counters().drops().unwrap(), []);
    });
}

#[test]
fn a_node_and_a_container_of_another_node_talk_both_ways() {
    for_each_backend(|_, cluster| {
        let [one, two] = cluster.nodes() else { panic!("two nodes") };
        assert_reaches(one.netns(), two);
        // The bridge's address stands for the remote node in the overlay.
        let back = ping(&two.container().netns, one.subnet().gateway(), 2).unwrap();
        assert_eq!(back.received, 2);
    });
}

#[test]
fn a_container_and_its_own_node_talk() {
    for_each_backend(|_, cluster| {
        let one = &cluster.nodes()[0];
        assert_reaches(one.netns(), one);
        assert_eq!(ping(&one.container().netns, one.subnet().gateway(), 2).unwrap().received, 2);
    });
}

#[test]
fn packets_flow_while_an_agent_is_dead_and_it_takes_its_subnet_again() {
    for_each_backend(|_, mut cluster| {
        let before = cluster.nodes()[0].subnet().clone();
        cluster.nodes_mut()[0].agent().kill().unwrap();
        let [one, two] = cluster.nodes() else { panic!("two nodes") };
        assert_reaches(&one.container().netns, two);
        assert_reaches(&two.container().netns, one);

        let one = &mut cluster.nodes_mut()[0];
        one.start_agent().unwrap();
        assert_eq!(*one.wait_ready().unwrap(), before);
        let [one, two] = cluster.nodes() else { panic!("two nodes") };
        assert_reaches(&one.container().netns, two);
        assert_reaches(&two.container().netns, one);
        // Nothing was counted anew: two pings there and two replies back, twice.
        assert_eq!(one.counters().traffic(two.subnet().subnet()).unwrap().encap_packets, 8);
    });
}

#[test]
fn a_stream_survives_the_death_and_the_return_of_both_agents() {
    for_each_backend(|_, mut cluster| {
        let flow = flow(&cluster.nodes()[0], &cluster.nodes()[1]);
        let (agents_are_back, limit) = (AtomicBool::new(false), Duration::from_secs(60));
        thread::scope(|scope| {
            let stream = scope.spawn(|| flow.tcp_stream_until(&agents_are_back, limit));
            for node in cluster.nodes_mut() {
                node.agent().kill().unwrap();
                node.start_agent().unwrap();
                node.wait_ready().unwrap();
            }
            agents_are_back.store(true, Ordering::Relaxed);
            let stream = stream.join().unwrap().unwrap();
            assert!(stream.time < limit, "the agents took longer than {limit:?}");
        });
    });
}

#[test]
fn a_stopped_agent_exits_with_0_and_leaves_the_data_path() {
    for_each_backend(|_, mut cluster| {
        for signal in [Signal::SIGTERM, Signal::SIGINT] {
            let node = &mut cluster.nodes_mut()[0];
            node.agent().signal(signal).unwrap();
            let status = node.agent().wait(Duration::from_secs(10)).unwrap();
            assert_eq!(status.code(), Some(0), "{signal}: {}", node.agent().tail());
            let [one, two] = cluster.nodes() else { panic!("two nodes") };
            assert_reaches(&one.container().netns, two);
            let node = &mut cluster.nodes_mut()[0];
            node.start_agent().unwrap();
            node.wait_ready().unwrap();
        }
    });
}

#[test]
fn subnet_env_is_what_flannels_readers_expect() {
    for_each_backend(|backend, cluster| {
        let node = &cluster.nodes()[0];
        let file = node.subnet_file();
        let gateway = node.subnet().gateway();
        assert_eq!(gateway, node.subnet().address(1), "the first address of the subnet");
        let mtu =
            Settings::default().underlay_mtu - if backend == Backend::Udp { UDP_OVERHEAD } else { VXLAN_OVERHEAD };
        let expected = format!(
            "FLANNEL_NETWORK=10.1.0.0/16\nFLANNEL_SUBNET={gateway}/24\nFLANNEL_MTU={mtu}\nFLANNEL_IPMASQ=false\n"
        );
        assert_eq!(fs::read_to_string(&file).unwrap(), expected);
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o644);
    });
}
