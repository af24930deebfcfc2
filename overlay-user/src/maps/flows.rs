//! `FLOWS` and `CANDIDATES`: what the fast path knows of one flow.

use std::path::Path;

use aya::maps::{HashMap, Map, MapData, MapError};
use overlay_common::{Flow, FlowKey};

use super::{MapsError, Pinned};

/// The flows that the fast path knows: `FLOWS`, or `CANDIDATES`.
pub struct Flows(Pinned<HashMap<MapData, FlowKey, Flow>>);

impl Flows {
    /// Opens the map `name` pinned in `directory`.
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
    pub fn get(&self, key: FlowKey) -> Result<Option<Flow>, MapsError> {
        match self.0.map.get(&key, 0) {
            Err(MapError::KeyNotFound) => Ok(None),
            other => self.0.check("read", other).map(Some),
        }
    }
}
