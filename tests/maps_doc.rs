//! `bpf-maps.md` says what the compiled object says.

use std::collections::BTreeMap;

use aya_obj::{Object, generated::bpf_map_type};
use overlay_common::{Advice, Reason};
use overlay_tests::verifier::{Measured, measure};

/// A map by name: type in the document's words, key size, value size, capacity.
type Maps = BTreeMap<String, (String, u32, u32, u32)>;

/// Whether the document names the map in its last section: it is not part of the contract then.
fn is_internal(name: &str) -> bool {
    name.starts_with(".rodata") || ["AYA_LOGS", "EVENTS", "PACE", "SCRATCH", "TRACED"].contains(&name)
}

#[test]
fn the_table_of_maps_equals_the_object() {
    let documented = documented(include_str!("../bpf-maps.md"));
    assert_eq!(documented, compiled());
    assert!(documented.keys().eq(sorted(overlay_user::maps::NAMES).iter()), "the agent pins other maps");
}

#[test]
fn every_map_has_a_section() {
    let document = include_str!("../bpf-maps.md");
    for name in documented(document).keys() {
        assert!(document.contains(&format!("\n## {}\n", name.trim_end_matches("_V6"))), "no section on {name}");
    }
}

#[test]
fn the_table_of_reasons_is_what_commands_say() {
    let document = include_str!("../bpf-maps.md");
    let documented: Vec<&str> = table(document, "| index | reason ").collect();
    let said: Vec<String> = Reason::ALL.into_iter().map(reason_row).collect();
    assert!(documented == said, "bpf-maps.md, DROPS, should have these rows:\n{}", said.join("\n"));
}

fn reason_row(reason: Reason) -> String {
    let Advice { meaning, hint } = reason.advice();
    format!("| {} | {reason:?} | {} | {meaning} | {hint} |", reason.index(), reason.text())
}

/// In percent of the documented number.
const TOLERANCE: u32 = 20;

#[test]
fn the_table_of_costs_is_near_what_the_verifier_says() {
    let rows = costs(include_str!("../bpf-maps.md"));
    let measured = measure().expect("load the programs");
    let stale: Vec<String> = measured
        .iter()
        .filter(|measured| !rows.iter().any(|row| is_near(row, measured)))
        .map(Measured::to_string)
        .collect();
    assert!(stale.is_empty(), "bpf-maps.md, \"What the verifier says\", should have these rows:\n{}", stale.join("\n"));
    assert_eq!(rows.len(), measured.len(), "rows of programs that are no more");
}

/// The cells of the rows of the table of costs.
fn costs(document: &str) -> Vec<Vec<&str>> {
    table(document, "| program ").map(cells).collect()
}

/// The rows of the table whose head begins with `head`.
fn table<'a>(document: &'a str, head: &str) -> impl Iterator<Item = &'a str> {
    let rows = document.lines().skip_while(move |line| !line.starts_with(head)).skip(2);
    rows.take_while(|line| line.starts_with('|'))
}

fn cells(row: &str) -> Vec<&str> {
    row.trim_matches('|').split('|').map(str::trim).collect()
}

/// Whether a documented row is about what was measured, and every number in it near the measured one.
fn is_near(row: &[&str], measured: &Measured) -> bool {
    let measured = measured.to_string();
    let measured = cells(&measured);
    // Machine code is another on every kind of machine.
    let last = if cfg!(target_arch = "x86_64") { 6 } else { 5 };
    let near = |(documented, measured): (&&str, &&str)| {
        let (documented, measured) = (number(documented), number(measured));
        documented.abs_diff(measured) * 100 <= documented * TOLERANCE
    };
    row.len() == measured.len() && row[..2] == measured[..2] && row[2..last].iter().zip(&measured[2..last]).all(near)
}

#[test]
fn a_cost_that_has_grown_is_seen() {
    let measured = measure().expect("load the programs").swap_remove(0);
    let row = measured.to_string();
    assert!(is_near(&cells(&row), &measured));
    for grown in [
        Measured { verified: measured.verified * 13 / 10, ..measured.clone() },
        Measured { stack: measured.stack * 13 / 10, ..measured.clone() },
        Measured { instructions: measured.instructions * 7 / 10, ..measured.clone() },
    ] {
        assert!(!is_near(&cells(&row), &grown), "{grown}");
    }
}

fn sorted(names: [&str; 14]) -> Vec<String> {
    let mut names = names.map(str::to_owned).to_vec();
    names.sort();
    names
}

fn documented(document: &str) -> Maps {
    table(document, "| map ")
        .map(|line| {
            let cells: Vec<&str> = line.split('|').map(str::trim).collect();
            (cells[1].to_owned(), (cells[2].to_owned(), bytes(cells[3]), bytes(cells[4]), number(cells[5])))
        })
        .collect()
}

/// The size in "what it is, N bytes".
fn bytes(cell: &str) -> u32 {
    number(cell.rsplit(", ").next().and_then(|size| size.strip_suffix(" bytes")).expect("a size in bytes"))
}

fn number(text: &str) -> u32 {
    text.parse().unwrap_or_else(|_| panic!("{text:?} is no number"))
}

fn compiled() -> Maps {
    let object = Object::parse(overlay_user::loader::object()).expect("parse the object");
    let maps = object.maps.iter().filter(|(name, _)| !is_internal(name));
    maps.map(|(name, map)| {
        let description = (type_name(map.map_type()), map.key_size(), map.value_size(), map.max_entries());
        (name.clone(), description)
    })
    .collect()
}

fn type_name(map_type: u32) -> String {
    let names = [
        (bpf_map_type::BPF_MAP_TYPE_ARRAY, "array"),
        (bpf_map_type::BPF_MAP_TYPE_HASH, "hash"),
        (bpf_map_type::BPF_MAP_TYPE_LRU_HASH, "LRU hash"),
        (bpf_map_type::BPF_MAP_TYPE_PERCPU_HASH, "per-CPU hash"),
        (bpf_map_type::BPF_MAP_TYPE_PERCPU_ARRAY, "per-CPU array"),
    ];
    let known = names.iter().find(|(number, _)| *number as u32 == map_type);
    known.map_or_else(|| format!("type {map_type}"), |(_, name)| (*name).to_owned())
}
