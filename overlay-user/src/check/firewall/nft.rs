//! What `nft --json list ruleset` prints, as a [`Ruleset`]. Pure.
//!
//! Not through the types of the crate nftables: they refuse a whole rule set for one statement that they do not know.

use ipnetwork::IpNetwork;
use serde_json::Value;

use super::{
    packet::{NEIGHBOUR_SOLICITATION, Protocol},
    ruleset::{Base, Chain, Condition, Fit, Rule, Ruleset, Verdict},
};
use crate::masquerade::Family;

/// Leaves out the tables of iptables for the families in `without_iptables`: its rules are hidden from `nft`.
pub(super) fn parse(listing: &str, without_iptables: &[Family]) -> Ruleset {
    let mut ruleset = Ruleset::default();
    let listing: Value = serde_json::from_str(listing).unwrap_or_default();
    let is_left_out = |object: &Value| {
        without_iptables.iter().any(|family| object["family"] == family.name() && object["table"] == "filter")
    };
    let concerns_us = |object: &&Value| is_of_ip(object) && !is_left_out(object);
    for object in listing["nftables"].as_array().into_iter().flatten() {
        if let Some(chain) = object.get("chain").filter(concerns_us) {
            ruleset.chains.entry(name(chain, &chain["name"])).or_default().base = base(chain);
        } else if let Some(rule) = object.get("rule").filter(concerns_us) {
            let chain: &mut Chain = ruleset.chains.entry(name(rule, &rule["chain"])).or_default();
            chain.rules.push(self::rule(rule));
        }
    }
    ruleset
}

/// Whether IP packets meet it on their way to the node or through it.
fn is_of_ip(object: &Value) -> bool {
    object["family"] == "inet" || family(&object["family"]).is_some()
}

fn base(chain: &Value) -> Option<Base> {
    let hook = chain["hook"].as_str()?.to_owned();
    Some(Base { hook, family: family(&chain["family"]), drops: chain["policy"] == "drop" })
}

/// The family with this name: of tables, of `meta protocol` or of `meta nfproto`.
fn family(name: &Value) -> Option<Family> {
    match name.as_str()? {
        "ip" | "ipv4" => Some(Family::Ipv4),
        "ip6" | "ipv6" => Some(Family::Ipv6),
        _ => None,
    }
}

/// What people call a chain, and what jumps lead to.
fn name(object: &Value, chain: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    format!("nftables' {} {} {}", text(&object["family"]), text(&object["table"]), text(chain))
}

fn rule(rule: &Value) -> Rule {
    let (mut conditions, mut verdict) = (Vec::new(), Verdict::Continue);
    for statement in rule["expr"].as_array().into_iter().flatten() {
        let Some((kind, value)) = statement.as_object().and_then(|statement| statement.iter().next()) else { continue };
        match kind.as_str() {
            "match" => conditions.extend(self::conditions(value)),
            "accept" => verdict = Verdict::Accept,
            "drop" | "reject" => verdict = Verdict::Drop,
            "return" => verdict = Verdict::Return,
            "jump" => verdict = Verdict::Jump(name(rule, &value["target"])),
            "goto" => verdict = Verdict::Goto(name(rule, &value["target"])),
            "counter" | "log" | "comment" => {}
            // A verdict that depends on what cannot be decided here.
            "vmap" => {
                verdict = Verdict::Accept;
                conditions.push(Condition::Always(Fit::Perhaps));
            }
            _ => conditions.push(Condition::Always(Fit::Perhaps)),
        }
    }
    Rule { conditions, verdict }
}

/// What a match says, and what it takes for granted whatever it says: `tcp dport != 22` is about TCP.
fn conditions(value: &Value) -> Vec<Condition> {
    let (left, right) = (&value["left"], &value["right"]);
    let mut conditions = granted(left);
    conditions.push(match value["op"].as_str() {
        Some("==" | "in") => condition(left, right),
        Some("!=") => Condition::Not(Box::new(condition(left, right))),
        _ => Condition::Always(Fit::Perhaps),
    });
    conditions
}

/// That the packet has the header that a match looks into.
fn granted(left: &Value) -> Vec<Condition> {
    let carries = |protocol| Condition::Protocol(vec![protocol]);
    match left["payload"]["protocol"].as_str() {
        Some("ip") => vec![Condition::Family(Family::Ipv4)],
        Some("ip6") => vec![Condition::Family(Family::Ipv6)],
        Some("icmp") => vec![Condition::Family(Family::Ipv4), carries(Protocol::Other)],
        Some("arp") => vec![Condition::Always(Fit::No)],
        Some(protocol @ ("udp" | "icmpv6" | "tcp" | "sctp" | "dccp" | "udplite" | "esp" | "ah" | "comp")) => {
            vec![carries(Protocol::named(protocol))]
        }
        _ => Vec::new(),
    }
}

fn condition(left: &Value, right: &Value) -> Condition {
    let perhaps = || Condition::Always(Fit::Perhaps);
    match (left["payload"]["protocol"].as_str(), left["payload"]["field"].as_str()) {
        (Some("udp" | "th"), Some("dport")) => ports(right).map_or_else(perhaps, Condition::Port),
        (Some("icmpv6"), Some("type")) => {
            Condition::NeighbourSolicitation(items(right).into_iter().any(is_solicitation))
        }
        (Some("ip" | "ip6"), Some("saddr")) => networks(right).map_or_else(perhaps, Condition::Source),
        (Some("ip" | "ip6"), Some("daddr")) => networks(right).map_or_else(perhaps, Condition::Destination),
        (Some("ip"), Some("protocol")) | (Some("ip6"), Some("nexthdr")) => protocols(right),
        (Some("ip6"), Some("hoplimit")) => right.as_u64().map_or_else(perhaps, Condition::HopLimit),
        _ => match (left["meta"]["key"].as_str(), left["ct"]["key"].as_str()) {
            (Some("iifname" | "iif"), _) => {
                right.as_str().map_or_else(perhaps, |name| Condition::Interface(name.to_owned()))
            }
            (Some("l4proto"), _) => protocols(right),
            (Some("nfproto" | "protocol"), _) => family(right).map_or_else(perhaps, Condition::Family),
            (_, Some("state")) => Condition::State(items(right).into_iter().map(word).collect()),
            _ => perhaps(),
        },
    }
}

fn protocols(right: &Value) -> Condition {
    Condition::Protocol(items(right).into_iter().map(|item| Protocol::named(&word(item))).collect())
}

fn is_solicitation(kind: &Value) -> bool {
    kind == "nd-neighbor-solicit" || kind.as_u64() == Some(NEIGHBOUR_SOLICITATION)
}

/// A name, or a number in digits.
fn word(item: &Value) -> String {
    item.as_str().map_or_else(|| item.to_string(), str::to_owned)
}

/// The members of an anonymous set, or the one value.
fn items(right: &Value) -> Vec<&Value> {
    let list = right.get("set").unwrap_or(right);
    list.as_array().map_or_else(|| vec![list], |items| items.iter().collect())
}

fn ports(right: &Value) -> Option<Vec<(u16, u16)>> {
    let number = |value: &Value| u16::try_from(value.as_u64()?).ok();
    let range = |item: &Value| match item["range"].as_array().map(Vec::as_slice) {
        Some([first, last]) => Some((number(first)?, number(last)?)),
        _ => number(item).map(|port| (port, port)),
    };
    items(right).into_iter().map(range).collect()
}

fn networks(right: &Value) -> Option<Vec<IpNetwork>> {
    let network = |item: &Value| match item.get("prefix") {
        Some(prefix) => {
            IpNetwork::new(prefix["addr"].as_str()?.parse().ok()?, u8::try_from(prefix["len"].as_u64()?).ok()?).ok()
        }
        None => item.as_str()?.parse().ok(),
    };
    items(right).into_iter().map(network).collect()
}

#[cfg(test)]
mod tests;
