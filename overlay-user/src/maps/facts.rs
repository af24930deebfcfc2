//! [`MapFacts`]: what the kernel says of a map.

use std::{
    fs, io,
    os::fd::{AsFd as _, AsRawFd as _},
    path::Path,
};

use aya::maps::{MapData, MapError, MapInfo, MapType};

use super::{MapsError, Pinned};

/// What the kernel says of a map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MapFacts {
    /// Its kind, in the words of `bpf-maps.md`.
    pub kind: &'static str,
    /// Bytes of a key.
    pub key_bytes: u32,
    /// Bytes of a value, on each CPU where it is kept per CPU.
    pub value_bytes: u32,
    /// How many entries there is room for.
    pub capacity: u32,
    /// What the kernel has taken for it, in bytes.
    pub memory_bytes: u64,
}

impl MapFacts {
    /// Asks about the map `name` pinned in `directory`.
    ///
    /// # Errors
    /// When it is not there, or the kernel refuses.
    pub fn read(directory: &Path, name: &str) -> Result<Self, MapsError> {
        let pinned = Pinned::open(directory, name, Ok)?;
        let info = pinned.check("ask about", MapInfo::from_pin(&pinned.path))?;
        let memory = memory(&pinned.map).map_err(MapError::IoError);
        Ok(Self {
            kind: pinned.check("ask about", info.map_type().map(kind))?,
            key_bytes: info.key_size(),
            value_bytes: info.value_size(),
            capacity: info.max_entries(),
            memory_bytes: pinned.check("ask about", memory)?,
        })
    }
}

const fn kind(kind: MapType) -> &'static str {
    match kind {
        MapType::Array => "array",
        MapType::Hash => "hash",
        MapType::LruHash => "LRU hash",
        MapType::PerCpuHash => "per-CPU hash",
        MapType::PerCpuArray => "per-CPU array",
        _ => "of another kind",
    }
}

/// The kernel says this of open files only, and in text.
fn memory(map: &MapData) -> io::Result<u64> {
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", map.fd().as_fd().as_raw_fd()))?;
    let memory = info.lines().find_map(|line| line.strip_prefix("memlock:")?.trim().parse().ok());
    memory.ok_or_else(|| io::Error::other("no memlock in its fdinfo"))
}
