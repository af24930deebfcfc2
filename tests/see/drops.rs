//! Every reason for a drop is found, in words, by every command that shows drops.

use overlay_common::Reason;
use overlay_tests::{
    process::wait_until,
    provoke::Stage,
    two_nodes::{LIMIT, on_two_nodes},
};

use crate::{
    maps::rows,
    metrics::{Scrape, scraped},
    status,
};

#[test]
fn every_reason_is_found_in_words_in_status_in_the_dump_of_drops_and_in_metrics() {
    on_two_nodes(&scraped(), |cluster| {
        let stage = Stage::new(cluster).unwrap();
        let node = stage.victim();
        let counted = || node.counters().drops().unwrap();
        for reason in Reason::ALL {
            let of = || counted().iter().find(|(counted, _)| *counted == reason).map_or(0, |(_, packets)| *packets);
            let before = of();
            stage.provoke(reason).unwrap();
            wait_until(&format!("a drop for {reason:?}"), LIMIT, || of() > before)
                .unwrap_or_else(|error| panic!("{error:#}; drops: {:?}", counted()));
        }
        let dumped = rows(node, &["dump", "DROPS"]);
        let (_, shown) = status::json(node);
        let text = String::from_utf8(status::status(node, &[]).stdout).unwrap();
        let scrape = Scrape::of(node);
        for reason in Reason::ALL {
            let name = format!("{reason:?}");
            for rows in [&dumped, shown["drops"].as_array().unwrap()] {
                let row =
                    rows.iter().find(|row| row["reason"] == *name).unwrap_or_else(|| panic!("no {name}: {rows:?}"));
                assert!(row["packets"].as_u64() > Some(0), "{row}");
                assert_eq!((&row["meaning"], &row["hint"]), (&reason.text().into(), &reason.advice().hint.into()));
            }
            assert!(
                text.contains(&name) && text.contains(reason.text()) && text.contains(reason.advice().hint),
                "{text}"
            );
            assert!(scrape.drops(reason) > 0.0, "{reason:?}: {}", scrape.text());
        }
    });
}
