//! `ENDPOINTS`, and the flows between them: `FLOWS` and `CANDIDATES`.

use std::{collections::BTreeMap, net::Ipv4Addr, path::Path};

use aya::maps::{HashMap, Map, MapData};
use overlay_common::{Endpoint, Flow, FlowKey};

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

    /// Makes the map equal to `wanted`, touching only what differs: gone addresses first.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn reconcile(&mut self, wanted: &BTreeMap<Ipv4Addr, Endpoint>) -> Result<(), MapsError> {
        let present = self.all()?;
        for address in present.keys().filter(|address| !wanted.contains_key(address)) {
            let removed = self.0.map.remove(&address.octets());
            self.0.check("delete from", ignore_missing(removed))?;
        }
        for (address, endpoint) in wanted.iter().filter(|(address, endpoint)| present.get(address) != Some(endpoint)) {
            let written = self.0.map.insert(address.octets(), endpoint, 0);
            self.0.check("write", written)?;
        }
        Ok(())
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

    /// Every flow, one after another; a table that programs write to meanwhile may show one twice or miss one.
    pub fn iter(&self) -> impl Iterator<Item = Result<(FlowKey, Flow), MapsError>> + '_ {
        self.0.map.iter().map(|entry| self.0.check("read", entry))
    }
}
