//! The masquerading table of one address family.

use std::borrow::Cow;
use std::collections::HashSet;

use ipnetwork::IpNetwork;
use nftables::batch::Batch;
use nftables::expr::{BinaryOperation, Expression, Meta, MetaKey, NamedExpression, Payload, PayloadField, Prefix};
use nftables::helper::{self, DEFAULT_ARGS, DEFAULT_NFT, NftablesError};
use nftables::schema::{Chain, NfListObject, Nftables, Rule, Table};
use nftables::stmt::{Match, NAT, NATFlag, Operator, Statement};
use nftables::types::{NfChainPolicy, NfChainType, NfHook};

use super::family::Family;
use super::{Masquerade, RulesError, nft_error};
use crate::network::Range;

/// The mark by which kube-proxy says that it masquerades a packet itself.
const KUBE_PROXY_MARK: u32 = 0x4000;

/// Right behind iptables' nat table (100), where flannel appends its rules: an earlier decision stands.
const PRIORITY: i32 = 101;

const CHAIN: &str = "postrouting";

/// Traffic, and what becomes of its source address.
struct Decision {
    traffic: &'static str,
    matches: Vec<Statement<'static>>,
    verdict: Statement<'static>,
}

/// The decisions, first match first. They are flannel's, rule for rule.
fn decisions(family: Family, range: Range<IpNetwork>, masquerade: Masquerade) -> Vec<Decision> {
    let Range { network, subnet } = range;
    let keep = || Statement::Return(None);
    let masquerade = || masquerade_statement(masquerade);
    let decide = |traffic, matches, verdict| Decision { traffic, matches, verdict };
    vec![
        decide("kube-proxy masquerades it already", vec![marked(KUBE_PROXY_MARK)], keep()),
        decide("our containers to the overlay", vec![from(subnet), to(network)], keep()),
        decide("the overlay to our containers", vec![from(network), to(subnet)], keep()),
        decide("clients outside to our containers", vec![not_from(network), to(subnet)], keep()),
        decide(
            "the overlay to the outside",
            std::iter::once(from(network)).chain(family.multicast().map(not_to)).collect(),
            masquerade(),
        ),
        decide("node or clients outside to remote containers", vec![not_from(network), to(network)], masquerade()),
    ]
}

/// Replaces the table in one transaction: no packet meets a half of it.
pub(super) async fn replace(
    family: Family,
    name: &str,
    range: Range<IpNetwork>,
    masquerade: Masquerade,
) -> Result<(), RulesError> {
    let decisions = decisions(family, range, masquerade);
    apply(&ruleset(family, name, decisions), "set the masquerading rules").await
}

/// Removes the table, and says whether there was one.
pub(super) async fn remove(family: Family, name: &str) -> Result<bool, RulesError> {
    match list(family, name).await {
        Ok(None) | Err(RulesError::Missing { .. }) => return Ok(false),
        Ok(Some(_)) => {}
        Err(error) => return Err(error),
    }
    let mut batch = Batch::new();
    batch.delete(NfListObject::Table(table(family, name)));
    apply(&batch.to_nftables(), "remove the masquerading rules").await.map(|()| true)
}

/// The table as `nft` lists it; none when it does not exist.
pub(super) async fn list(family: Family, name: &str) -> Result<Option<String>, RulesError> {
    list_with(&["list", "table", family.name(), name]).await
}

/// What `nft` lists with `arguments`; none when there is no such thing.
pub(super) async fn list_with(arguments: &[&str]) -> Result<Option<String>, RulesError> {
    match helper::get_current_ruleset_raw_async(DEFAULT_NFT, arguments.iter().copied()).await {
        Ok(listing) => Ok(Some(listing)),
        // `nft` has one exit code for all failures and prints ENOENT in the C locale's words.
        Err(NftablesError::NftFailed { stderr, .. }) if stderr.contains("No such file or directory") => Ok(None),
        Err(error) => Err(nft_error("list rules")(error)),
    }
}

/// Runs a transaction.
pub(super) async fn apply(ruleset: &Nftables<'_>, action: &'static str) -> Result<(), RulesError> {
    helper::apply_ruleset_with_args_async(ruleset, DEFAULT_NFT, DEFAULT_ARGS.iter().copied())
        .await
        .map_err(nft_error(action))
}

fn ruleset(family: Family, name: &str, decisions: Vec<Decision>) -> Nftables<'static> {
    let mut batch = Batch::new();
    // Added first so that deleting cannot fail.
    batch.add(NfListObject::Table(table(family, name)));
    batch.delete(NfListObject::Table(table(family, name)));
    batch.add(NfListObject::Table(table(family, name)));
    batch.add(NfListObject::Chain(Chain {
        family: family.nft(),
        table: Cow::Owned(name.to_owned()),
        name: CHAIN.into(),
        _type: Some(NfChainType::NAT),
        hook: Some(NfHook::Postrouting),
        prio: Some(PRIORITY),
        policy: Some(NfChainPolicy::Accept),
        ..Chain::default()
    }));
    for Decision { traffic, matches, verdict } in decisions {
        batch.add(NfListObject::Rule(Rule {
            family: family.nft(),
            table: Cow::Owned(name.to_owned()),
            chain: CHAIN.into(),
            expr: matches.into_iter().chain([verdict]).collect::<Vec<_>>().into(),
            comment: Some(traffic.into()),
            ..Rule::default()
        }));
    }
    batch.to_nftables()
}

fn table(family: Family, name: &str) -> Table<'static> {
    Table { family: family.nft(), name: Cow::Owned(name.to_owned()), ..Table::default() }
}

pub(super) fn from(network: IpNetwork) -> Statement<'static> {
    address("saddr", Operator::EQ, network)
}

fn not_from(network: IpNetwork) -> Statement<'static> {
    address("saddr", Operator::NEQ, network)
}

pub(super) fn to(network: IpNetwork) -> Statement<'static> {
    address("daddr", Operator::EQ, network)
}

fn not_to(network: IpNetwork) -> Statement<'static> {
    address("daddr", Operator::NEQ, network)
}

fn address(field: &'static str, op: Operator, network: IpNetwork) -> Statement<'static> {
    let protocol = if network.is_ipv4() { Family::Ipv4 } else { Family::Ipv6 }.name();
    let field = PayloadField { protocol: protocol.into(), field: field.into() };
    let addr = Box::new(Expression::String(network.network().to_string().into()));
    let prefix = Prefix { addr, len: u32::from(network.prefix()) };
    Statement::Match(Match {
        left: Expression::Named(NamedExpression::Payload(Payload::PayloadField(field))),
        right: Expression::Named(NamedExpression::Prefix(prefix)),
        op,
    })
}

/// Whether all bits of `mark` are set; others may be.
fn marked(mark: u32) -> Statement<'static> {
    let packet_mark = Expression::Named(NamedExpression::Meta(Meta { key: MetaKey::Mark }));
    let bits = BinaryOperation::AND(packet_mark, Expression::Number(mark));
    Statement::Match(Match {
        left: Expression::BinaryOperation(Box::new(bits)),
        right: Expression::Number(mark),
        op: Operator::EQ,
    })
}

fn masquerade_statement(masquerade: Masquerade) -> Statement<'static> {
    let flags = HashSet::from([NATFlag::FullyRandom]);
    let options = NAT { addr: None, family: None, port: None, flags: Some(flags) };
    Statement::Masquerade(masquerade.random_fully.then_some(options))
}
