//! Every reason for a drop is told, in words: of real packets, and of captured ones.

use std::slice;

use nix::sys::signal::Signal;
use overlay_common::Reason;
use overlay_tests::{
    node::Node,
    process::wait_until,
    provoke::{Provocation, Stage},
};
use serde_json::Value;

use crate::{
    captured::{LINK_ETHERNET, file, pcap},
    ground::{Backend, LIMIT, maps, on_two_nodes, run, settings},
    live::Live,
};

#[test]
fn every_reason_is_told_in_words_of_a_real_packet_and_of_a_captured_one() {
    on_two_nodes(&settings(Backend::Vxlan), |cluster| {
        let stage = Stage::new(cluster).unwrap();
        let node = stage.victim();
        let before = maps(node);
        for reason in Reason::ALL {
            if let Some(provocation) = stage.provocation(reason) {
                check_captured(node, reason, &provocation);
            }
        }
        assert_eq!(maps(node), before);

        let mut live = Live::start(node, "--rate 1000");
        for reason in Reason::ALL {
            if reason == Reason::DecapRefused {
                // Counted only: no packet that comes in here provokes it.
                continue;
            }
            stage.provoke(reason).unwrap();
            let is_it = |line: &Value| line["reason"] == format!("{reason:?}") && line["text"] == words(reason);
            wait_until(&format!("{reason:?} to be told"), LIMIT, || live.lines().iter().any(is_it)).unwrap();
        }
        assert_eq!(live.end(Signal::SIGINT), Some(0));
    });
}

/// Traces the frame where `node` would get it.
fn check_captured(node: &Node, reason: Reason, provocation: &Provocation) {
    let file = file(node, &pcap(LINK_ETHERNET, slice::from_ref(&provocation.frame), 0));
    let output = run(node, &format!("--pcap {} --on {}", file.display(), provocation.at.interface()));
    let said = String::from_utf8(output.stdout).expect("text");
    assert!(said.contains(&words(reason)), "{reason:?}: {said}");
    let result = said.lines().last().expect("a result");
    assert!(result.starts_with("result") && result.contains(&format!(", {reason:?}")), "{reason:?}: {said}");
    assert_eq!(output.status.code(), Some(1), "{said}");
}

/// What is said of a drop.
fn words(reason: Reason) -> String {
    format!("dropped, {reason:?}: {}; {}", reason.text(), reason.advice().hint)
}
