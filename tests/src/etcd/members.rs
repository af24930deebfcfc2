//! Several etcd-servers as one cluster.

use std::net::IpAddr;

use anyhow::Result;

use super::{Etcd, PEER_PORT, plain_url};
use crate::netns::Netns;

/// Starts a cluster with one member at each place, and waits until all of them answer.
///
/// # Errors
///
/// When one does not come up: with the end of its log.
pub fn start_members<A: Into<IpAddr> + Copy>(places: &[(Netns, A)]) -> Result<Vec<Etcd>> {
    let name = |number: usize| format!("member{number}");
    let peer = |(number, (_, address)): (usize, &(Netns, A))| {
        format!("{}={}", name(number), plain_url((*address).into(), PEER_PORT))
    };
    let peers = places.iter().enumerate().map(peer).collect::<Vec<_>>().join(",");
    let launch = |(number, (netns, address)): (usize, &(Netns, A))| {
        let builder = Etcd::builder(netns, *address).args(["--name", &name(number), "--initial-cluster", &peers]);
        // etcd's own intervals: what is right for one that is alone makes several elect for ever on a slow machine.
        builder.args(["--heartbeat-interval", "100", "--election-timeout", "1000"]).launch()
    };
    let mut members = places.iter().enumerate().map(launch).collect::<Result<Vec<_>>>()?;
    members.iter_mut().try_for_each(Etcd::wait_healthy)?;
    Ok(members)
}
