//! Beside others: their programs on the interfaces where ours are, and what else they have on the node.

use std::net::Ipv4Addr;

use aya::{
    Ebpf, EbpfLoader,
    programs::{
        LinkOrder, ProgramInfo, SchedClassifier, TcAttachType,
        tc::{NlOptions, TcAttachOptions},
    },
    sys::{Stats, enable_stats},
};
use overlay_tests::{
    cluster::{Backend, Cluster, Settings},
    netns::Netns,
    node::{Node, UNDERLAY_DEVICE},
    process::output,
    sandbox::isolated,
    snapshot::Snapshot,
    traffic::ping,
    two_nodes::{settings, two},
};
use overlay_user::{loader, maps};

use crate::{
    leaving::{assert_nothing_left, teardown},
    restarts::{start, terminate},
};

/// The node's side of the container's veth.
const VETH: &str = "container";

/// Somebody else's program on what comes in by an interface, for as long as this lives: one of ours with maps of its own.
/// These are empty, so it takes nothing for a tunnel packet and lets everything go on to the next.
struct Theirs(Ebpf);

impl Theirs {
    const PROGRAM: &str = "from_underlay";

    fn in_order(node: &Node, interface: &str, order: LinkOrder) -> Self {
        Self::attach(node, interface, TcAttachOptions::TcxOrder(order))
    }

    /// As a filter under clsact, which is there.
    fn filter(node: &Node, interface: &str) -> Self {
        Self::attach(node, interface, TcAttachOptions::Netlink(NlOptions { priority: 7, ..NlOptions::default() }))
    }

    fn attach(node: &Node, interface: &str, options: TcAttachOptions) -> Self {
        let mut loader = EbpfLoader::new();
        for name in maps::NAMES {
            loader.map_max_entries(name, 64);
        }
        let mut object = loader.load(loader::object()).unwrap();
        let program: &mut SchedClassifier = object.program_mut(Self::PROGRAM).unwrap().try_into().unwrap();
        program.load().unwrap();
        node.netns().run(|| program.attach_with_options(interface, TcAttachType::Ingress, options).unwrap());
        Self(object)
    }

    fn info(&self) -> ProgramInfo {
        let program: &SchedClassifier = self.0.program(Self::PROGRAM).unwrap().try_into().unwrap();
        program.info().unwrap()
    }

    /// How many packets it has been run on.
    fn seen(&self) -> u64 {
        self.info().run_count()
    }
}

/// Two programs of others on an interface, with room for one of ours between them.
struct Chain {
    interface: &'static str,
    theirs: [Theirs; 2],
}

impl Chain {
    /// The programs on the interface, in their order.
    fn on(&self, node: &Node) -> Vec<u32> {
        let asked = node.netns().run(|| SchedClassifier::query_tcx(self.interface, TcAttachType::Ingress));
        asked.unwrap().1.iter().map(ProgramInfo::id).collect()
    }

    /// Fails unless both are there, one before and one behind the programs of ours, and see the packets that `send` makes
    /// come in.
    #[track_caller]
    fn check(&self, node: &Node, ours: usize, send: impl Fn()) {
        let there = self.on(node);
        let [first, last] = self.theirs.each_ref().map(|theirs| theirs.info().id());
        assert_eq!((there.len(), there.first(), there.last()), (ours + 2, Some(&first), Some(&last)), "{there:?}");
        let before = self.theirs.each_ref().map(Theirs::seen);
        send();
        let after = self.theirs.each_ref().map(Theirs::seen);
        println!("{}: {ours} of ours, theirs have seen {before:?}, then {after:?}", self.interface);
        assert!(before.iter().zip(after).all(|(before, after)| after >= before + 3), "{before:?}, then {after:?}");
    }
}

/// Sends three packets that no program of ours takes for its own.
#[track_caller]
fn three_pings(from: &Netns, to: Ipv4Addr) {
    assert_eq!(ping(from, to, 3).unwrap().received, 3);
}

fn tc(node: &Node, arguments: &str) -> String {
    output(node.netns().command("tc").args(arguments.split_whitespace())).unwrap()
}

#[test]
fn programs_of_others_before_and_behind_ours_stay_and_see_packets_whatever_becomes_of_ours() {
    isolated(|| {
        let _counting = enable_stats(Stats::RunTime).unwrap();
        let settings = settings(Backend::Vxlan);
        let mut cluster = Cluster::new(&settings).unwrap();
        // There before ours comes, which then goes in front of it.
        let last = Theirs::in_order(&cluster.nodes()[0], UNDERLAY_DEVICE, LinkOrder::last());
        tc(&cluster.nodes()[0], &format!("qdisc add dev {UNDERLAY_DEVICE} clsact"));
        let filter = Theirs::filter(&cluster.nodes()[0], UNDERLAY_DEVICE);
        cluster.bring_up(&settings.network_config()).unwrap();
        let node = &cluster.nodes()[0];
        let theirs = [Theirs::in_order(node, UNDERLAY_DEVICE, LinkOrder::first()), last];
        let underlay = Chain { interface: UNDERLAY_DEVICE, theirs };
        let theirs = [LinkOrder::first(), LinkOrder::last()].map(|order| Theirs::in_order(node, VETH, order));
        let veth = Chain { interface: VETH, theirs };

        let check = |cluster: &Cluster, ours| {
            let [one, other] = two(cluster);
            let filtered = filter.seen();
            underlay.check(one, ours, || three_pings(other.netns(), one.address()));
            assert!(filter.seen() >= filtered + 3);
            veth.check(one, ours, || three_pings(&one.container().netns, one.subnet().gateway()));
            if ours > 0 {
                three_pings(&one.container().netns, other.container().v4());
            }
        };
        check(&cluster, 1);
        for end in [|node: &mut Node| node.agent().kill().unwrap(), terminate] {
            end(&mut cluster.nodes_mut()[0]);
            check(&cluster, 1);
            start(&mut cluster.nodes_mut()[0]);
            check(&cluster, 1);
        }
        terminate(&mut cluster.nodes_mut()[0]);
        teardown(&cluster.nodes()[0]);
        check(&cluster, 0);
    });
}

/// What somebody else has set up on a node: rules of both kinds, routes, a queueing discipline and a filter.
fn set_up_as_others(node: &Node) {
    let nft = "add table inet others; add set inet others known { type ipv4_addr; elements = { 172.30.0.1 } }; \
               add chain inet others forward { type filter hook forward priority 5; }; \
               add rule inet others forward ip saddr @known drop";
    output(node.netns().command("nft").arg(nft)).unwrap();
    for rule in ["-t nat -A POSTROUTING -s 172.30.0.0/16 -j MASQUERADE", "-A FORWARD -s 172.30.0.0/16 -j DROP"] {
        output(node.netns().command("iptables").args(rule.split(' '))).unwrap();
    }
    for command in [
        "rule add to 172.30.0.0/16 lookup 77",
        "route add blackhole 172.30.1.0/24 table 77",
        "route add 172.30.2.0/24 dev eth0",
    ] {
        node.netns().ip(command).unwrap();
    }
    for command in [
        "qdisc replace dev eth0 root handle 10: pfifo limit 500",
        "qdisc add dev eth0 clsact",
        "filter add dev eth0 egress prio 1 protocol ip u32 match u32 0 0",
    ] {
        tc(node, command);
    }
}

/// What the others have set up, as it is now.
fn of_others(node: &Node) -> String {
    let run = |program: &str, arguments: &str| {
        output(node.netns().command(program).args(arguments.split_whitespace())).unwrap()
    };
    let of_theirs = |text: String| text.lines().filter(|line| line.contains("172.30.")).collect::<Vec<_>>().join("\n");
    [
        run("nft", "list table inet others"),
        of_theirs(run("iptables-save", "")),
        of_theirs(run("ip", "-4 rule")),
        of_theirs(run("ip", "-4 route show table all")),
        tc(node, "qdisc show dev eth0"),
        tc(node, "filter show dev eth0 ingress"),
        tc(node, "filter show dev eth0 egress"),
    ]
    .join("\n")
}

#[test]
fn rules_routes_and_disciplines_of_others_are_as_they_were_after_start_restart_and_teardown() {
    isolated(|| {
        let agent_arguments = vec!["--ip-masq".to_owned()];
        let settings = Settings { nodes: 1, agent_arguments, ..settings(Backend::Vxlan) };
        let mut cluster = Cluster::new(&settings).unwrap();
        set_up_as_others(&cluster.nodes()[0]);
        let (before, theirs) = (Snapshot::of_node(&cluster.nodes()[0]), of_others(&cluster.nodes()[0]));
        cluster.bring_up_agents(&settings.network_config()).unwrap();
        let node = &mut cluster.nodes_mut()[0];
        assert_eq!(of_others(node), theirs, "after the start");
        node.agent().kill().unwrap();
        start(node);
        assert_eq!(of_others(node), theirs, "after the restart");
        terminate(node);
        let said = teardown(node);
        assert_eq!(of_others(node), theirs, "after teardown");
        assert_nothing_left(node, &before, &said);
    });
}
