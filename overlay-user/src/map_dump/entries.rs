//! Decodes the entries of each map: addresses, names and words instead of bytes.

use std::{
    collections::BTreeMap,
    fmt::Display,
    net::{IpAddr, SocketAddr},
    path::Path,
};

use aya::Pod;
use ipnetwork::IpNetwork;
use nix::{
    sys::time::TimeSpec,
    time::{ClockId, clock_gettime},
};
use overlay_common::{
    Endpoint, Flow, FlowKey, LocalNode, Neighbour, NodeSubnets, Reason, Route, Ticks, Traffic, UnderlayAddress,
};
use serde_json::{Value, json};

use super::{DumpError, Entry, filter::About};
use crate::{
    interface_name::interface_name,
    mac::Mac,
    maps::{Family, LocalNodeMap, bytes, each, each_per_cpu, each_slot, each_slot_per_cpu},
};

/// What takes the entries one after another.
type Visit<'a> = dyn FnMut(Entry) -> Result<(), DumpError> + 'a;

/// Shows `visit` every entry of map `name` that is in use.
pub(super) fn each_entry(directory: &Path, name: &'static str, visit: &mut Visit<'_>) -> Result<(), DumpError> {
    let node = LocalNodeMap::open(directory)?.get()?;
    match name {
        "LOCAL_NODE" => each_slot(directory, name, |slot, node| local_node(slot, &node).try_for_each(&mut *visit)),
        "NODES" => each(directory, name, |address, subnets| nodes(&node, address, &subnets).try_for_each(&mut *visit)),
        "DROPS" => each_slot_per_cpu(directory, name, |slot, packets| drops(slot, packets).map_or(Ok(()), &mut *visit)),
        "NEIGHBOURS" => each_slot_per_cpu(directory, name, |slot, values| {
            (0..).zip(values).filter_map(|(cpu, value)| neighbour(slot, cpu, value)).try_for_each(&mut *visit)
        }),
        _ if name.ends_with("_V6") => each_of::<[u8; 16]>(directory, name, &node, visit),
        _ => each_of::<[u8; 4]>(directory, name, &node, visit),
    }
}

/// The same of a map that each family has for itself.
fn each_of<A: Family>(
    directory: &Path,
    name: &'static str,
    node: &LocalNode,
    visit: &mut Visit<'_>,
) -> Result<(), DumpError> {
    let subnets = Subnets::<A>::of(directory, node);
    if name == A::ROUTES {
        each(directory, name, |key, route| visit(routes(&subnets, key, &route)))
    } else if name == A::ENDPOINTS {
        each(directory, name, |address, endpoint| visit(endpoints::<A>(address, &endpoint)))
    } else if name == A::TRAFFIC {
        let subnets = subnets.with_owners()?;
        each_per_cpu(directory, name, |key, values| visit(traffic(&subnets, key, values)))
    } else {
        let (subnets, now) = (subnets.with_owners()?, now());
        each(directory, name, |key, value| visit(flow(&subnets, now, &key, &value)))
    }
}

/// The remote subnets of one family.
struct Subnets<'a, A> {
    directory: &'a Path,
    /// In bits: all of a network's are of one length.
    length: u8,
    /// Which node owns each of them, if that is asked for.
    owners: BTreeMap<A, UnderlayAddress>,
}

impl<'a, A: Family> Subnets<'a, A> {
    fn of(directory: &'a Path, node: &LocalNode) -> Self {
        Self { directory, length: node.range::<A>().subnet().1, owners: BTreeMap::new() }
    }

    /// Reads which node owns each subnet.
    fn with_owners(mut self) -> Result<Self, DumpError> {
        each(self.directory, A::ROUTES, |subnet: A, route: Route| {
            self.owners.insert(subnet, route.next_hop());
            Ok::<_, DumpError>(())
        })?;
        Ok(self)
    }

    /// The subnet that `address` is in.
    fn around(&self, address: A) -> IpNetwork {
        address.network(self.length).into()
    }

    /// The node that owns the subnet of `address`.
    fn owner(&self, address: A) -> Option<IpAddr> {
        self.owners.get(&A::first(address.network(self.length))).map(|node| node.ip())
    }
}

fn entry<K: Pod, V: Pod>(key: &K, values: &[V], about: About, fields: Value) -> Entry {
    Entry { about, raw: (bytes(key).to_vec(), values.iter().flat_map(bytes).copied().collect()), fields }
}

/// An entry for each family that the node has; that of IPv4 if it has none.
fn local_node(slot: u32, node: &LocalNode) -> impl Iterator<Item = Entry> {
    let v6 = has::<[u8; 16]>(node).then(|| local_family::<[u8; 16]>(slot, node));
    let v4 = (has::<[u8; 4]>(node) || v6.is_none()).then(|| local_family::<[u8; 4]>(slot, node));
    [v4, v6].into_iter().flatten()
}

fn has<A: Family>(node: &LocalNode) -> bool {
    node.range::<A>().is_on() || node.device::<A>().is_some()
}

fn local_family<A: Family>(slot: u32, node: &LocalNode) -> Entry {
    let (vtep, range) = (node.vtep::<A>(), node.range::<A>());
    let fields = json!({
        "address": vtep.address.into(),
        "vtep_mac": mac(vtep.mac),
        "port": vtep.port,
        "vni": vtep.vni,
        "network": network(range.network()),
        "subnet": network(range.subnet()),
        "underlay": interface(node.underlay_ifindex),
        "overlay": interface(node.device::<A>().map_or(0, |device| device.ifindex)),
        "mtu": node.mtu::<A>(),
    });
    entry(&slot, &[*node], About::default(), fields)
}

fn routes<A: Family>(subnets: &Subnets<'_, A>, key: A, route: &Route) -> Entry {
    let (subnet, node) = (subnets.around(key), route.next_hop().ip());
    let fields = json!({
        "subnet": subnet,
        "next_hop": node,
        "vtep_mac": mac(route.vtep_mac()),
        "direct": route.is_direct(),
        "checksum": route.wants_checksum(),
    });
    entry(&key, &[*route], About { networks: vec![subnet], node: Some(node) }, fields)
}

/// An entry for each subnet of the node.
fn nodes(local: &LocalNode, address: UnderlayAddress, subnets: &NodeSubnets) -> impl Iterator<Item = Entry> {
    let v4 = subnets.get().map(|subnet| node_subnet::<[u8; 4]>(local, address, subnets, subnet));
    let v6 = subnets.get().map(|subnet| node_subnet::<[u8; 16]>(local, address, subnets, subnet));
    [v4, v6].into_iter().flatten()
}

fn node_subnet<A: Family>(local: &LocalNode, address: UnderlayAddress, subnets: &NodeSubnets, subnet: A) -> Entry {
    let subnet: IpNetwork = subnet.network(local.range::<A>().subnet().1).into();
    let about = About { networks: vec![subnet], node: Some(address.ip()) };
    entry(&address, &[*subnets], about, json!({ "node": address.ip(), "subnet": subnet }))
}

fn traffic<A: Family>(subnets: &Subnets<'_, A>, key: A, values: &[Traffic]) -> Entry {
    let (subnet, node) = (subnets.around(key), subnets.owner(key));
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

fn endpoints<A: Family>(key: A, endpoint: &Endpoint) -> Entry {
    let address: IpAddr = A::Ip::from(key).into();
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

fn flow<A: Family>(subnets: &Subnets<'_, A>, now: Ticks, key: &FlowKey<A>, flow: &Flow) -> Entry {
    let [(local, local_port), (remote, remote_port)] = [key.local(), key.remote()].map(|(ip, port)| (ip.into(), port));
    let node = subnets.owner(A::of(key.remote().0));
    let fields = json!({
        "protocol": protocol(key.protocol()),
        "local": SocketAddr::new(local, local_port),
        "remote": SocketAddr::new(remote, remote_port),
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
        "next_hop": value.next_hop().ip(),
        "cpu": cpu,
        "destination": mac(value.destination()),
        "source": mac(value.source()),
        "read_ms": age(now(), value.read_at()),
        "packets": value.packets(),
    });
    Some(entry(&slot, &[*value], About { networks: Vec::new(), node: Some(value.next_hop().ip()) }, fields))
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

fn network((address, prefix): (impl Display, u8)) -> String {
    format!("{address}/{prefix}")
}

/// The name of an interface, and its index when there is none of that name any more.
pub(crate) fn interface(index: u32) -> String {
    interface_name(index).unwrap_or_else(|| format!("{index} (gone)"))
}
