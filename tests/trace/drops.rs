//! Every reason for a drop is told, in words: of real packets, and of captured ones.

use std::slice;

use nix::sys::signal::Signal;
use overlay_common::Reason;
use overlay_tests::{
    process::wait_until,
    provoke::{Provocation, Stage},
};

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
        let mut live = Live::start(node, "--rate 1000");
        for reason in Reason::ALL {
            if stage.provocation(reason).is_none() {
                continue;
            }
            stage.provoke(reason).unwrap();
            let told =
                || live.lines().iter().any(|line| line["reason"] == name(reason) && line["text"] == words(reason));
            wait_until(&format!("{reason:?} to be told"), LIMIT, told).unwrap();
        }
        assert_eq!(live.end(Signal::SIGINT), Some(0));

        let before = maps(node);
        for reason in Reason::ALL {
            let Some(Provocation { frame, at }) = stage.provocation(reason) else { continue };
            let capture = file(node, &pcap(LINK_ETHERNET, slice::from_ref(&frame), 0));
            let output = run(node, &format!("--pcap {} --on {}", capture.display(), at.interface()));
            let said = String::from_utf8(output.stdout).expect("text");
            assert!(said.contains(&words(reason)), "{reason:?}: {said}");
            let result = said.lines().last().expect("a result");
            assert!(result.starts_with("result") && result.contains(&name(reason)), "{reason:?}: {said}");
            assert_eq!(output.status.code(), Some(1), "{said}");
        }
        assert_eq!(maps(node), before);
    });
}

fn name(reason: Reason) -> String {
    format!("{reason:?}")
}

/// What is said of a drop.
fn words(reason: Reason) -> String {
    format!("dropped, {reason:?}: {}; {}", reason.text(), reason.advice().hint)
}
