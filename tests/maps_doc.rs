//! `bpf-maps.md` says what the compiled object says.

use std::collections::BTreeMap;

use aya_obj::{Object, generated::bpf_map_type};

/// A map by name: type in the document's words, key size, value size, capacity.
type Maps = BTreeMap<String, (String, u32, u32, u32)>;

/// Whether the document names the map in its last section: it is not part of the contract then.
fn is_internal(name: &str) -> bool {
    name.starts_with(".rodata") || name == "AYA_LOGS"
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
        assert!(document.contains(&format!("\n## {name}\n")), "no section on {name}");
    }
}

fn sorted(names: [&str; 5]) -> Vec<String> {
    let mut names = names.map(str::to_owned).to_vec();
    names.sort();
    names
}

fn documented(document: &str) -> Maps {
    let rows = document.lines().skip_while(|line| !line.starts_with("| map ")).skip(2);
    rows.take_while(|line| line.starts_with('|'))
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
        (bpf_map_type::BPF_MAP_TYPE_PERCPU_HASH, "per-CPU hash"),
        (bpf_map_type::BPF_MAP_TYPE_PERCPU_ARRAY, "per-CPU array"),
    ];
    let known = names.iter().find(|(number, _)| *number as u32 == map_type);
    known.map_or_else(|| format!("type {map_type}"), |(_, name)| (*name).to_owned())
}
