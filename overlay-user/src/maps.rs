//! One type per kernel map, over its pin; only here aya's maps are known.

mod carry;
mod definition;
mod each;
mod endpoints;
mod facts;
mod family;
mod flows;
mod routes;

use std::{
    io,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use aya::maps::{Array, Map, MapData, MapError, PerCpuArray};
use overlay_common::{LocalNode, Reason};

pub use self::{
    carry::{carry_counts, carry_owners},
    definition::{Capacities, Definition, are_as_wanted, definitions},
    each::{bytes, count, each, each_per_cpu, each_slot, each_slot_per_cpu},
    endpoints::EndpointsMap,
    facts::MapFacts,
    family::Family,
    flows::Flows,
    routes::Routes,
};

/// The pinned maps, in the order of `bpf-maps.md`.
pub const NAMES: [&str; 14] = [
    "LOCAL_NODE",
    "ROUTES",
    "ROUTES_V6",
    "NODES",
    "ENDPOINTS",
    "ENDPOINTS_V6",
    "TRAFFIC",
    "TRAFFIC_V6",
    "DROPS",
    "FLOWS",
    "FLOWS_V6",
    "CANDIDATES",
    "CANDIDATES_V6",
    "NEIGHBOURS",
];

/// What can go wrong with a map.
#[derive(Debug, thiserror::Error)]
#[error("{action} map {path}: {source}")]
pub struct MapsError {
    action: &'static str,
    path: PathBuf,
    source: MapError,
}

/// This node, as the programs see it.
pub struct LocalNodeMap(Pinned<Array<MapData, LocalNode>>);

impl LocalNodeMap {
    /// Opens the map pinned in `directory`.
    ///
    /// # Errors
    /// When it is not there or of another kind.
    pub fn open(directory: &Path) -> Result<Self, MapsError> {
        Ok(Self(Pinned::open(directory, "LOCAL_NODE", |map| Array::try_from(Map::Array(map)))?))
    }

    /// Tells the programs who they are.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn set(&mut self, node: LocalNode) -> Result<(), MapsError> {
        let written = self.0.map.set(0, node, 0);
        self.0.check("write", written)
    }

    /// What the programs have been told.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn get(&self) -> Result<LocalNode, MapsError> {
        self.0.check("read", self.0.map.get(&0, 0))
    }
}

/// Dropped packets by reason.
pub struct Drops(Pinned<PerCpuArray<MapData, u64>>);

impl Drops {
    /// Opens the map pinned in `directory`.
    ///
    /// # Errors
    /// When it is not there or of another kind.
    pub fn open(directory: &Path) -> Result<Self, MapsError> {
        Ok(Self(Pinned::open(directory, "DROPS", |map| PerCpuArray::try_from(Map::PerCpuArray(map)))?))
    }

    /// Every reason with its count, all CPUs together.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn all(&self) -> Result<Vec<(Reason, u64)>, MapsError> {
        let count = |reason: Reason| {
            let values = self.0.map.get(&reason.index(), 0)?;
            Ok((reason, values.iter().sum()))
        };
        self.0.check("read", Reason::ALL.into_iter().map(count).collect())
    }
}

/// A map and where it is pinned, for messages.
struct Pinned<M> {
    map: M,
    path: PathBuf,
}

impl<M> Pinned<M> {
    fn open(
        directory: &Path,
        name: &str,
        convert: impl FnOnce(MapData) -> Result<M, MapError>,
    ) -> Result<Self, MapsError> {
        let path = directory.join(name);
        match MapData::from_pin(&path).and_then(convert) {
            Ok(map) => Ok(Self { map, path }),
            Err(source) => Err(MapsError { action: "open", path, source }),
        }
    }

    fn check<T>(&self, action: &'static str, result: Result<T, MapError>) -> Result<T, MapsError> {
        // The name alone: maps of another layout are opened in one directory and used from another.
        let name = self.path.file_name().map_or_else(|| self.path.clone(), PathBuf::from);
        result.map_err(|source| MapsError { action, path: name, source })
    }
}

/// How long a write may wait for the kernel to have memory.
const PATIENCE: Duration = Duration::from_secs(2);

/// Tries a write again for a while when the kernel has no memory for it.
///
/// The kernel takes memory for entries from a small stock that it fills up in the background: thousands of entries in a
/// row use it up faster, on a machine that has plenty. Per-CPU values, the scarcest kind, do that to a cluster of some
/// ten thousand nodes.
///
/// # Errors
/// What the write says in the end.
pub fn patiently(mut write: impl FnMut() -> Result<(), MapError>) -> Result<(), MapError> {
    let start = Instant::now();
    loop {
        match write() {
            Err(MapError::SyscallError(error))
                if error.io_error.kind() == io::ErrorKind::OutOfMemory && start.elapsed() < PATIENCE =>
            {
                thread::sleep(Duration::from_millis(1));
            }
            other => return other,
        }
    }
}

fn ignore_missing(result: Result<(), MapError>) -> Result<(), MapError> {
    match result {
        Err(MapError::KeyNotFound) => Ok(()),
        Err(MapError::SyscallError(error)) if error.io_error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aya::sys::SyscallError;

    fn failed(errno: i32) -> Result<(), MapError> {
        Err(SyscallError { call: "bpf_map_update_elem", io_error: io::Error::from_raw_os_error(errno) }.into())
    }

    #[test]
    fn a_write_waits_for_memory() {
        let mut stock = [failed(libc::ENOMEM), failed(libc::ENOMEM), Ok(())].into_iter();
        assert!(patiently(|| stock.next().unwrap()).is_ok());
        assert!(stock.next().is_none());
    }

    #[test]
    fn a_write_does_not_wait_for_what_waiting_does_not_mend() {
        let mut tries = 0;
        let full = patiently(|| {
            tries += 1;
            failed(libc::E2BIG)
        });
        assert!(full.is_err() && tries == 1);
    }
}
