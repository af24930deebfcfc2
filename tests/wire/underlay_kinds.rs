//! Every kind of interface that can be the underlay: traffic over it, on the long way and on the fast one.

use overlay_common::Reason;
use overlay_tests::{
    cluster::{Cluster, Settings},
    families::Families,
    netns::Netns,
    node::{Node, UNDERLAY_DEVICE},
    process::wait_until,
    report::report,
    sandbox::isolated,
    traffic::ping,
};

use crate::ground::{Backend, LIMIT, flow, for_either_backend, on_two_nodes, settings, two};

/// The interface under test, on top of [`UNDERLAY_DEVICE`].
const UPPER: &str = "upper0";

/// Makes [`UPPER`] on both nodes by `commands` and moves the address there; says loudly when the kernel cannot.
fn with_upper(backend: Backend, commands: &[&str], test: impl FnOnce(&mut Cluster) + Send) {
    isolated(|| {
        let mut settings = settings(backend);
        settings.agent_arguments.extend(["--iface", UPPER].map(str::to_owned));
        let mut cluster = Cluster::new(&settings).unwrap();
        if !can_make(commands[0]) {
            report(format_args!("underlay: NOT RUN, this kernel has no such interface: ip {}", commands[0]));
            return;
        }
        for node in cluster.nodes() {
            let netns = node.netns();
            netns.ip(&format!("address flush dev {UNDERLAY_DEVICE}")).unwrap();
            if commands[0].contains("bond") {
                add_second_port(&cluster, node);
            }
            // An interface below would answer for the address as well, with its own MAC address.
            netns.sysctl("net.ipv4.conf.all.arp_ignore", "1").unwrap();
            commands.iter().for_each(|command| drop(netns.ip(command).unwrap()));
            netns.ip(&format!("link set dev {UPPER} up")).unwrap();
            netns.ip(&format!("address add {}/24 dev {UPPER}", node.address())).unwrap();
        }
        cluster.bring_up(&settings.network_config()).unwrap();
        test(&mut cluster);
    });
}

/// Whether the kernel has the kind of interface that `command` makes. Tried apart, so that a failure of the test is one.
fn can_make(command: &str) -> bool {
    let (here, there) = (Netns::new().unwrap(), Netns::new().unwrap());
    here.veth(UNDERLAY_DEVICE, &there, "eth0", 1500).unwrap();
    match here.ip(command) {
        Err(error) if format!("{error:#}").contains("Unknown device type") => false,
        made => made.map(|_| true).unwrap(),
    }
}

fn add_second_port(cluster: &Cluster, node: &Node) {
    let port = format!("{}b", node.name());
    cluster.underlay().veth(&port, node.netns(), "eth1", 1500).unwrap();
    cluster.underlay().ip(&format!("link set dev {port} master underlay")).unwrap();
    for device in [UNDERLAY_DEVICE, "eth1"] {
        node.netns().ip(&format!("link set dev {device} down")).unwrap();
    }
}

/// Pings, datagrams that need fragments, and streams, until the fast path carries one.
fn assert_traffic(cluster: &Cluster) {
    let [one, two] = two(cluster);
    for (from, to) in [(one, two), (two, one)] {
        assert_eq!(ping(&from.container().netns, to.container().v4(), 1).unwrap().received, 1);
        assert_eq!(flow(from, to).udp_echo(2, 4000).unwrap(), 2);
        flow(from, to).tcp_transfer(4 << 20).unwrap();
    }
    let flow = flow(one, two);
    wait_until("the fast path", LIMIT, || {
        assert!(flow.udp_echo(20, 100).unwrap() >= 19);
        [one, two].iter().all(|node| !node.counters().flows().unwrap().is_empty())
    })
    .unwrap();
    for node in [one, two] {
        let drops = node.counters().drops().unwrap();
        // Where a node forwards IPv6, the kernel reports multicast groups on the overlay device as well.
        assert!(drops.iter().all(|(reason, _)| *reason == Reason::NotIpv4), "{drops:?}");
    }
}

for_either_backend! {
    fn an_underlay_with_ipv6_as_well_changes_nothing(backend) {
        let settings = Settings { underlay: Families::Dual, ..settings(backend) };
        on_two_nodes(&settings, |cluster| {
            let shown = cluster.nodes()[0].netns().ip(&format!("-6 address show dev {UNDERLAY_DEVICE} scope global"));
            assert!(!shown.unwrap().is_empty(), "no IPv6 on the underlay");
            assert_traffic(cluster);
        });
    }

    fn a_bridge_that_the_nic_is_a_port_of(backend) {
        let commands = ["link add name upper0 type bridge", "link set dev eth0 master upper0"];
        with_upper(backend, &commands, |cluster| assert_traffic(cluster));
    }

    fn a_macvlan_device(backend) {
        let commands = ["link add link eth0 name upper0 type macvlan mode bridge"];
        with_upper(backend, &commands, |cluster| assert_traffic(cluster));
    }

    fn a_vlan_device(backend) {
        let commands = ["link add link eth0 name upper0 type vlan id 50"];
        with_upper(backend, &commands, |cluster| assert_traffic(cluster));
    }

    fn a_bond_that_loses_a_port(backend) {
        let commands = [
            "link add name upper0 type bond mode active-backup miimon 10",
            "link set dev eth0 master upper0",
            "link set dev eth1 master upper0",
        ];
        with_upper(backend, &commands, |cluster| {
            assert_traffic(cluster);
            for node in cluster.nodes() {
                cluster.underlay().ip(&format!("link set dev {} down", node.name())).unwrap();
            }
            let [one, two] = two(cluster);
            let answered = || ping(&one.container().netns, two.container().v4(), 1).unwrap().received == 1;
            wait_until("the other port to carry on", LIMIT, answered).unwrap();
            assert_traffic(cluster);
        });
    }
}

/// By name the first one would be taken.
#[test]
fn a_secondary_address_that_is_named() {
    isolated(|| {
        let settings = settings(Backend::Vxlan);
        let mut cluster = Cluster::new(&settings).unwrap();
        let secondary = |node: &Node| node.address().to_string().replace("192.168.50.", "192.168.50.10");
        for node in cluster.nodes_mut() {
            let address = secondary(node);
            let netns = node.netns();
            netns.bridge(UPPER).unwrap();
            netns.ip(&format!("address flush dev {UNDERLAY_DEVICE}")).unwrap();
            netns.ip(&format!("link set dev {UNDERLAY_DEVICE} master {UPPER}")).unwrap();
            netns.ip(&format!("address add {}/24 dev {UPPER}", node.address())).unwrap();
            netns.ip(&format!("address add {address}/24 dev {UPPER}")).unwrap();
            node.agent_arguments_mut().extend(["--iface".to_owned(), address]);
        }
        cluster.bring_up(&settings.network_config()).unwrap();
        let [one, two] = two(&cluster);
        let hop = one.counters().routes().unwrap()[&two.subnet().subnet()].next_hop();
        assert_eq!(hop.to_string(), secondary(two));
        assert_traffic(&cluster);
    });
}

#[test]
fn the_underlay_moves_with_its_address_to_a_bridge_above_it() {
    isolated(|| {
        let settings = settings(Backend::Vxlan);
        let mut cluster = Cluster::start(&settings).unwrap();
        let node = &cluster.nodes()[0];
        for command in [
            "link add name upper0 type bridge".to_owned(),
            format!("address flush dev {UNDERLAY_DEVICE}"),
            format!("link set dev {UNDERLAY_DEVICE} master upper0"),
            "link set dev upper0 up".to_owned(),
            format!("address add {}/24 dev upper0", node.address()),
        ] {
            node.netns().ip(&command).unwrap();
        }
        let agent = cluster.nodes_mut()[0].agent();
        wait_until("the agent to follow", LIMIT, || agent.log().contains("underlay interface is back")).unwrap();
        assert_traffic(&cluster);
    });
}
