//! Several etcd-servers as one cluster.

use std::net::Ipv4Addr;

use anyhow::Result;

use super::{Etcd, PEER_PORT};
use crate::netns::Netns;

/// Starts a cluster with one member at each place, and waits until all of them answer.
///
/// # Errors
///
/// When one does not come up: with the end of its log.
pub fn start_members(places: &[(Netns, Ipv4Addr)]) -> Result<Vec<Etcd>> {
    let name = |address: Ipv4Addr| format!("member{}", u32::from(address));
    let peers = places.iter().map(|(_, address)| format!("{}=http://{address}:{PEER_PORT}", name(*address)));
    let peers = peers.collect::<Vec<_>>().join(",");
    let launch = |(netns, address): &(Netns, Ipv4Addr)| {
        let builder = Etcd::builder(netns, *address).args(["--name", &name(*address), "--initial-cluster", &peers]);
        // etcd's own intervals: what is right for one that is alone makes several elect for ever on a slow machine.
        builder.args(["--heartbeat-interval", "100", "--election-timeout", "1000"]).launch()
    };
    let mut members = places.iter().map(launch).collect::<Result<Vec<_>>>()?;
    members.iter_mut().try_for_each(Etcd::wait_healthy)?;
    Ok(members)
}
