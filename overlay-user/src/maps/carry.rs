//! What is kept when maps of another layout take the place of those that are there: what neither the datastore nor the
//! interfaces could tell again.

use std::path::Path;

use aya::maps::{Map, MapData, PerCpuArray, PerCpuHashMap, PerCpuValues};
use overlay_common::Traffic;

use super::{EndpointsMap, Family, MapsError, Pinned, ignore_missing};

/// `BPF_EXIST`: only an entry that is there is written.
const ONLY_EXISTING: u64 = 2;

/// Copies whose address is whose from the maps in `from` to those in `to`: of two containers with one address, the one
/// that had it first keeps it. Nothing is copied from a map that cannot be read as ours.
///
/// # Errors
/// When the kernel refuses.
pub fn carry_owners(from: &Path, to: &Path) -> Result<(), MapsError> {
    carry_owners_of::<[u8; 4]>(from, to)?;
    carry_owners_of::<[u8; 16]>(from, to)
}

fn carry_owners_of<A: Family>(from: &Path, to: &Path) -> Result<(), MapsError> {
    let Ok(before) = EndpointsMap::<A>::open(from) else { return Ok(()) };
    let mut after = EndpointsMap::<A>::open(to)?;
    before.all()?.into_iter().try_for_each(|(address, endpoint)| after.set(address, endpoint))
}

/// Copies the counts of traffic, of those subnets that `to` has, and of drops. What is counted in `from` later is not in
/// `to`. Nothing is copied from a map that cannot be read as ours.
///
/// # Errors
/// When the kernel refuses.
pub fn carry_counts(from: &Path, to: &Path) -> Result<(), MapsError> {
    carry_traffic::<[u8; 4]>(from, to)?;
    carry_traffic::<[u8; 16]>(from, to)?;
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

fn carry_traffic<A: Family>(from: &Path, to: &Path) -> Result<(), MapsError> {
    let Ok(before) = traffic::<A>(from) else { return Ok(()) };
    let mut after = traffic::<A>(to)?;
    for entry in &before.map {
        let (subnet, counts) = before.check("read", entry)?;
        let written = after.map.insert(subnet, counts, ONLY_EXISTING);
        after.check("write", ignore_missing(written))?;
    }
    Ok(())
}

fn traffic<A: Family>(directory: &Path) -> Result<Pinned<PerCpuHashMap<MapData, A, Traffic>>, MapsError> {
    Pinned::open(directory, A::TRAFFIC, |map| PerCpuHashMap::try_from(Map::PerCpuHashMap(map)))
}

fn drops(directory: &Path) -> Result<Pinned<PerCpuArray<MapData, u64>>, MapsError> {
    Pinned::open(directory, "DROPS", |map| PerCpuArray::try_from(Map::PerCpuArray(map)))
}
