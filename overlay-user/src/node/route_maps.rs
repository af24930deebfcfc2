//! [`RouteMaps`]: the routes of both families, as the programs know them.

use std::{collections::BTreeMap, path::Path};

use ipnetwork::IpNetwork;
use overlay_common::{Address, Route};

use crate::{
    maps::{MapsError, Routes},
    network::Ranges,
};

/// The routes of both families.
pub(super) struct RouteMaps {
    v4: Routes<[u8; 4]>,
    v6: Routes<[u8; 16]>,
}

impl RouteMaps {
    /// Opens the maps pinned in `maps`. What is in those of a family that the overlay does not have is left over from when it
    /// had it.
    ///
    /// # Errors
    /// When one is not there or of another kind.
    pub(super) fn open(maps: &Path, ranges: &Ranges) -> Result<Self, MapsError> {
        let v4 = ranges.ipv4.map_or(<[u8; 4]>::BITS, |range| range.subnet.prefix());
        let v6 = ranges.ipv6.map_or(<[u8; 16]>::BITS, |range| range.subnet.prefix());
        Ok(Self { v4: Routes::open(maps, v4)?, v6: Routes::open(maps, v6)? })
    }

    /// Sends packets for `subnet` along `route` from now on.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(super) fn set(&mut self, subnet: IpNetwork, route: Route) -> Result<(), MapsError> {
        match subnet {
            IpNetwork::V4(subnet) => self.v4.set(subnet, route),
            IpNetwork::V6(subnet) => self.v6.set(subnet, route),
        }
    }

    /// Drops packets for and from `subnet` from now on.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(super) fn remove(&mut self, subnet: IpNetwork) -> Result<(), MapsError> {
        match subnet {
            IpNetwork::V4(subnet) => self.v4.remove(subnet),
            IpNetwork::V6(subnet) => self.v6.remove(subnet),
        }
    }

    /// Makes the maps equal to `wanted`. Returns how many routes changed.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(super) fn reconcile(&mut self, wanted: &BTreeMap<IpNetwork, Route>) -> Result<usize, MapsError> {
        let (mut v4, mut v6) = (BTreeMap::new(), BTreeMap::new());
        for (subnet, &route) in wanted {
            match *subnet {
                IpNetwork::V4(subnet) => drop(v4.insert(subnet, route)),
                IpNetwork::V6(subnet) => drop(v6.insert(subnet, route)),
            }
        }
        Ok(self.v4.reconcile(&v4)? + self.v6.reconcile(&v6)?)
    }
}
