//! Devices and routes of others in the place of ours: flannel's device with the same VNI, the network routed elsewhere.

use rtnetlink::Handle;

use super::Finding;
use crate::link::{self, LinkConfig};

const CHECK: &str = "device";

pub(super) async fn check(handle: &Handle, config: &LinkConfig, has_device: bool) -> Finding {
    let (name, network) = (config.name(), config.network);
    match link::preview(handle, config).await {
        Ok(()) if has_device => Finding::green(CHECK, format!("{name} is there; {network} is routed to it")),
        Ok(()) => Finding::green(CHECK, format!("nothing is in the way of {name} and the route of {network} to it")),
        Err(error) => Finding::refused(CHECK, error, "an overlay of another kind is on this node: take it away first"),
    }
}
