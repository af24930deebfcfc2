//! [`Definition`]: what decides whether programs can be loaded over a map, and how much memory it takes.

use std::{collections::BTreeMap, path::Path};

use aya::maps::{MapError, MapInfo};
use aya_obj::{Object, ParseError};
use overlay_common::{MAX_CANDIDATES, MAX_FLOWS};

use super::{MapsError, NAMES};

/// How many entries those maps have whose sizes are options.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacities {
    /// Of the flows that the fast path carries, of each family that the overlay has.
    pub flows: u32,
    /// The same of those on their way there.
    pub candidates: u32,
    /// Whether the overlay has IPv6. Where it has not, its tables of flows have a single entry: all their memory is taken in
    /// advance.
    pub ipv6: bool,
}

impl Capacities {
    /// The maps concerned, by name, with their numbers of entries.
    #[must_use]
    pub const fn by_name(self) -> [(&'static str, u32); 4] {
        let Self { flows, candidates, ipv6 } = self;
        let (flows_v6, candidates_v6) = if ipv6 { (flows, candidates) } else { (1, 1) };
        [("FLOWS", flows), ("CANDIDATES", candidates), ("FLOWS_V6", flows_v6), ("CANDIDATES_V6", candidates_v6)]
    }
}

impl Default for Capacities {
    fn default() -> Self {
        Self { flows: MAX_FLOWS, candidates: MAX_CANDIDATES, ipv6: false }
    }
}

/// A map's definition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Definition {
    /// The kernel's number of its type.
    pub kind: u32,
    /// Size of a key in bytes.
    pub key: u32,
    /// Size of a value in bytes.
    pub value: u32,
    /// How many entries it can have.
    pub entries: u32,
    /// `BPF_F_*`.
    pub flags: u32,
}

/// The definitions of all maps in `object`, pinned or not, with these capacities.
///
/// # Errors
/// When the object is none.
pub fn definitions(object: &[u8], capacities: Capacities) -> Result<BTreeMap<String, Definition>, ParseError> {
    let object = Object::parse(object)?;
    let of = |map: &aya_obj::Map| Definition {
        kind: map.map_type(),
        key: map.key_size(),
        value: map.value_size(),
        entries: map.max_entries(),
        flags: map.map_flags(),
    };
    let mut definitions: BTreeMap<_, _> = object.maps.iter().map(|(name, map)| (name.clone(), of(map))).collect();
    for (name, entries) in capacities.by_name() {
        if let Some(definition) = definitions.get_mut(name) {
            definition.entries = entries;
        }
    }
    Ok(definitions)
}

/// Whether all maps that are pinned in `directory` are as `wanted` says. One that is missing is no other one.
///
/// # Errors
/// When one is there and cannot be read.
pub fn are_as_wanted(directory: &Path, wanted: &BTreeMap<String, Definition>) -> Result<bool, MapsError> {
    for name in NAMES {
        let path = directory.join(name);
        let failed = |source| MapsError { action: "open", path: path.clone(), source };
        let pinned = match MapInfo::from_pin(&path) {
            Ok(info) => Definition::of(&info).map_err(failed)?,
            Err(_) if !path.exists() => continue,
            Err(source) => return Err(failed(source)),
        };
        if wanted.get(name) != Some(&pinned) {
            return Ok(false);
        }
    }
    Ok(true)
}

impl Definition {
    fn of(info: &MapInfo) -> Result<Self, MapError> {
        Ok(Self {
            kind: info.map_type()? as u32,
            key: info.key_size(),
            value: info.value_size(),
            entries: info.max_entries(),
            flags: info.map_flags(),
        })
    }
}
