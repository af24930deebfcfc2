//! [`DataPath`]: what the programs count and hold, read from their pins at each scrape.

use std::{collections::BTreeMap, fmt, path::Path};

use anyhow::Result;
use overlay_common::{LocalNode, Program, Reason, Route, Traffic};
use prometheus_client::{collector::Collector, encoding::DescriptorEncoder, registry::Unit};

use super::families::{alone, counter, gauge};
use crate::{
    loader,
    map_dump::{self, MapRow},
    maps::{Family, LocalNodeMap, MapsError, each, each_per_cpu, each_slot_per_cpu},
    rundir::RunDir,
};

/// Reads the maps and links pinned in a run directory.
#[derive(Debug)]
pub(super) struct DataPath(RunDir);

/// What was exchanged with a remote subnet, under the names that labels have.
struct Peer {
    subnet: String,
    node: String,
    traffic: Traffic,
}

/// All that there is to say, from one reading.
struct Reading {
    peers: Vec<Peer>,
    drops: Vec<(Reason, u64)>,
    maps: Vec<MapRow>,
    attached: BTreeMap<&'static str, u64>,
}

impl DataPath {
    pub(super) const fn of(run_dir: RunDir) -> Self {
        Self(run_dir)
    }

    fn read(&self) -> Result<Reading> {
        let directory = self.0.existing_maps()?;
        let node = LocalNodeMap::open(&directory)?.get()?;
        let mut all = peers::<[u8; 4]>(&directory, &node)?;
        all.extend(peers::<[u8; 16]>(&directory, &node)?);
        let mut drops = Vec::with_capacity(Reason::ALL.len());
        each_slot_per_cpu(&directory, "DROPS", |slot, values: &[u64]| {
            drops.extend(Reason::ALL.get(slot as usize).map(|&reason| (reason, values.iter().sum())));
            Ok::<_, MapsError>(())
        })?;
        Ok(Reading { peers: all, drops, maps: map_dump::list(&self.0)?, attached: count_attached(&self.0)? })
    }
}

/// The remote subnets of one family.
fn peers<A: Family>(directory: &Path, node: &LocalNode) -> Result<Vec<Peer>> {
    let length = node.range::<A>().subnet().1;
    let mut hops: BTreeMap<A, String> = BTreeMap::new();
    each(directory, A::ROUTES, |subnet, route: Route| {
        hops.insert(subnet, route.next_hop().to_string());
        Ok::<_, MapsError>(())
    })?;
    let mut peers = Vec::with_capacity(hops.len());
    each_per_cpu(directory, A::TRAFFIC, |subnet: A, values: &[Traffic]| {
        let node = hops.get(&subnet).cloned().unwrap_or_default();
        let subnet = subnet.network(length).to_string();
        peers.push(Peer { subnet, node, traffic: values.iter().copied().sum() });
        Ok::<_, MapsError>(())
    })?;
    Ok(peers)
}

/// To how many interfaces each program is attached.
fn count_attached(run_dir: &RunDir) -> Result<BTreeMap<&'static str, u64>> {
    let mut counts: BTreeMap<_, _> = Program::all().map(|program| (program.name(), 0)).collect();
    for place in loader::places(run_dir)?.iter().filter(|place| place.is_attached) {
        *counts.entry(place.program.name()).or_default() += 1;
    }
    Ok(counts)
}

impl Collector for DataPath {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let reading = self.read().inspect_err(|error| tracing::debug!("data path not read: {error:#}")).ok();
        let up = u64::from(reading.is_some());
        gauge(&mut encoder, "data_path_up", "Whether the programs' maps could be read", alone(up))?;
        reading.map_or(Ok(()), |reading| reading.encode(&mut encoder))
    }
}

impl Reading {
    fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        self.encode_peers(encoder)?;
        self.encode_drops(encoder)?;
        self.encode_maps(encoder)?;
        let attached: Vec<_> = self.attached.iter().map(|(program, count)| ([("program", *program)], *count)).collect();
        let attached = attached.iter().map(|(labels, count)| (&labels[..], *count));
        gauge(encoder, "programs_attached", "Interfaces that a program is attached to", attached)
    }

    /// A family for each count, with a sample for each peer: peers are bounded by the leases of the cluster.
    fn encode_peers(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        type Count = fn(&Traffic) -> u64;
        let families: [(&str, Option<Unit>, &str, Count); 6] = [
            ("encap_packets", None, "Packets sent to a remote subnet, as on the wire", |t| t.encap_packets),
            ("encap", Some(Unit::Bytes), "Bytes of inner packets sent to a remote subnet", |t| t.encap_bytes),
            ("encap_fast_packets", None, "Of the packets sent, those by the fast path", |t| t.encap_fast_packets),
            ("decap_packets", None, "Packets accepted from a remote subnet, as on the wire", |t| t.decap_packets),
            ("decap", Some(Unit::Bytes), "Bytes of inner packets accepted from a remote subnet", |t| t.decap_bytes),
            ("decap_fast_packets", None, "Of the packets accepted, those by the fast path", |t| t.decap_fast_packets),
        ];
        gauge(encoder, "peers", "Remote subnets with a route", alone(self.peers.len() as u64))?;
        let labels: Vec<_> =
            self.peers.iter().map(|peer| [("subnet", peer.subnet.as_str()), ("node", peer.node.as_str())]).collect();
        for (name, unit, help, count) in families {
            let samples = labels.iter().zip(&self.peers).map(|(labels, peer)| (&labels[..], count(&peer.traffic)));
            counter(encoder, (name, unit), help, samples)?;
        }
        Ok(())
    }

    fn encode_drops(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let names: Vec<_> = self.drops.iter().map(|(reason, _)| format!("{reason:?}")).collect();
        let labels: Vec<_> = names
            .iter()
            .zip(&self.drops)
            .map(|(name, (reason, _))| [("reason", name.as_str()), ("words", reason.text())])
            .collect();
        let samples = labels.iter().zip(&self.drops).map(|(labels, (_, count))| (&labels[..], *count));
        counter(encoder, ("drops", None), "Packets dropped, by reason; `overlay map dump DROPS` has advice", samples)
    }

    fn encode_maps(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        type Size = fn(&MapRow) -> u64;
        let families: [(&str, &str, Size); 3] = [
            ("map_entries", "Entries of a map in use", |map| map.entries),
            ("map_max_entries", "Entries that a map has room for", |map| map.capacity.into()),
            ("map_memory_bytes", "What the kernel has taken for a map", |map| map.memory_bytes),
        ];
        let labels: Vec<_> = self.maps.iter().map(|map| [("map", map.map)]).collect();
        for (name, help, size) in families {
            let samples = labels.iter().zip(&self.maps).map(|(labels, map)| (&labels[..], size(map)));
            gauge(encoder, name, help, samples)?;
        }
        Ok(())
    }
}
