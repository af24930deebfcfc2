//! The alerts and the dashboard in `packaging/monitoring`: Prometheus takes them, and they name what an agent exports.

use std::{collections::BTreeSet, fs, path::PathBuf, process::Command};

use overlay_tests::{
    process::output,
    two_nodes::{on_two_nodes, two},
};
use regex::Regex;
use serde_json::Value;

use crate::metrics::{Scrape, scraped};

fn packaged(file: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../packaging/monitoring")).join(file)
}

#[test]
fn alerts_fire_for_what_is_wrong_and_for_nothing_else() {
    for (command, file) in [("check", "overlay.rules.yml"), ("test", "overlay.rules.test.yml")] {
        let said = output(Command::new("promtool").args([command, "rules"]).arg(packaged(file))).unwrap();
        assert!(said.contains("SUCCESS"), "{said}");
    }
}

#[test]
fn every_expression_of_the_dashboard_is_one_of_prometheus() {
    let dashboard: Value =
        serde_json::from_str(&fs::read_to_string(packaged("overlay.dashboard.json")).unwrap()).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().unwrap());
    // promtool judges expressions in rules.
    let rules: String = targets
        .enumerate()
        .map(|(number, target)| {
            let expression = target["expr"].as_str().unwrap().replace("$__rate_interval", "5m");
            format!("  - record: panel:{number}\n    expr: {expression:?}\n")
        })
        .collect();
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), format!("groups:\n- name: dashboard\n  rules:\n{rules}")).unwrap();
    output(Command::new("promtool").args(["check", "rules"]).arg(file.path())).unwrap();
}

#[test]
fn alerts_and_dashboard_name_only_what_an_agent_exports() {
    on_two_nodes(&scraped(), |cluster| {
        let scrape = Scrape::of(two(cluster)[0]);
        let names = Regex::new(r"\boverlay_[a-z_]+").unwrap();
        let named = |text: &str| names.find_iter(text).map(|name| name.as_str().to_owned()).collect::<BTreeSet<_>>();
        // Histograms have samples of other names, families without a sample yet have none.
        let exported = named(scrape.text());
        for file in ["overlay.rules.yml", "overlay.dashboard.json"] {
            let unknown: Vec<_> =
                named(&fs::read_to_string(packaged(file)).unwrap()).difference(&exported).cloned().collect();
            assert!(unknown.is_empty(), "{file} names {unknown:?}");
        }
    });
}
