//! Reads whole maps, one entry after another: what is held in memory does not grow with the map.
//!
//! A map that is written to meanwhile may show an entry twice or miss one.

use std::path::Path;

use aya::{
    Pod,
    maps::{Array, HashMap, Map, MapError, PerCpuArray, PerCpuHashMap},
};

use super::{MapsError, Pinned};

/// Shows `visit` every entry of a hash.
///
/// # Errors
/// When the map is not there or of another kind, the kernel refuses, or `visit` has had enough.
pub fn each<K: Pod, V: Pod, E: From<MapsError>>(
    directory: &Path,
    name: &str,
    mut visit: impl FnMut(K, V) -> Result<(), E>,
) -> Result<(), E> {
    let pinned: Pinned<HashMap<_, K, V>> = open(directory, name)?;
    for entry in &pinned.map {
        let (key, value) = pinned.check("read", entry)?;
        visit(key, value)?;
    }
    Ok(())
}

/// Counts the entries of a hash by their keys: half the system calls of [`each`].
///
/// # Errors
/// When the map is not there or of another kind, or the kernel refuses.
pub fn count<K: Pod, V: Pod>(directory: &Path, name: &str) -> Result<u64, MapsError> {
    let pinned: Pinned<HashMap<_, K, V>> = open(directory, name)?;
    pinned.map.keys().try_fold(0, |count, key| pinned.check("read", key).map(|_| count + 1))
}

/// Shows `visit` every entry of a hash whose values each CPU has for itself.
///
/// # Errors
/// As [`each`].
pub fn each_per_cpu<K: Pod, V: Pod, E: From<MapsError>>(
    directory: &Path,
    name: &str,
    mut visit: impl FnMut(K, &[V]) -> Result<(), E>,
) -> Result<(), E> {
    let pinned: Pinned<PerCpuHashMap<_, K, V>> = open(directory, name)?;
    for entry in &pinned.map {
        let (key, values) = pinned.check("read", entry)?;
        visit(key, &values)?;
    }
    Ok(())
}

/// Shows `visit` every slot of an array.
///
/// # Errors
/// As [`each`].
pub fn each_slot<V: Pod, E: From<MapsError>>(
    directory: &Path,
    name: &str,
    mut visit: impl FnMut(u32, V) -> Result<(), E>,
) -> Result<(), E> {
    let pinned: Pinned<Array<_, V>> = open(directory, name)?;
    for (slot, value) in (0..).zip(pinned.map.iter()) {
        visit(slot, pinned.check("read", value)?)?;
    }
    Ok(())
}

/// Shows `visit` every slot of an array whose values each CPU has for itself.
///
/// # Errors
/// As [`each`].
pub fn each_slot_per_cpu<V: Pod, E: From<MapsError>>(
    directory: &Path,
    name: &str,
    mut visit: impl FnMut(u32, &[V]) -> Result<(), E>,
) -> Result<(), E> {
    let pinned: Pinned<PerCpuArray<_, V>> = open(directory, name)?;
    for (slot, values) in (0..).zip(pinned.map.iter()) {
        visit(slot, &pinned.check("read", values)?)?;
    }
    Ok(())
}

/// The bytes of a key or a value as they are in the map.
#[must_use]
pub fn bytes<T: Pod>(value: &T) -> &[u8] {
    // SAFETY: those that are `Pod` here have their padding written out, which is asserted where they are defined, so every
    // byte is initialised; the slice borrows the value.
    unsafe { std::slice::from_raw_parts(std::ptr::from_ref(value).cast(), size_of::<T>()) }
}

fn open<M: TryFrom<Map, Error = MapError>>(directory: &Path, name: &str) -> Result<Pinned<M>, MapsError> {
    Pinned::open(directory, name, |map| M::try_from(Map::from_map_data(map)?))
}
