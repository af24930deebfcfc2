//! Acceptance of forwarded traffic, judged by real packets.

use std::process::Command;
use std::time::Duration;

use overlay_tests::process::{output, wait_until};
use overlay_user::masquerade::{RulesConfig, TrafficRules};

use crate::site::{Addresses, IPV4, IPV6, PATIENCE, Packet, SILENCE, Site, config};

/// Both implementations of iptables for both address families.
const PROGRAMS: [(&str, &Addresses); 4] =
    [("iptables-nft", &IPV4), ("iptables-legacy", &IPV4), ("ip6tables-nft", &IPV6), ("ip6tables-legacy", &IPV6)];

/// Tells the child process of a test what to do.
const CHILD: &str = "OVERLAY_TEST_FORWARD";

/// What Docker makes of FORWARD: a policy of DROP, room for the operator, and a drop of what it has not published.
fn docker(addresses: &Addresses) -> Vec<String> {
    let unpublished = format!("-t raw -A PREROUTING -d {} ! -i docker0 -j DROP", addresses.container);
    DOCKER.iter().map(|&rule| rule.to_owned()).chain([unpublished]).collect()
}

/// The same in every address family.
const DOCKER: [&str; 7] = [
    "-P FORWARD DROP",
    "-N DOCKER-USER",
    "-N DOCKER-FORWARD",
    "-A FORWARD -j DOCKER-USER",
    "-A FORWARD -j DOCKER-FORWARD",
    "-A DOCKER-FORWARD ! -i docker0 -o docker0 -j DROP",
    "-A DOCKER-USER -p udp --dport 7666 -j DROP",
];

/// From our container to a remote one, from there to ours, and from outside to ours.
fn traffic<'a>(site: &'a Site, addresses: &Addresses) -> [Packet<'a>; 3] {
    let &Addresses { container, remote, outside, .. } = addresses;
    let packet = |sender, source, receiver, destination| Packet { sender, source, receiver, destination, port: 7000 };
    [
        packet(&site.container, container, &site.remote, remote),
        packet(&site.remote, remote, &site.container, container),
        packet(&site.node.peer, outside, &site.container, container),
    ]
}

/// The rules of the tables that Docker and we have rules in, as `program` lists them.
fn listing(site: &Site, program: &str) -> String {
    let list = |table| output(site.node.netns.command(program).args(["-t", table, "-S"])).unwrap();
    list("filter") + &list("raw")
}

#[test]
fn overlay_traffic_is_accepted_in_spite_of_docker_and_nothing_else_is() {
    for (program, addresses) in PROGRAMS {
        let site = Site::new();
        site.iptables(program, &docker(addresses));
        let [to_remote, to_us, from_outside] = traffic(&site, addresses);
        for packet in [&to_remote, &to_us, &from_outside] {
            assert_eq!(site.seen(packet, SILENCE), None, "{program}: Docker drops it");
        }
        let config = RulesConfig { masquerade: None, forward: true, ..config() };
        assert!(site.ensure(&config));
        assert_eq!(site.seen(&to_remote, PATIENCE), Some(addresses.container), "{program}");
        assert_eq!(site.seen(&to_us, PATIENCE), Some(addresses.remote), "{program}");
        assert_eq!(site.seen(&from_outside, SILENCE), None, "{program}: Docker still keeps clients outside away");
        let forbidden = Packet { port: 7666, ..to_us };
        assert_eq!(site.seen(&forbidden, SILENCE), None, "{program}: the operator's own drop stands");
    }
}

#[test]
fn the_acceptance_is_set_once_moves_with_docker_and_goes_without_a_trace() {
    for (program, addresses) in PROGRAMS {
        let site = Site::new();
        site.iptables(program, &docker(addresses));
        let before = listing(&site, program);
        let config = RulesConfig { masquerade: None, forward: true, ..config() };
        assert!(site.ensure(&config));
        let first = listing(&site, program);
        assert!(!site.ensure(&config), "{program}: in place");
        // Docker puts itself in front again when it starts.
        site.iptables(program, &["-D FORWARD -j DOCKER-FORWARD", "-I FORWARD 2 -j DOCKER-FORWARD"]);
        assert!(site.ensure(&config));
        assert_eq!(listing(&site, program), first);
        assert!(site.ensure(&RulesConfig { forward: false, ..config }));
        assert_eq!(listing(&site, program), before);
    }
}

#[test]
fn the_acceptance_follows_docker_when_that_starts_later() {
    let site = Site::new();
    let config = RulesConfig { forward: true, ..config() };
    site.node.run(async |_| {
        let mut rules = TrafficRules::new(config);
        rules.ensure().await.unwrap();
        assert!(!site.nft("list ruleset").contains("FORWARD"), "a node without iptables stays without");
        let docker = async {
            site.iptables("iptables-nft", &docker(&IPV4));
            let listing = || output(site.node.netns.command("iptables-nft").args(["-S", "FORWARD"])).unwrap();
            let deadline = tokio::time::Instant::now() + PATIENCE;
            let behind_docker_user = "-A FORWARD -j DOCKER-USER\n-A FORWARD -j OVERLAY-FORWARD-1\n";
            while !listing().contains(behind_docker_user) {
                assert!(tokio::time::Instant::now() < deadline, "{}", listing());
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::select! {
            biased;
            stopped = rules.keep(std::future::pending::<()>()) => panic!("{stopped:?}"),
            () = docker => {}
        }
    });
}

#[test]
fn the_acceptance_comes_back_when_others_flush_theirs() {
    let site = Site::new();
    site.iptables("iptables-nft", &docker(&IPV4));
    let config = RulesConfig { forward: true, ..config() };
    site.node.run(async |_| {
        let mut rules = TrafficRules::new(config);
        rules.ensure().await.unwrap();
        let expected = listing(&site, "iptables-nft");
        let vandalism = async {
            for flushed in ["-D FORWARD -j OVERLAY-FORWARD-1", "-F OVERLAY-FORWARD-1", "-t raw -F OVERLAY-PREROUTING-1"]
            {
                site.iptables("iptables-nft", &[flushed]);
                let deadline = tokio::time::Instant::now() + PATIENCE;
                while listing(&site, "iptables-nft") != expected {
                    assert!(tokio::time::Instant::now() < deadline, "{flushed}: {}", listing(&site, "iptables-nft"));
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        };
        tokio::select! {
            biased;
            stopped = rules.keep(std::future::pending::<()>()) => panic!("{stopped:?}"),
            () = vandalism => {}
        }
    });
}

/// The part of the test below that runs as a process of its own, in a namespace and with a PATH that has only `nft`.
#[test]
fn child_without_iptables() {
    let Ok(forward) = std::env::var(CHILD) else { return };
    let config = RulesConfig { masquerade: None, forward: forward == "true", ..config() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        assert!(TrafficRules::new(config.clone()).ensure().await.unwrap());
        assert!(!TrafficRules::new(config).ensure().await.unwrap());
    });
}

#[test]
fn a_filter_table_without_iptables_is_served_through_nft() {
    for (family, addresses) in [("ip", &IPV4), ("ip6", &IPV6)] {
        let site = Site::new();
        site.nft(&format!("add table {family} filter"));
        site.nft(&format!(
            "add chain {family} filter FORWARD {{ type filter hook forward priority filter ; policy drop ; }}"
        ));
        let before = site.nft("list ruleset");
        let [packet, ..] = traffic(&site, addresses);
        assert_eq!(site.seen(&packet, SILENCE), None);
        let programs = tempfile::tempdir().unwrap();
        let nft = output(Command::new("sh").args(["-c", "command -v nft"])).unwrap();
        std::os::unix::fs::symlink(nft.trim(), programs.path().join("nft")).unwrap();
        let child = |forward: &str| {
            let mut command = site.node.netns.command(std::env::current_exe().unwrap().to_str().unwrap());
            command.args(["--exact", "forward::child_without_iptables"]);
            output(command.env("PATH", programs.path()).env(CHILD, forward)).unwrap();
        };
        child("true");
        wait_until("the packet is forwarded", PATIENCE, || site.seen(&packet, SILENCE) == Some(addresses.container))
            .unwrap();
        child("false");
        assert_eq!(site.nft("list ruleset"), before);
    }
}
