//! What `overlay map list` says of a map.

use std::path::Path;

use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

use crate::maps::{MapFacts, MapsError};

/// One map, as `overlay map list` prints it.
#[derive(Debug, Serialize)]
pub struct MapRow {
    /// Its name.
    pub map: &'static str,
    /// The kind of map in the kernel.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// Entries in use.
    pub entries: u64,
    /// Entries that there is room for.
    pub capacity: u32,
    /// Bytes of a key.
    pub key_bytes: u32,
    /// Bytes of a value, on each CPU where it is kept per CPU.
    pub value_bytes: u32,
    /// What the kernel has taken for it, in bytes.
    pub memory_bytes: u64,
    /// What it holds.
    pub holds: &'static str,
}

impl MapRow {
    /// Asks the kernel about the map `map` pinned in `directory`, which has `entries` entries in use.
    pub(super) fn read(directory: &Path, map: &'static str, entries: u64) -> Result<Self, MapsError> {
        let MapFacts { kind, key_bytes, value_bytes, capacity, memory_bytes } = MapFacts::read(directory, map)?;
        Ok(Self { map, kind, entries, capacity, key_bytes, value_bytes, memory_bytes, holds: holds(map) })
    }
}

/// The rows as a table.
#[must_use]
pub fn list_table(rows: &[MapRow]) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(["MAP", "TYPE", "ENTRIES", "CAPACITY", "MEMORY", "HOLDS"]);
    for row in rows {
        let memory = format!("{} KiB", row.memory_bytes.div_ceil(1024));
        table.add_row([row.map, row.kind, &row.entries.to_string(), &row.capacity.to_string(), &memory, row.holds]);
    }
    table.trim_fmt()
}

fn holds(map: &str) -> &'static str {
    match map {
        "LOCAL_NODE" => "this node, as the programs see it",
        "ROUTES" => "remote subnets and the nodes that own them",
        "ROUTES_V6" => "remote subnets and the nodes that own them, IPv6",
        "NODES" => "underlay addresses of nodes that own a subnet",
        "ENDPOINTS" => "whose each address of our subnet is",
        "ENDPOINTS_V6" => "whose each address of our subnet is, IPv6",
        "TRAFFIC" => "packets and bytes by remote subnet",
        "TRAFFIC_V6" => "packets and bytes by remote subnet, IPv6",
        "DROPS" => "dropped packets by reason",
        "FLOWS" => "flows that the fast path carries",
        "FLOWS_V6" => "flows that the fast path carries, IPv6",
        "CANDIDATES" => "flows on their way to the fast path",
        "CANDIDATES_V6" => "flows on their way to the fast path, IPv6",
        "NEIGHBOURS" => "MAC addresses of the way to each node",
        _ => "",
    }
}
