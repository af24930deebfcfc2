//! [`Containers`]: what the programs are told of local containers, and where they are attached for them.

use std::{
    collections::{BTreeMap, BTreeSet},
    future,
    net::{IpAddr, Ipv4Addr},
    path::Path,
    time::Duration,
};

use overlay_common::Endpoint;

use crate::{
    endpoints::Endpoints,
    interface_name::interface_name,
    loader::{ContainerProgram, Interface, LoadError, Programs},
    maps::{EndpointsMap, MapsError},
};

/// How long to wait before an attachment that was refused is tried again.
const RETRY: Duration = Duration::from_millis(50);
/// After how many attempts it is reported: some seconds.
const REPORTED: u32 = 60;

/// The containers as the programs know them.
pub(super) struct Containers {
    map: EndpointsMap,
    /// What is in the map.
    owners: BTreeMap<Ipv4Addr, Endpoint>,
    /// The programs on each veth, the most urgent first.
    programs: &'static [ContainerProgram],
    /// What is attached to veths, by index, with the name that an index had then; none where that is to be done again: an
    /// earlier agent has attached it, or somebody has detached it. The kernel gives an index to another interface when it is told to.
    attached: BTreeMap<(ContainerProgram, u32), Option<String>>,
    /// What could not be attached and is to be tried again later, with the number of attempts.
    refused: BTreeMap<(ContainerProgram, u32), u32>,
    found: Endpoints,
}

impl Containers {
    /// Takes over what an earlier agent has left, as it is, until the first [`follow`](Self::follow).
    ///
    /// # Errors
    /// When map or links cannot be read.
    pub(super) fn open(maps: &Path, programs: &Programs, fast_path: bool) -> anyhow::Result<Self> {
        let map = EndpointsMap::open(maps)?;
        let attached = programs.attached_containers()?.into_iter().map(|attached| (attached, None)).collect();
        let programs: &[_] =
            if fast_path { &[ContainerProgram::From, ContainerProgram::To] } else { &[ContainerProgram::From] };
        let owners = map.all()?;
        Ok(Self { map, owners, programs, attached, refused: BTreeMap::new(), found: Endpoints::default() })
    }

    /// Puts the programs into all links that an earlier agent has left, because of the maps that they use.
    pub(super) fn replace_all(&mut self, programs: &mut Programs) {
        for &(program, index) in self.attached.keys().filter(|(program, _)| self.programs.contains(program)) {
            // Whoever has left meanwhile needs no program.
            let Some(name) = interface_name(index) else { continue };
            if let Err(error) = programs.attach_container(program, Interface { name: &name, index }) {
                tracing::debug!(%error, interface = %name, "program not replaced yet");
            }
        }
    }

    /// Takes in what containers there are now: who is gone is forgotten at once. For the new ones, see
    /// [`attach_next`](Self::attach_next).
    pub(super) fn follow(&mut self, programs: &Programs, found: Endpoints) {
        self.found = found;
        self.refused.retain(|(_, index), _| self.found.containers.contains_key(index));
        self.enter();
        self.attached.retain(|&(program, index), _| {
            if self.found.containers.contains_key(&index) && self.programs.contains(&program) {
                return true;
            }
            match programs.detach_container(program, index) {
                Ok(()) => tracing::debug!(program = program.name(), index, "detached"),
                Err(error) => tracing::warn!(%error, "container not detached"),
            }
            false
        });
    }

    /// Takes note that a program is not attached to a container's veth any more: it is due again. What is pinned is not
    /// forgotten, since the container may leave before.
    pub(super) fn was_detached(&mut self, program: &str, index: u32) {
        for (&(attached, veth), name) in &mut self.attached {
            if (attached.name(), veth) == (program, index) {
                *name = None;
            }
        }
    }

    /// Waits until a program is to be attached: not at all, when one is; for ever, when all are.
    pub(super) async fn due(&self) {
        if self.next().is_some() {
            // Behind everything that is ready, so that new containers delay nobody else.
            tokio::task::yield_now().await;
        } else if self.refused.is_empty() {
            future::pending::<()>().await;
        } else {
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Attaches one program that is [due](Self::due). The kernel waits for all CPUs at each (RCU), so a thousand new
    /// containers in one go would keep the agent from everything else.
    pub(super) fn attach_next(&mut self, programs: &mut Programs) {
        let Some((program, index, name)) = self.next().or_else(|| self.refused()) else { return };
        let name = name.to_owned();
        match programs.attach_container(program, Interface { name: &name, index }) {
            Ok(()) => {
                self.refused.remove(&(program, index));
                self.attached.insert((program, index), Some(name));
                // Not before: whatever has an entry is guarded.
                self.enter();
            }
            Err(error) => {
                let attempts = self.refused.entry((program, index)).or_default();
                *attempts += 1;
                report_unattached(&name, &error, *attempts);
            }
        }
    }

    /// The next program to attach, with the index and the name of the veth: all containers are guarded before the fast
    /// path is opened to any.
    fn next(&self) -> Option<(ContainerProgram, u32, &str)> {
        self.programs.iter().find_map(|&program| {
            self.found.containers.iter().find_map(|(&index, container)| {
                let key = (program, index);
                let is_attached = self.attached.get(&key).is_some_and(|name| name.as_ref() == Some(&container.name));
                (!is_attached && !self.refused.contains_key(&key)).then_some((program, index, container.name.as_str()))
            })
        })
    }

    /// What was refused the fewest times.
    fn refused(&self) -> Option<(ContainerProgram, u32, &str)> {
        let (&(program, index), _) = self.refused.iter().min_by_key(|(_, attempts)| **attempts)?;
        Some((program, index, self.found.containers.get(&index)?.name.as_str()))
    }

    /// Makes the map equal to what was found of guarded containers.
    fn enter(&mut self) {
        let guarded = |index| self.attached.contains_key(&(ContainerProgram::From, index));
        let wanted = owners(&self.found, &self.owners, guarded);
        if let Err(error) = self.enter_all(wanted) {
            tracing::warn!(%error, "addresses of containers not entered");
        }
    }

    /// Makes the map equal to `wanted`: what is gone goes first, so that new entries find room.
    fn enter_all(&mut self, wanted: BTreeMap<Ipv4Addr, Endpoint>) -> Result<(), MapsError> {
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
}

/// Reports what is still so after some time. A container that is gone by now is nothing special, the next finding will not
/// have it; and where one has left the bridge and is back, the kernel takes a moment to let go of the old program.
fn report_unattached(name: &str, error: &LoadError, attempts: u32) {
    if attempts == REPORTED {
        tracing::warn!(%error, interface = name, "container not attached; it may send with any address");
    } else {
        tracing::debug!(%error, interface = name, attempts, "container not attached");
    }
}

/// Whose IPv4 address is whose, among the node and those containers that count.
///
/// The node's own addresses are nobody else's. Where two containers have one address, it belongs to the one that had it
/// first, as long as that has it: otherwise a container could take a neighbour's address by giving it to itself.
fn owners(
    found: &Endpoints,
    before: &BTreeMap<Ipv4Addr, Endpoint>,
    counts: impl Fn(u32) -> bool,
) -> BTreeMap<Ipv4Addr, Endpoint> {
    let mut owners = BTreeMap::new();
    let ipv4 = |addresses: &BTreeSet<IpAddr>| {
        let ipv4 = |&address: &IpAddr| if let IpAddr::V4(address) = address { Some(address) } else { None };
        addresses.iter().filter_map(ipv4).collect::<Vec<_>>()
    };
    // The older interface has the smaller index.
    for (&index, container) in found.containers.iter().filter(|&(&index, _)| counts(index)) {
        for address in ipv4(&container.addresses) {
            let endpoint = Endpoint::new(index, container.mac);
            if before.get(&address).is_some_and(|before| before.ifindex() == index) {
                owners.insert(address, endpoint);
            } else {
                owners.entry(address).or_insert(endpoint);
            }
        }
    }
    owners.extend(ipv4(&found.node).into_iter().map(|address| (address, Endpoint::NODE)));
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
        let container = Container { name: "veth".to_owned(), mac: MAC, addresses: [ADDRESS.into()].into() };
        let containers = indexes.iter().map(|&index| (index, container.clone())).collect();
        Endpoints { containers, ..Endpoints::default() }
    }

    fn owner(found: &Endpoints, before: Option<u32>) -> Option<u32> {
        let before = before.map(|index| (ADDRESS, Endpoint::new(index, [9; 6]))).into_iter().collect();
        owners(found, &before, |_| true).get(&ADDRESS).map(Endpoint::ifindex)
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
        let found = Endpoints { node: [ADDRESS.into()].into(), ..all_have_it(&[10]) };
        assert_eq!(owners(&found, &BTreeMap::new(), |_| true)[&ADDRESS], Endpoint::NODE);
        assert_eq!(owner(&found, Some(10)), Some(0));
    }

    #[test]
    fn another_mac_address_is_entered() {
        let before = [(ADDRESS, Endpoint::new(10, [9; 6]))].into();
        assert_eq!(owners(&all_have_it(&[10]), &before, |_| true)[&ADDRESS], Endpoint::new(10, MAC));
    }
}
