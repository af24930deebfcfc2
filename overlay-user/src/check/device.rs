//! Devices and routes of others in the place of ours: flannel's device with the same VNI, the network routed elsewhere.

use rtnetlink::Handle;

use super::Finding;
use crate::{
    agent::Adopted,
    in_words::joined,
    link::{self, LinkConfig},
    rundir::RunDir,
};

const CHECK: &str = "device";

pub(super) async fn check(handle: &Handle, config: &LinkConfig, run_dir: &RunDir, adopted: &Adopted) -> Finding {
    let name = config.name();
    let has_device = adopted.names().any(|there| there == name);
    let network = joined(config.ranges().map(|range| range.network));
    match link::preview(handle, config).await {
        Ok(()) if has_device => match run_dir.refuse_unknown_device(&name) {
            Ok(()) => Finding::green(CHECK, format!("{name} is there; {network} is routed to it")),
            Err(error) => Finding::refused(CHECK, error, "another overlay on this node may have the same VNI"),
        },
        Ok(()) => Finding::green(CHECK, format!("nothing is in the way of {name} and the route of {network} to it")),
        Err(error) => Finding::refused(CHECK, error, "an overlay of another kind is on this node: take it away first"),
    }
}
