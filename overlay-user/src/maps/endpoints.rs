//! `ENDPOINTS`: whose address is whose.

use std::{collections::BTreeMap, net::Ipv4Addr, path::Path};

use aya::maps::{HashMap, Map, MapData};
use overlay_common::Endpoint;

use super::{MapsError, Pinned, ignore_missing};

/// Which interface each address of our subnet belongs to.
pub struct EndpointsMap(Pinned<HashMap<MapData, [u8; 4], Endpoint>>);

impl EndpointsMap {
    /// Opens the map pinned in `directory`.
    ///
    /// # Errors
    /// When it is not there or of another kind.
    pub fn open(directory: &Path) -> Result<Self, MapsError> {
        Ok(Self(Pinned::open(directory, "ENDPOINTS", |map| HashMap::try_from(Map::HashMap(map)))?))
    }

    /// Gives `address` to `endpoint` from now on, whosever it was.
    ///
    /// # Errors
    /// When the kernel refuses; a full map is the likely reason.
    pub fn set(&mut self, address: Ipv4Addr, endpoint: Endpoint) -> Result<(), MapsError> {
        let written = self.0.map.insert(address.octets(), endpoint, 0);
        self.0.check("write", written)
    }

    /// Makes `address` nobody's. One that is nobody's already is no error.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn remove(&mut self, address: Ipv4Addr) -> Result<(), MapsError> {
        let removed = self.0.map.remove(&address.octets());
        self.0.check("delete from", ignore_missing(removed))
    }

    /// Every address and whose it is.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn all(&self) -> Result<BTreeMap<Ipv4Addr, Endpoint>, MapsError> {
        let entries = self.0.map.iter().map(|entry| entry.map(|(address, endpoint)| (address.into(), endpoint)));
        self.0.check("read", entries.collect())
    }
}
