//! The table `filter` of a node that has no iptables program: our rule goes to the end of its FORWARD chain.

use std::borrow::Cow;

use ipnetwork::IpNetwork;
use nftables::batch::Batch;
use nftables::schema::{NfListObject, NfObject, Nftables, Rule};
use nftables::stmt::Statement;

use super::family::Family;
use super::nat::{self, from, to};
use super::{RulesError, nft_error};

const TABLE: &str = "filter";
/// The chain that is served.
pub(super) const CHAIN: &str = "FORWARD";

/// Makes rules that accept `network` present, or absent when there is none, `mark` being their comment.
pub(super) async fn ensure(family: Family, mark: &str, network: Option<IpNetwork>) -> Result<bool, RulesError> {
    let listing = nat::list_with(&["list", "chain", family.name(), TABLE, CHAIN]).await?.unwrap_or_default();
    let ruleset: Nftables<'_> = serde_json::from_str(&listing)
        .map_err(|error| nft_error("list the FORWARD chain")(nftables::helper::NftablesError::NftInvalidJson(error)))?;
    let present: Vec<Rule<'_>> = ruleset.objects.iter().filter_map(|object| ours(object, mark)).collect();
    let wanted = network.map(|network| [rule(family, mark, from(network)), rule(family, mark, to(network))]);
    let same = present.iter().map(|rule| &rule.expr).eq(wanted.iter().flatten().map(|rule| &rule.expr));
    if same {
        return Ok(false);
    }
    let mut batch = Batch::new();
    for rule in present {
        batch.delete(NfListObject::Rule(rule));
    }
    for rule in wanted.into_iter().flatten() {
        batch.add(NfListObject::Rule(rule));
    }
    nat::apply(&batch.to_nftables(), "accept forwarded overlay traffic").await?;
    Ok(true)
}

fn ours<'a>(object: &NfObject<'a>, mark: &str) -> Option<Rule<'a>> {
    match object {
        NfObject::ListObject(NfListObject::Rule(rule)) if rule.comment.as_deref() == Some(mark) => Some(rule.clone()),
        _ => None,
    }
}

fn rule(family: Family, mark: &str, matching: Statement<'static>) -> Rule<'static> {
    Rule {
        family: family.nft(),
        table: TABLE.into(),
        chain: CHAIN.into(),
        expr: vec![matching, Statement::Accept(None)].into(),
        comment: Some(Cow::Owned(mark.to_owned())),
        ..Rule::default()
    }
}
