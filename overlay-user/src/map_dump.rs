//! What `overlay map list` and `overlay map dump` print. Reads pinned maps; needs no running agent.
//!
//! Entries are read, filtered and printed one after another, so a large map takes no more memory than a small one.
//! `bpf-maps.md` documents the fields.

mod entries;
mod filter;
mod inventory;
mod print;

use std::{io, path::Path};

use overlay_common::{Flow, FlowKey};
use serde_json::Value;

pub(crate) use self::entries::interface;
use self::{filter::About, print::Printer};
pub use self::{
    filter::Filter,
    inventory::{MapRow, list_table},
};
use crate::{
    cli::MapOutput,
    maps::{self, Family as _, MapsError, NAMES},
    rundir::{RunDir, RunDirError},
};

/// Why a map cannot be printed.
#[derive(Debug, thiserror::Error)]
pub enum DumpError {
    /// There is no such map.
    #[error("no map {0:?}; the maps are {names}", names = NAMES.join(", "))]
    NoSuchMap(String),
    /// The map has nothing that the filter asks for.
    #[error("filter {map} by {option}: its entries have none; leave {option} out")]
    NotFiltered {
        /// The map.
        map: &'static str,
        /// The option.
        option: &'static str,
    },
    /// There is no data path.
    #[error(transparent)]
    RunDir(#[from] RunDirError),
    /// The kernel refused.
    #[error(transparent)]
    Maps(#[from] MapsError),
    /// The reader is gone, or the disk is full.
    #[error("write entries: {0}")]
    Write(#[from] io::Error),
}

/// One entry of a map.
struct Entry {
    /// What filters look at.
    about: About,
    /// Key and value as they are in the map; values of all CPUs, one after the other.
    raw: (Vec<u8>, Vec<u8>),
    /// The decoded entry: an object with the fields that `bpf-maps.md` documents.
    fields: Value,
}

/// Prints the entries of map `name` that `filter` lets through to `to`; behind them those of the map that IPv6 has in its
/// place.
///
/// # Errors
/// When there is no such map, it cannot be filtered so, or it cannot be read.
pub fn dump(
    run_dir: &RunDir,
    name: &str,
    filter: &Filter,
    form: MapOutput,
    to: &mut dyn io::Write,
) -> Result<(), DumpError> {
    let directory = run_dir.existing_maps()?;
    let name = known(name)?;
    filter.check(name)?;
    let mut printer = Printer::new(form, to);
    let mut print = |entry: Entry| if filter.admits(&entry.about) { Ok(printer.print(entry)?) } else { Ok(()) };
    let mut both = [Some(name), of_ipv6(name)].into_iter().flatten();
    let printed = both.try_for_each(|map| entries::each_entry(&directory, map, &mut print));
    let ended = printed.and_then(|()| Ok(printer.finish()?));
    match ended {
        // A reader that has read enough is no failure.
        Err(DumpError::Write(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

/// What there is to know of every map.
///
/// # Errors
/// When a map cannot be read.
pub fn list(run_dir: &RunDir) -> Result<Vec<MapRow>, DumpError> {
    let directory = run_dir.existing_maps()?;
    NAMES.into_iter().map(|name| Ok(MapRow::read(&directory, name, count(&directory, name)?)?)).collect()
}

/// Counts the entries in use.
fn count(directory: &Path, name: &'static str) -> Result<u64, DumpError> {
    // The large ones, at each scrape: their values are of no interest here. What is in use of the others only they tell.
    if <[u8; 4]>::FLOWS.contains(&name) {
        return Ok(maps::count::<FlowKey<[u8; 4]>, Flow>(directory, name)?);
    }
    if <[u8; 16]>::FLOWS.contains(&name) {
        return Ok(maps::count::<FlowKey<[u8; 16]>, Flow>(directory, name)?);
    }
    let mut count = 0;
    entries::each_entry(directory, name, &mut |_| {
        count += 1;
        Ok(())
    })?;
    Ok(count)
}

/// The map that holds for IPv6 what `name` holds for IPv4, if there is one.
fn of_ipv6(name: &str) -> Option<&'static str> {
    NAMES.into_iter().find(|other| other.strip_suffix("_V6") == Some(name))
}

/// The map's name as it is pinned.
fn known(name: &str) -> Result<&'static str, DumpError> {
    let known = NAMES.into_iter().find(|known| known.eq_ignore_ascii_case(name));
    known.ok_or_else(|| DumpError::NoSuchMap(name.to_owned()))
}
