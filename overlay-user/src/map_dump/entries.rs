//! Decodes the entries of each map: addresses, names and words instead of bytes.

use std::{collections::BTreeMap, net::Ipv4Addr, path::Path};

use aya::Pod;
use ipnetwork::Ipv4Network;
use nix::{
    sys::time::TimeSpec,
    time::{ClockId, clock_gettime},
};
use overlay_common::{Endpoint, Flow, FlowKey, LocalNode, Neighbour, Reason, Route, Ticks, Traffic};
use serde_json::{Value, json};

use super::{DumpError, Entry, filter::About};
use crate::{
    interface_name::interface_name,
    mac::Mac,
    maps::{LocalNodeMap, bytes, each, each_per_cpu, each_slot, each_slot_per_cpu},
};

/// What takes the entries one after another.
type Visit<'a> = dyn FnMut(Entry) -> Result<(), DumpError> + 'a;

/// Shows `visit` every entry of map `name` that is in use.
pub(super) fn each_entry(directory: &Path, name: &'static str, visit: &mut Visit<'_>) -> Result<(), DumpError> {
    let subnets = Subnets::of(&LocalNodeMap::open(directory)?.get()?);
    match name {
        "LOCAL_NODE" => each_slot(directory, name, |slot, node| visit(local_node(slot, &node))),
        "ROUTES" => each(directory, name, |key, route| visit(routes(&subnets, key, &route))),
        "NODES" => each(directory, name, |node, key| visit(nodes(&subnets, node, key))),
        "ENDPOINTS" => each(directory, name, |address, endpoint| visit(endpoints(address, &endpoint))),
        "TRAFFIC" => {
            let owners = Owners::read(directory)?;
            each_per_cpu(directory, name, |key, values| visit(traffic(&subnets, &owners, key, values)))
        }
        "DROPS" => each_slot_per_cpu(directory, name, |slot, packets| drops(slot, packets).map_or(Ok(()), &mut *visit)),
        "NEIGHBOURS" => each_slot_per_cpu(directory, name, |slot, values| {
            (0..).zip(values).filter_map(|(cpu, value)| neighbour(slot, cpu, value)).try_for_each(&mut *visit)
        }),
        _ => {
            let (owners, now) = (Owners::read(directory)?, now());
            each(directory, name, |key, value| visit(flow(&subnets, &owners, now, &key, &value)))
        }
    }
}

/// How long subnets are: all of a network's are of one length.
struct Subnets(u8);

impl Subnets {
    fn of(node: &LocalNode) -> Self {
        Self(node.subnet().1)
    }

    /// The subnet that `address` is in.
    fn around(&self, address: Ipv4Addr) -> Ipv4Network {
        let whole = Ipv4Network::new(address, self.0).unwrap_or_else(|_| address.into());
        Ipv4Network::new(whole.network(), whole.prefix()).unwrap_or(whole)
    }
}

/// Which node owns each remote subnet.
struct Owners(BTreeMap<Ipv4Addr, Ipv4Addr>);

impl Owners {
    fn read(directory: &Path) -> Result<Self, DumpError> {
        let mut owners = BTreeMap::new();
        each(directory, "ROUTES", |subnet: [u8; 4], route: Route| {
            owners.insert(subnet.into(), route.next_hop());
            Ok::<_, DumpError>(())
        })?;
        Ok(Self(owners))
    }

    fn of(&self, subnet: Ipv4Network) -> Option<Ipv4Addr> {
        self.0.get(&subnet.network()).copied()
    }
}

fn entry<K: Pod, V: Pod>(key: &K, values: &[V], about: About, fields: Value) -> Entry {
    Entry { about, raw: (bytes(key).to_vec(), values.iter().flat_map(bytes).copied().collect()), fields }
}

fn local_node(slot: u32, node: &LocalNode) -> Entry {
    let vtep = node.vtep();
    let fields = json!({
        "address": vtep.address,
        "vtep_mac": mac(vtep.mac),
        "port": vtep.port,
        "vni": vtep.vni,
        "network": network(node.network()),
        "subnet": network(node.subnet()),
        "underlay": interface(node.underlay_ifindex),
        "overlay": interface(node.overlay_ifindex),
        "mtu": node.mtu(),
    });
    entry(&slot, &[*node], About::default(), fields)
}

fn routes(subnets: &Subnets, key: [u8; 4], route: &Route) -> Entry {
    let (subnet, node) = (subnets.around(key.into()), route.next_hop());
    let fields = json!({
        "subnet": subnet,
        "next_hop": node,
        "vtep_mac": mac(route.vtep_mac()),
        "direct": route.is_direct(),
    });
    entry(&key, &[*route], About { networks: vec![subnet], node: Some(node) }, fields)
}

fn nodes(subnets: &Subnets, node: [u8; 4], key: [u8; 4]) -> Entry {
    let (subnet, address) = (subnets.around(key.into()), Ipv4Addr::from(node));
    let about = About { networks: vec![subnet], node: Some(address) };
    entry(&node, &[key], about, json!({ "node": address, "subnet": subnet }))
}

fn traffic(subnets: &Subnets, owners: &Owners, key: [u8; 4], values: &[Traffic]) -> Entry {
    let subnet = subnets.around(key.into());
    let node = owners.of(subnet);
    let sum: Traffic = values.iter().copied().sum();
    let fields = json!({
        "subnet": subnet,
        "node": node,
        "encap_packets": sum.encap_packets,
        "encap_bytes": sum.encap_bytes,
        "decap_packets": sum.decap_packets,
        "decap_bytes": sum.decap_bytes,
        "encap_fast_packets": sum.encap_fast_packets,
        "decap_fast_packets": sum.decap_fast_packets,
    });
    entry(&key, values, About { networks: vec![subnet], node }, fields)
}

fn endpoints(key: [u8; 4], endpoint: &Endpoint) -> Entry {
    let address = Ipv4Addr::from(key);
    let interface = if endpoint.ifindex() == 0 { "node".to_owned() } else { interface(endpoint.ifindex()) };
    let fields = json!({ "address": address, "interface": interface, "mac": mac(endpoint.mac()) });
    entry(&key, &[*endpoint], About { networks: vec![address.into()], node: None }, fields)
}

/// `None` where programs of another version have reasons that we do not know.
fn drops(slot: u32, values: &[u64]) -> Option<Entry> {
    let reason = Reason::ALL.into_iter().find(|reason| reason.index() == slot)?;
    let fields = json!({
        "reason": format!("{reason:?}"),
        "packets": values.iter().sum::<u64>(),
        "meaning": reason.text(),
        "hint": reason.advice().hint,
    });
    Some(entry(&slot, values, About::default(), fields))
}

fn flow(subnets: &Subnets, owners: &Owners, now: Ticks, key: &FlowKey, flow: &Flow) -> Entry {
    let ((local, local_port), (remote, remote_port)) = (key.local(), key.remote());
    let node = owners.of(subnets.around(remote));
    let fields = json!({
        "protocol": protocol(key.protocol()),
        "local": format!("{local}:{local_port}"),
        "remote": format!("{remote}:{remote_port}"),
        "node": node,
        "outgoing_before_ms": age(now, flow.outgoing.before),
        "outgoing_after_ms": age(now, flow.outgoing.after),
        "incoming_before_ms": age(now, flow.incoming.before),
        "incoming_after_ms": age(now, flow.incoming.after),
    });
    entry(key, &[*flow], About { networks: vec![local.into(), remote.into()], node }, fields)
}

/// `None` where nothing was noted.
fn neighbour(slot: u32, cpu: u32, value: &Neighbour) -> Option<Entry> {
    if value.next_hop().is_unspecified() {
        return None;
    }
    let fields = json!({
        "next_hop": value.next_hop(),
        "cpu": cpu,
        "destination": mac(value.destination()),
        "source": mac(value.source()),
        "read_ms": age(now(), value.read_at()),
        "packets": value.packets(),
    });
    Some(entry(&slot, &[*value], About { networks: Vec::new(), node: Some(value.next_hop()) }, fields))
}

/// The programs' clock; see `overlay-ebpf/src/clock.rs`.
fn now() -> Ticks {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE).unwrap_or_else(|_| TimeSpec::new(0, 0));
    let nanoseconds = now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64;
    (nanoseconds >> 20) as Ticks
}

/// How many milliseconds ago something was; null: never.
fn age(now: Ticks, then: Ticks) -> Option<u64> {
    // What was noted while we read lies ahead of `now`.
    let ticks = now.wrapping_sub(then);
    let ticks = if ticks > Ticks::MAX / 2 { 0 } else { ticks };
    (then != 0).then_some((u64::from(ticks) << 20) / 1_000_000)
}

fn protocol(number: u8) -> String {
    match number {
        6 => "tcp".to_owned(),
        17 => "udp".to_owned(),
        other => other.to_string(),
    }
}

fn mac(octets: [u8; 6]) -> String {
    Mac(octets).to_string()
}

fn network((address, prefix): (Ipv4Addr, u8)) -> String {
    format!("{address}/{prefix}")
}

/// The name of an interface, and its index when there is none of that name any more.
pub(crate) fn interface(index: u32) -> String {
    interface_name(index).unwrap_or_else(|| format!("{index} (gone)"))
}
