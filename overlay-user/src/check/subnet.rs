//! Which subnet the agent would take. Nothing is written.

use super::Finding;
use crate::{
    datastore::Datastore,
    holder::{self, Claim, Origin},
    in_words::joined,
    lease::SubnetKey,
    network::NetworkConfig,
};

const CHECK: &str = "subnet";

/// The finding, and the subnets, unless chance decides.
pub(super) async fn check(
    store: &dyn Datastore,
    network: &NetworkConfig,
    claim: &Claim,
) -> (Finding, Option<SubnetKey>) {
    let public_ip = claim.node.address();
    match holder::preview(store, network, claim).await {
        Ok(Origin::Renew(key)) => {
            (Finding::green(CHECK, format!("{}: our lease, to be renewed", joined(key.subnets()))), Some(key))
        }
        Ok(Origin::Previous(key)) => (
            Finding::green(CHECK, format!("{}: had before, by subnet.env, and free", joined(key.subnets()))),
            Some(key),
        ),
        Ok(Origin::Chance(key)) => {
            (Finding::green(CHECK, format!("a free one by chance, such as {}", joined(key.subnets()))), None)
        }
        Ok(Origin::Ask(key)) => {
            let found = format!(
                "{}: leased for {public_ip}, which may be this node or another with its address",
                joined(key.subnets())
            );
            let advice = "none if no other node has this address: the agent asks, and refuses only if one answers";
            (Finding::yellow(CHECK, found, advice), Some(key))
        }
        Err(error) => {
            let advice = "release leases of nodes that are gone (`overlay lease list`), or enlarge the network";
            (Finding::refused(CHECK, error, advice), None)
        }
    }
}
