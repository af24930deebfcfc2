//! `FLOWS` and `CANDIDATES`, or those of IPv6: what the fast path knows of one flow.

use std::path::Path;

use aya::maps::{HashMap, Map, MapData, MapError};
use overlay_common::{Flow, FlowKey};

use super::{Family, MapsError, Pinned};

/// The flows of one family that the fast path knows.
pub struct Flows<A: Family = [u8; 4]>(Pinned<HashMap<MapData, FlowKey<A>, Flow>>);

impl<A: Family> Flows<A> {
    /// Opens the map `name`, one of [`Family::FLOWS`], pinned in `directory`.
    ///
    /// # Errors
    /// When it is not there or of another kind.
    pub fn open(directory: &Path, name: &str) -> Result<Self, MapsError> {
        Ok(Self(Pinned::open(directory, name, |map| HashMap::try_from(Map::LruHashMap(map)))?))
    }

    /// What is known of one flow.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn get(&self, key: FlowKey<A>) -> Result<Option<Flow>, MapsError> {
        match self.0.map.get(&key, 0) {
            Err(MapError::KeyNotFound) => Ok(None),
            other => self.0.check("read", other).map(Some),
        }
    }
}
