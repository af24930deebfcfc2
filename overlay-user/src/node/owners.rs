//! [`Owners`]: whose each address of our subnet of one family is, and the map that says so to the programs.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::Path,
};

use overlay_common::Endpoint;

use crate::{
    endpoints::Endpoints,
    maps::{EndpointsMap, Family, MapsError},
};

/// The owners of the addresses of one family.
pub(super) struct Owners<A: Family> {
    map: EndpointsMap<A>,
    /// What is in the map.
    entered: BTreeMap<A::Ip, Endpoint>,
}

impl<A: Family> Owners<A> {
    /// Takes over what an earlier agent has left in the map pinned in `maps`.
    ///
    /// # Errors
    /// When the map cannot be read.
    pub(super) fn open(maps: &Path) -> Result<Self, MapsError> {
        let map = EndpointsMap::open(maps)?;
        let entered = map.all()?;
        Ok(Self { map, entered })
    }

    /// Makes the map equal to what was found of the node and of those containers that count: what is gone goes first, so
    /// that new entries find room.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(super) fn enter(&mut self, found: &Endpoints, counts: impl Fn(u32) -> bool) -> Result<(), MapsError> {
        let wanted = owners::<A>(found, &self.entered, counts);
        let gone: Vec<_> = self.entered.keys().copied().filter(|address| !wanted.contains_key(address)).collect();
        for address in gone {
            self.map.remove(address)?;
            self.entered.remove(&address);
        }
        for (address, endpoint) in wanted {
            if self.entered.get(&address) != Some(&endpoint) {
                self.map.set(address, endpoint)?;
                self.entered.insert(address, endpoint);
            }
        }
        Ok(())
    }
}

/// Whose address of one family is whose, among the node and those containers that count.
///
/// The node's own addresses are nobody else's. Where two containers have one address, it belongs to the one that had it
/// first, as long as that has it: otherwise a container could take a neighbour's address by giving it to itself.
fn owners<A: Family>(
    found: &Endpoints,
    before: &BTreeMap<A::Ip, Endpoint>,
    counts: impl Fn(u32) -> bool,
) -> BTreeMap<A::Ip, Endpoint> {
    let mut owners = BTreeMap::new();
    let of_family = |addresses: &BTreeSet<IpAddr>| addresses.iter().copied().filter_map(A::pick).collect::<Vec<_>>();
    // The older interface has the smaller index.
    for (&index, container) in found.containers.iter().filter(|&(&index, _)| counts(index)) {
        for address in of_family(&container.addresses) {
            let endpoint = Endpoint::new(index, container.mac);
            if before.get(&address).is_some_and(|before| before.ifindex() == index) {
                owners.insert(address, endpoint);
            } else {
                owners.entry(address).or_insert(endpoint);
            }
        }
    }
    owners.extend(of_family(&found.node).into_iter().map(|address| (address, Endpoint::NODE)));
    owners
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

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
        owners::<[u8; 4]>(found, &before, |_| true).get(&ADDRESS).map(Endpoint::ifindex)
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
        assert_eq!(owners::<[u8; 4]>(&found, &BTreeMap::new(), |_| true)[&ADDRESS], Endpoint::NODE);
        assert_eq!(owner(&found, Some(10)), Some(0));
    }

    #[test]
    fn another_mac_address_is_entered() {
        let before = [(ADDRESS, Endpoint::new(10, [9; 6]))].into();
        assert_eq!(owners::<[u8; 4]>(&all_have_it(&[10]), &before, |_| true)[&ADDRESS], Endpoint::new(10, MAC));
    }

    #[test]
    fn each_family_sees_its_own_addresses() {
        let mut found = all_have_it(&[10]);
        let ipv6: IpAddr = "fd00:1::2".parse().unwrap();
        found.containers.get_mut(&10).unwrap().addresses.insert(ipv6);
        let before = BTreeMap::new();
        assert_eq!(owners::<[u8; 4]>(&found, &before, |_| true).into_keys().collect::<Vec<_>>(), [ADDRESS]);
        let ipv6_owners = owners::<[u8; 16]>(&found, &BTreeMap::new(), |_| true);
        assert_eq!(ipv6_owners.into_keys().map(IpAddr::from).collect::<Vec<_>>(), [ipv6]);
    }
}
