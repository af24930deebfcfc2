//! What `overlay map list` and `overlay map dump` print. Reads pinned maps; needs no running agent.
//!
//! One row per entry, with named fields; the table's columns and the JSON's keys are the same names.

use std::path::Path;

use comfy_table::{ContentArrangement, Table, presets};
use ipnetwork::Ipv4Network;
use overlay_common::LocalNode;
use serde_json::{Value, json};

use crate::{
    mac::Mac,
    maps::{Drops, EndpointsMap, Flows, LocalNodeMap, MapsError, NAMES, Neighbours, Routes},
    rundir::{RunDir, RunDirError},
};

/// Why a map cannot be printed.
#[derive(Debug, thiserror::Error)]
pub enum DumpError {
    /// There is no such map.
    #[error("no map {0:?}; the maps are {names}", names = NAMES.join(", "))]
    NoSuchMap(String),
    /// There is no data path.
    #[error(transparent)]
    RunDir(#[from] RunDirError),
    /// The kernel refused.
    #[error(transparent)]
    Maps(#[from] MapsError),
}

/// The entries of map `name`, one JSON object each.
///
/// # Errors
/// When there is no such map, or it cannot be read.
pub fn rows(run_dir: &RunDir, name: &str) -> Result<Vec<Value>, DumpError> {
    let directory = run_dir.existing_maps()?;
    let node = LocalNodeMap::open(&directory)?.get()?;
    match name.to_ascii_uppercase().as_str() {
        "LOCAL_NODE" => Ok(vec![local_node(&node)]),
        "ROUTES" => routes(&directory, &node),
        "NODES" => nodes(&directory, &node),
        "TRAFFIC" => traffic(&directory, &node),
        "ENDPOINTS" => endpoints(&directory),
        "DROPS" => drops(&directory),
        name @ ("FLOWS" | "CANDIDATES") => flows(&directory, name),
        "NEIGHBOURS" => neighbours(&directory),
        _ => Err(DumpError::NoSuchMap(name.to_owned())),
    }
}

/// The rows as a table; the fields of the first row are its columns.
#[must_use]
pub fn table(rows: &[Value]) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    if let Some(Value::Object(first)) = rows.first() {
        table.set_header(first.keys());
    }
    for row in rows.iter().filter_map(Value::as_object) {
        table.add_row(row.values().map(cell));
    }
    table.trim_fmt()
}

fn cell(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn local_node(node: &LocalNode) -> Value {
    let vtep = node.vtep();
    json!({
        "address": vtep.address,
        "vtep_mac": mac(vtep.mac),
        "port": vtep.port,
        "vni": vtep.vni,
        "network": network(node.network()),
        "subnet": network(node.subnet()),
        "underlay": interface(node.underlay_ifindex),
        "overlay": interface(node.overlay_ifindex),
        "mtu": node.mtu(),
    })
}

fn routes(directory: &Path, node: &LocalNode) -> Result<Vec<Value>, DumpError> {
    let routes = Routes::open(directory, node.subnet().1)?.all()?;
    let row = |(subnet, route): (Ipv4Network, overlay_common::Route)| {
        json!({
            "subnet": subnet,
            "next_hop": route.next_hop(),
            "vtep_mac": mac(route.vtep_mac()),
            "direct": route.is_direct(),
        })
    };
    Ok(routes.into_iter().map(row).collect())
}

fn nodes(directory: &Path, node: &LocalNode) -> Result<Vec<Value>, DumpError> {
    let nodes = Routes::open(directory, node.subnet().1)?.nodes()?;
    Ok(nodes.into_iter().map(|(address, subnet)| json!({ "node": address, "subnet": subnet })).collect())
}

fn traffic(directory: &Path, node: &LocalNode) -> Result<Vec<Value>, DumpError> {
    let traffic = Routes::open(directory, node.subnet().1)?.traffic()?;
    let row = |(subnet, traffic): (Ipv4Network, overlay_common::Traffic)| {
        json!({
            "subnet": subnet,
            "encap_packets": traffic.encap_packets,
            "encap_bytes": traffic.encap_bytes,
            "decap_packets": traffic.decap_packets,
            "decap_bytes": traffic.decap_bytes,
            "encap_fast_packets": traffic.encap_fast_packets,
            "decap_fast_packets": traffic.decap_fast_packets,
        })
    };
    Ok(traffic.into_iter().map(row).collect())
}

fn endpoints(directory: &Path) -> Result<Vec<Value>, DumpError> {
    let row = |(address, endpoint): (std::net::Ipv4Addr, overlay_common::Endpoint)| {
        let interface = if endpoint.ifindex() == 0 { "node".to_owned() } else { interface(endpoint.ifindex()) };
        json!({ "address": address, "interface": interface, "mac": mac(endpoint.mac()) })
    };
    Ok(EndpointsMap::open(directory)?.all()?.into_iter().map(row).collect())
}

fn flows(directory: &Path, name: &str) -> Result<Vec<Value>, DumpError> {
    let row = |entry: Result<(overlay_common::FlowKey, overlay_common::Flow), MapsError>| {
        let (key, flow) = entry?;
        let (local, remote) = (key.local(), key.remote());
        Ok(json!({
            "protocol": key.protocol(),
            "local": format!("{}:{}", local.0, local.1),
            "remote": format!("{}:{}", remote.0, remote.1),
            "outgoing_before": flow.outgoing.before,
            "outgoing_after": flow.outgoing.after,
            "incoming_before": flow.incoming.before,
            "incoming_after": flow.incoming.after,
        }))
    };
    Flows::open(directory, name)?.iter().map(row).collect()
}

fn neighbours(directory: &Path) -> Result<Vec<Value>, DumpError> {
    let row = |(cpu, neighbour): (usize, overlay_common::Neighbour)| {
        json!({
            "next_hop": neighbour.next_hop(),
            "cpu": cpu,
            "destination": mac(neighbour.destination()),
            "source": mac(neighbour.source()),
            "read_at": neighbour.read_at(),
            "packets": neighbour.packets(),
        })
    };
    Ok(Neighbours::open(directory)?.all()?.into_iter().map(row).collect())
}

fn drops(directory: &Path) -> Result<Vec<Value>, DumpError> {
    let drops = Drops::open(directory)?.all()?;
    let row = |(reason, packets): (overlay_common::Reason, u64)| json!({ "reason": format!("{reason:?}"), "packets": packets, "meaning": reason.text(), "hint": reason.advice().hint });
    Ok(drops.into_iter().map(row).collect())
}

fn mac(octets: [u8; 6]) -> String {
    Mac(octets).to_string()
}

fn network((address, prefix): (std::net::Ipv4Addr, u8)) -> String {
    format!("{address}/{prefix}")
}

/// The name of an interface, and its index when there is none of that name any more.
fn interface(index: u32) -> String {
    nix::net::if_::if_indextoname(index)
        .ok()
        .and_then(|name| name.into_string().ok())
        .unwrap_or_else(|| format!("{index} (gone)"))
}
