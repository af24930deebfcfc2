//! Acceptance of overlay traffic wherever a chain of iptables could refuse it.
//!
//! Rules are put only where such a chain exists: without one nothing refuses, and a node that has never seen iptables
//! stays that way. There may be two of each, as iptables has two implementations with tables of their own.

use std::fs;

use ipnetwork::IpNetwork;

use crate::{link, network::Range};

use super::family::Family;
use super::iptables::{Hook, Kind, Placement};
use super::{IptablesRules, RulesError, iptables, nat, native};

/// Where overlay traffic may be refused.
///
/// FORWARD has Docker's policy of DROP. From its version 28 on, Docker also drops what is addressed to a container and
/// has not come in through the container's bridge, in the raw table's PREROUTING.
pub(super) const HOOKS: [Hook; 2] = [
    Hook { table: "filter", parent: "FORWARD", placement: behind_docker_user },
    Hook { table: "raw", parent: "PREROUTING", placement: before_dockers_drops },
];

/// Makes our acceptance of traffic in `accepted` present, or absent when there is none, for the overlay device `name`.
/// Says whether anything had to be done.
pub(super) async fn ensure(family: Family, name: &str, accepted: Option<Range<IpNetwork>>) -> Result<bool, RulesError> {
    let mut changed = false;
    for hook in &HOOKS {
        let chain = chain_name(hook, name);
        let rules = accepted.map(|accepted| rules(hook, name, accepted));
        if legacy_has(family, hook.table) {
            match iptables::find(family, Kind::Legacy).await {
                Some(program) => changed |= iptables::ensure(&program, hook, &chain, rules.as_deref()).await?,
                None => tracing::warn!(
                    table = hook.table,
                    "legacy {0} is in use and there is no {0}-legacy: overlay traffic may be dropped",
                    family.iptables()
                ),
            }
        }
        if !nft_has(family, hook).await? {
            continue;
        }
        changed |= match iptables::find(family, Kind::Nft).await {
            Some(program) => iptables::ensure(&program, hook, &chain, rules.as_deref()).await?,
            // Docker needs iptables, so here is only FORWARD to care for.
            None if hook.parent == native::CHAIN => {
                native::ensure(family, &chain, accepted.map(|accepted| accepted.network)).await?
            }
            None => false,
        };
    }
    Ok(changed)
}

/// The table `filter` of each implementation that is in use.
pub(super) async fn filter_rules(family: Family) -> Result<IptablesRules, RulesError> {
    let [filter, _] = &HOOKS;
    let list = async |kind, in_use| match iptables::find(family, kind).await.filter(|_| in_use) {
        Some(program) => iptables::list(&program, filter.table).await.map(Some),
        None => Ok(None),
    };
    let legacy = list(Kind::Legacy, legacy_has(family, filter.table)).await?;
    let nft_has = nat::list_with(&["list", "table", family.name(), filter.table]).await?.is_some();
    let nft = list(Kind::Nft, nft_has).await?;
    Ok(IptablesRules { legacy, nft })
}

/// Whether iptables' legacy implementation has a table of ours to care for, in this network namespace.
pub(super) fn legacy_in_use(families: &[Family]) -> bool {
    families.iter().any(|&family| HOOKS.iter().any(|hook| legacy_has(family, hook.table)))
}

fn legacy_has(family: Family, table: &str) -> bool {
    fs::read_to_string(family.legacy_tables()).is_ok_and(|names| names.lines().any(|name| name == table))
}

async fn nft_has(family: Family, hook: &Hook) -> Result<bool, RulesError> {
    match nat::list_with(&["list", "chain", family.name(), hook.table, hook.parent]).await {
        Ok(listing) => Ok(listing.is_some()),
        // Without `nft` nobody can tell: where iptables is installed it may be used.
        Err(RulesError::Missing { .. }) => Ok(iptables::find(family, Kind::Nft).await.is_some()),
        Err(error) => Err(error),
    }
}

/// Our chain: `OVERLAY-FORWARD-1` for `overlay.1`. iptables allows 28 characters.
fn chain_name(hook: &Hook, name: &str) -> String {
    let number = name.strip_prefix(link::NAME_PREFIX).unwrap_or(name);
    format!("{}{}-{number}", iptables::OUR_CHAINS, hook.parent)
}

fn rules(hook: &Hook, name: &str, Range { network, subnet }: Range<IpNetwork>) -> Vec<String> {
    match hook.table {
        "filter" => vec![format!("-s {network} -j ACCEPT"), format!("-d {network} -j ACCEPT")],
        _ => link::devices_of(name).map(|device| format!("-s {network} -d {subnet} -i {device} -j ACCEPT")).collect(),
    }
}

/// Behind DOCKER-USER: the operator's own rules come first, Docker's drops later. Without Docker at the end, so that
/// whatever others put in front decides first.
fn behind_docker_user(others: &[&str]) -> Option<Placement> {
    let docker_user = others.iter().rposition(|rule| *rule == "-A FORWARD -j DOCKER-USER");
    Some(docker_user.map_or(Placement::Anywhere, |position| Placement::Behind(position + 1)))
}

/// Before the first drop of what does not come in through its bridge; without one nothing need be there.
fn before_dockers_drops(others: &[&str]) -> Option<Placement> {
    let drops =
        |rule: &&str| rule.starts_with("-A PREROUTING -d ") && rule.contains(" ! -i ") && rule.ends_with(" -j DROP");
    others.iter().position(drops).map(Placement::Behind)
}
