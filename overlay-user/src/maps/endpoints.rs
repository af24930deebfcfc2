//! `ENDPOINTS`, or that of IPv6: whose address is whose.

use std::{collections::BTreeMap, path::Path};

use aya::maps::{HashMap, Map, MapData};
use overlay_common::Endpoint;

use super::{Family, MapsError, Pinned, ignore_missing};

/// Which interface each address of our subnet of one family belongs to.
pub struct EndpointsMap<A: Family = [u8; 4]>(Pinned<HashMap<MapData, A, Endpoint>>);

impl<A: Family> EndpointsMap<A> {
    /// Opens the map pinned in `directory`.
    ///
    /// # Errors
    /// When it is not there or of another kind.
    pub fn open(directory: &Path) -> Result<Self, MapsError> {
        Ok(Self(Pinned::open(directory, A::ENDPOINTS, |map| HashMap::try_from(Map::HashMap(map)))?))
    }

    /// Gives `address` to `endpoint` from now on, whosever it was.
    ///
    /// # Errors
    /// When the kernel refuses; a full map is the likely reason.
    pub fn set(&mut self, address: A::Ip, endpoint: Endpoint) -> Result<(), MapsError> {
        let written = self.0.map.insert(A::of(address), endpoint, 0);
        self.0.check("write", written)
    }

    /// Makes `address` nobody's. One that is nobody's already is no error.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn remove(&mut self, address: A::Ip) -> Result<(), MapsError> {
        let removed = self.0.map.remove(&A::of(address));
        self.0.check("delete from", ignore_missing(removed))
    }

    /// Every address and whose it is.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn all(&self) -> Result<BTreeMap<A::Ip, Endpoint>, MapsError> {
        let entries = self.0.map.iter().map(|entry| entry.map(|(address, endpoint)| (address.ip(), endpoint)));
        self.0.check("read", entries.collect())
    }
}
