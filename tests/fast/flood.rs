//! New flows in such numbers that no table holds them, beside an established one.

use std::thread;

use overlay_tests::{flood::Flood, report::report};

use crate::ground::{Backend, Conversation, Forwarded, approving, on_two_nodes, two};

/// More than `FLOWS` and `CANDIDATES` hold together.
const FLOWS: u32 = 100_000;

/// The first port that the kernel gives a socket that asks for none; the flood's are below.
const EPHEMERAL: &str = "udp sport >= 32768";

/// Keeps a conversation going while `flood` lasts. Hardly a packet of it may get lost, or meet netfilter.
fn stays_fast(name: &str, flood: fn(Flood, u32) -> anyhow::Result<()>) {
    on_two_nodes(&approving(Backend::Vxlan, 2), |cluster| {
        let [one, two] = two(cluster);
        let conversation = Conversation::between(one.container(), two.container());
        conversation.engage([one, two]);
        let forwarded = [one, two].map(|node| Forwarded::count(node, EPHEMERAL));
        let between = Flood::between(one.container(), two.container()).unwrap();
        let (mut asked, mut answered) = (0, 0);
        thread::scope(|scope| {
            let flood = scope.spawn(move || flood(between, FLOWS).unwrap());
            while !flood.is_finished() {
                asked += 1;
                answered += u64::from(conversation.exchange());
            }
        });
        let seen = forwarded.map(|forwarded| forwarded.packets());
        report(format_args!("{name} of {FLOWS} flows: {answered} of {asked} answered, netfilter saw {seen:?} packets"));
        assert!(answered >= 100 && answered * 100 >= asked * 99, "{answered} of {asked} were answered");
        assert!(seen.iter().all(|&packets| packets < answered * 2 / 10), "of {answered} netfilter saw {seen:?}");
        assert!([one, two].iter().all(|node| conversation.is_fast(node)));
    });
}

#[test]
fn a_port_scan_does_not_push_an_established_flow_off_the_fast_path() {
    stays_fast("scan", Flood::scan);
}

#[test]
fn nor_do_flows_that_are_answered_once_and_approved() {
    stays_fast("exchange", Flood::exchange);
}
