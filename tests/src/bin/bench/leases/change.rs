//! How long a new lease takes from etcd to the first packet.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use super::{
    Change,
    site::{LIMIT, Site, key, ms_since, subnet, value},
};
use crate::stats::quantile;

/// How often is looked.
const POLL: Duration = Duration::from_micros(50);

/// Adds so many leases, one after the other.
///
/// # Errors
///
/// When etcd refuses, or a route does not come.
pub(super) fn measure(site: &mut Site, changes: u32) -> Result<Change> {
    let leases = site.leases;
    let routes = site.routes().context("open the map ROUTES")?;
    let (mut to_route, mut to_packet) = (Vec::new(), Vec::new());
    for number in leases..leases + changes {
        let mut client = site.client();
        let start = Instant::now();
        let put = site.spawn(async move { Ok(client.put(key(number), value(number), None).await.map(drop)?) });
        let (mut route, mut packet) = (None, None);
        while route.is_none() || packet.is_none() {
            ensure!(start.elapsed() < LIMIT, "no route to new lease {}", subnet(number));
            if route.is_none() && routes.get(&subnet(number).octets(), 0).is_ok() {
                route = Some(ms_since(start));
            }
            if packet.is_none() && site.probe(number)? {
                packet = Some(ms_since(start));
            }
            thread::sleep(POLL);
        }
        to_route.extend(route);
        to_packet.extend(packet);
        site.block_on(async { put.await? })?;
    }
    site.leases += changes;
    let part = |times: &[f64], part| quantile(times, part).unwrap_or(f64::NAN);
    Ok(Change {
        leases,
        changes,
        route_p50_ms: part(&to_route, 0.5),
        route_p99_ms: part(&to_route, 0.99),
        packet_p50_ms: part(&to_packet, 0.5),
        packet_p99_ms: part(&to_packet, 0.99),
    })
}
