//! What is kept when maps of another layout take the place of those that are there: what neither the datastore nor the
//! interfaces could tell again.

use std::path::Path;

use aya::maps::{Map, MapData, PerCpuArray, PerCpuHashMap, PerCpuValues};
use overlay_common::Traffic;

use super::{EndpointsMap, MapsError, Pinned, ignore_missing};

/// `BPF_EXIST`: only an entry that is there is written.
const ONLY_EXISTING: u64 = 2;

/// Copies whose address is whose from the maps in `from` to those in `to`: of two containers with one address, the one
/// that had it first keeps it. Nothing is copied from a map that cannot be read as ours.
///
/// # Errors
/// When the kernel refuses.
pub fn carry_owners(from: &Path, to: &Path) -> Result<(), MapsError> {
    let Ok(before) = EndpointsMap::open(from) else { return Ok(()) };
    let mut after = EndpointsMap::open(to)?;
    before.all()?.into_iter().try_for_each(|(address, endpoint)| after.set(address, endpoint))
}

/// Copies the counts of traffic, of those subnets that `to` has, and of drops. What is counted in `from` later is not in
/// `to`. Nothing is copied from a map that cannot be read as ours.
///
/// # Errors
/// When the kernel refuses.
pub fn carry_counts(from: &Path, to: &Path) -> Result<(), MapsError> {
    if let Ok(before) = traffic(from) {
        let mut after = traffic(to)?;
        for entry in &before.map {
            let (subnet, counts) = before.check("read", entry)?;
            let written = after.map.insert(subnet, counts, ONLY_EXISTING);
            after.check("write", ignore_missing(written))?;
        }
    }
    if let Ok(before) = drops(from) {
        let mut after = drops(to)?;
        // New reasons go to the end.
        for reason in 0..before.map.len().min(after.map.len()) {
            let counts: PerCpuValues<u64> = before.check("read", before.map.get(&reason, 0))?;
            let written = after.map.set(reason, counts, 0);
            after.check("write", written)?;
        }
    }
    Ok(())
}

fn traffic(directory: &Path) -> Result<Pinned<PerCpuHashMap<MapData, [u8; 4], Traffic>>, MapsError> {
    Pinned::open(directory, "TRAFFIC", |map| PerCpuHashMap::try_from(Map::PerCpuHashMap(map)))
}

fn drops(directory: &Path) -> Result<Pinned<PerCpuArray<MapData, u64>>, MapsError> {
    Pinned::open(directory, "DROPS", |map| PerCpuArray::try_from(Map::PerCpuArray(map)))
}
