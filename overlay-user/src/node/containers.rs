//! [`Containers`]: what the programs are told of local containers, and where they are attached for them.

use std::{collections::BTreeMap, net::Ipv4Addr};

use overlay_common::Endpoint;

use crate::{
    endpoints::Endpoints,
    loader::{Interface, LoadError, Programs},
    maps::{EndpointsMap, MapsError},
    rundir::RunDir,
};

/// The containers as the programs know them.
pub(super) struct Containers {
    map: EndpointsMap,
    /// What is in the map.
    owners: BTreeMap<Ipv4Addr, Endpoint>,
    /// The veths with programs, by index, with the name that an index had then; none where an earlier agent has attached
    /// them. The kernel gives an index to another interface when it is told to.
    attached: BTreeMap<u32, Option<String>>,
}

impl Containers {
    /// Takes over what an earlier agent has left, as it is, until the first [`follow`](Self::follow).
    ///
    /// # Errors
    /// When map or links cannot be read.
    pub(super) fn open(run_dir: &RunDir, programs: &Programs) -> anyhow::Result<Self> {
        let map = EndpointsMap::open(&run_dir.maps())?;
        let attached = programs.attached_containers()?.into_iter().map(|index| (index, None)).collect();
        Ok(Self { owners: map.all()?, map, attached })
    }

    /// Makes what is attached and in the map equal to `found`. What cannot be done is reported, and done the next time.
    ///
    /// A container's programs are there before its addresses are, and go after them: whatever has an entry is guarded.
    pub(super) fn follow(&mut self, programs: &mut Programs, found: &Endpoints, fast_path: bool) {
        for (&index, container) in &found.containers {
            let name = Some(&container.name);
            if self.attached.get(&index).is_some_and(|attached| attached.as_ref() == name) {
                continue;
            }
            match programs.attach_container(Interface { name: &container.name, index }, fast_path) {
                Ok(()) => {
                    tracing::info!(interface = container.name, "container attached");
                    self.attached.insert(index, name.cloned());
                }
                Err(error) => report_unattached(&container.name, &error),
            }
        }
        if let Err(error) = self.enter(owners(found, &self.owners)) {
            tracing::warn!(%error, "addresses of containers not entered");
        }
        self.detach_gone(programs, found);
    }

    /// Makes the map equal to `wanted`: what is gone goes first, so that new entries find room.
    fn enter(&mut self, wanted: BTreeMap<Ipv4Addr, Endpoint>) -> Result<(), MapsError> {
        let gone: Vec<_> = self.owners.keys().copied().filter(|address| !wanted.contains_key(address)).collect();
        for address in gone {
            self.map.remove(address)?;
            self.owners.remove(&address);
        }
        for (address, endpoint) in wanted {
            if self.owners.get(&address) != Some(&endpoint) {
                self.map.set(address, endpoint)?;
                self.owners.insert(address, endpoint);
            }
        }
        Ok(())
    }

    fn detach_gone(&mut self, programs: &Programs, found: &Endpoints) {
        self.attached.retain(|&index, name| {
            if found.containers.contains_key(&index) {
                return true;
            }
            match programs.detach_container(index) {
                Ok(()) => {
                    tracing::info!(interface = name.as_deref(), index, "container detached");
                    false
                }
                Err(error) => {
                    tracing::warn!(%error, index, "container not detached");
                    true
                }
            }
        });
    }
}

/// A container that is gone by now is nothing special: the next finding will not have it.
fn report_unattached(name: &str, error: &LoadError) {
    if nix::net::if_::if_nametoindex(name).is_ok() {
        tracing::warn!(%error, interface = name, "container not attached; it may send with any address");
    } else {
        tracing::debug!(%error, interface = name, "container gone before it was attached");
    }
}

/// Whose address is whose.
///
/// The node's own addresses are nobody else's. Where two containers have one address, it belongs to the one that had it
/// first, as long as that has it: otherwise a container could take a neighbour's address by giving it to itself.
fn owners(found: &Endpoints, before: &BTreeMap<Ipv4Addr, Endpoint>) -> BTreeMap<Ipv4Addr, Endpoint> {
    let mut owners = BTreeMap::new();
    // The older interface has the smaller index.
    for (&index, container) in &found.containers {
        for &address in &container.addresses {
            let endpoint = Endpoint::new(index, container.mac);
            if before.get(&address).is_some_and(|before| before.ifindex() == index) {
                owners.insert(address, endpoint);
            } else {
                owners.entry(address).or_insert(endpoint);
            }
        }
    }
    owners.extend(found.node.iter().map(|&address| (address, Endpoint::NODE)));
    owners
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoints::Container;

    const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 1, 15, 2);
    const MAC: [u8; 6] = [2; 6];

    /// Containers with these indexes, all with the same address.
    fn all_have_it(indexes: &[u32]) -> Endpoints {
        let container = Container { name: "veth".to_owned(), mac: MAC, addresses: [ADDRESS].into() };
        let containers = indexes.iter().map(|&index| (index, container.clone())).collect();
        Endpoints { containers, ..Endpoints::default() }
    }

    fn owner(found: &Endpoints, before: Option<u32>) -> Option<u32> {
        let before = before.map(|index| (ADDRESS, Endpoint::new(index, [9; 6]))).into_iter().collect();
        owners(found, &before).get(&ADDRESS).map(Endpoint::ifindex)
    }

    #[test]
    fn an_address_stays_with_the_container_that_had_it_first() {
        for (indexes, before, expected) in [
            (&[10][..], None, Some(10)),
            (&[10, 11], None, Some(10)),
            (&[10, 11], Some(10), Some(10)),
            (&[10, 11, 12], Some(11), Some(11)),
            (&[10, 11], Some(12), Some(10)),
            (&[11], Some(10), Some(11)),
            (&[], Some(10), None),
        ] {
            assert_eq!(owner(&all_have_it(indexes), before), expected, "{indexes:?}, before {before:?}");
        }
    }

    #[test]
    fn no_container_can_have_the_nodes_address() {
        let found = Endpoints { node: [ADDRESS].into(), ..all_have_it(&[10]) };
        assert_eq!(owners(&found, &BTreeMap::new())[&ADDRESS], Endpoint::NODE);
        assert_eq!(owner(&found, Some(10)), Some(0));
    }

    #[test]
    fn another_mac_address_is_entered() {
        let before = [(ADDRESS, Endpoint::new(10, [9; 6]))].into();
        assert_eq!(owners(&all_have_it(&[10]), &before)[&ADDRESS], Endpoint::new(10, MAC));
    }
}
