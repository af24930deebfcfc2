//! [`take_down`]: nothing of the overlay is left on this node.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result};
use rtnetlink::Handle;

use crate::{
    conntrack,
    direct::DirectRoutes,
    link, loader,
    maps::{Family, LocalNodeMap},
    masquerade,
    rundir::RunDir,
};

/// Takes away everything that agents have left in `run_dir` and its overlay devices. What is missing is no error.
///
/// # Errors
/// When the kernel refuses.
pub async fn take_down(handle: &Handle, run_dir: &RunDir) -> Result<()> {
    let (devices, conntrack) = (run_dir.devices(), run_dir.conntrack());
    remove_direct_routes(handle, run_dir).await?;
    // Pins before the devices: programs detach, so that a device does not drop packets with them half gone.
    loader::take_down(run_dir)?;
    run_dir.remove_layouts()?;
    for overlay in devices.iter().map(|device| link::overlay_of(device)).collect::<BTreeSet<_>>() {
        masquerade::remove(&overlay).await.with_context(|| format!("remove the netfilter rules of {overlay}"))?;
    }
    for device in devices {
        link::remove(handle, &device).await.with_context(|| format!("remove device {device}"))?;
    }
    // When no flow is on the fast path any more, of another overlay on this node neither.
    if let Some(before) = conntrack {
        let others = link::list(handle).await?;
        if others.is_empty() {
            conntrack::put_back(&before)?;
        } else {
            let others = others.join(", ");
            tracing::info!(others, before, "nf_conntrack_tcp_be_liberal stays set for other overlays");
        }
    }
    Ok(run_dir.remove()?)
}

/// Removes the plain routes into the networks that the maps name, if an agent has got as far as to write them there.
async fn remove_direct_routes(handle: &Handle, run_dir: &RunDir) -> Result<()> {
    let Ok(local) = LocalNodeMap::open(&run_dir.maps()).and_then(|map| map.get()) else { return Ok(()) };
    let (ipv4, ipv6) = (<[u8; 4]>::range_of(&local).0.map(Into::into), <[u8; 16]>::range_of(&local).0.map(Into::into));
    let networks = ipv4.into_iter().chain(ipv6).collect();
    let direct = DirectRoutes::new(handle.clone(), networks, local.underlay_ifindex, true);
    Ok(direct.remove_all_but(&BTreeSet::new()).await?)
}
