//! `NEIGHBOURS`: how the programs reach each next hop.

use std::path::Path;

use aya::maps::{Map, MapData, PerCpuArray};
use overlay_common::Neighbour;

use super::{MapsError, Pinned};

/// What the programs remember of the kernel's neighbour table, each CPU for itself.
pub struct Neighbours(Pinned<PerCpuArray<MapData, Neighbour>>);

impl Neighbours {
    /// Opens the map pinned in `directory`.
    ///
    /// # Errors
    /// When it is not there or of another kind.
    pub fn open(directory: &Path) -> Result<Self, MapsError> {
        Ok(Self(Pinned::open(directory, "NEIGHBOURS", |map| PerCpuArray::try_from(Map::PerCpuArray(map)))?))
    }

    /// Every way that was noted, with the CPU that noted it.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn all(&self) -> Result<Vec<(usize, Neighbour)>, MapsError> {
        let mut noted = Vec::new();
        for slot in self.0.map.iter() {
            let slot = self.0.check("read", slot)?;
            noted.extend(
                slot.iter().copied().enumerate().filter(|(_, neighbour)| !neighbour.next_hop().is_unspecified()),
            );
        }
        Ok(noted)
    }
}
