//! Acceptance of forwarded overlay traffic, wherever an iptables FORWARD chain could refuse it.
//!
//! Rules are put only where a filter table exists: without one nothing refuses, and a node that has never seen iptables
//! stays that way. There may be two, as iptables has two implementations with tables of their own.

use std::fs;

use super::{RulesConfig, RulesError, iptables, nat, native};

/// Where a FORWARD chain is, and how to get at it.
enum Place {
    /// Through a program of the iptables family, called by this name.
    Iptables(&'static str),
    /// In nftables' table `ip filter`, without a program of the iptables family.
    Native,
}

/// Makes our acceptance present or absent in every FORWARD chain there is. Says whether anything had to be done.
pub(super) async fn ensure(config: &RulesConfig, wanted: bool) -> Result<bool, RulesError> {
    let chain = chain_name(&config.name);
    let network = wanted.then_some(config.network);
    let mut changed = false;
    for place in places().await? {
        changed |= match place {
            Place::Iptables(program) => iptables::ensure(program, &chain, network).await?,
            Place::Native => native::ensure(&chain, network).await?,
        };
    }
    Ok(changed)
}

/// Whether iptables' legacy implementation has a filter table in this network namespace.
pub(super) fn legacy_in_use() -> bool {
    // Missing where the module is not loaded.
    fs::read_to_string("/proc/thread-self/net/ip_tables_names")
        .is_ok_and(|names| names.lines().any(|name| name == "filter"))
}

/// Our chain for the overlay device `name`: `OVERLAY-FWD-1` for `overlay.1`. iptables allows 28 characters.
fn chain_name(name: &str) -> String {
    format!("OVERLAY-FWD-{}", name.strip_prefix(crate::link::NAME_PREFIX).unwrap_or(name))
}

async fn places() -> Result<Vec<Place>, RulesError> {
    let mut places = Vec::new();
    if legacy_in_use() {
        match iptables::find(iptables::Kind::Legacy).await {
            Some(program) => places.push(Place::Iptables(program)),
            None => tracing::warn!(
                "legacy iptables tables are in use, but there is no iptables-legacy: overlay traffic may be dropped"
            ),
        }
    }
    let in_use = match nat::list_with(&["list", "chain", "ip", "filter", "FORWARD"]).await {
        Ok(listing) => listing.is_some(),
        // Without `nft` nobody can tell: where iptables is installed it may be used.
        Err(RulesError::Missing { .. }) => iptables::find(iptables::Kind::Nft).await.is_some(),
        Err(error) => return Err(error),
    };
    if in_use {
        let program = iptables::find(iptables::Kind::Nft).await;
        places.push(program.map_or(Place::Native, Place::Iptables));
    }
    Ok(places)
}
