//! What `nft --json list ruleset` prints, as a [`Ruleset`]. Pure.
//!
//! Not through the types of the crate nftables: they refuse a whole rule set for one statement that they do not know.

use ipnetwork::Ipv4Network;
use serde_json::Value;

use super::ruleset::{Chain, Condition, Fit, Rule, Ruleset, Verdict};

/// `without_iptables` leaves out the table of iptables, whose rules are hidden from `nft`.
pub(super) fn parse(listing: &str, without_iptables: bool) -> Ruleset {
    let mut ruleset = Ruleset::default();
    let listing: Value = serde_json::from_str(listing).unwrap_or_default();
    for object in listing["nftables"].as_array().into_iter().flatten() {
        if let Some(chain) = object.get("chain").filter(|chain| concerns_ipv4(chain, without_iptables)) {
            let base = chain["hook"].as_str().map(|hook| (hook.to_owned(), chain["policy"] == "drop"));
            ruleset.chains.entry(name(chain, &chain["name"])).or_default().base = base;
        } else if let Some(rule) = object.get("rule").filter(|rule| concerns_ipv4(rule, without_iptables)) {
            let chain: &mut Chain = ruleset.chains.entry(name(rule, &rule["chain"])).or_default();
            chain.rules.push(self::rule(rule));
        }
    }
    ruleset
}

fn concerns_ipv4(object: &Value, without_iptables: bool) -> bool {
    let is_iptables = object["family"] == "ip" && object["table"] == "filter";
    matches!(object["family"].as_str(), Some("ip" | "inet")) && !(without_iptables && is_iptables)
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
            "match" => conditions.push(condition(value)),
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

fn condition(value: &Value) -> Condition {
    let (left, right) = (&value["left"], &value["right"]);
    let perhaps = || Condition::Always(Fit::Perhaps);
    let positive = match (left["payload"]["protocol"].as_str(), left["payload"]["field"].as_str()) {
        (Some("udp" | "th"), Some("dport")) => ports(right).map_or_else(perhaps, Condition::Port),
        (Some("tcp" | "sctp" | "dccp" | "icmp" | "icmpv6" | "ip6" | "ether" | "arp"), _) => other_protocol(left),
        (Some("ip"), Some("saddr")) => networks(right).map_or_else(perhaps, Condition::Source),
        (Some("ip"), Some("daddr")) => networks(right).map_or_else(perhaps, Condition::Destination),
        (Some("ip"), Some("protocol")) => protocol(right),
        _ => match (left["meta"]["key"].as_str(), left["ct"]["key"].as_str()) {
            (Some("iifname" | "iif"), _) => {
                right.as_str().map_or_else(perhaps, |name| Condition::Interface(name.to_owned()))
            }
            (Some("l4proto"), _) => protocol(right),
            (Some("nfproto"), _) => Condition::Always(Fit::of(right == "ipv4")),
            (_, Some("state")) => Condition::Always(Fit::of(items(right).contains(&&Value::from("new")))),
            _ => perhaps(),
        },
    };
    if value["op"] == "!=" { Condition::Not(Box::new(positive)) } else { positive }
}

/// A header that packets of UDP over IPv4 do not have; Ethernet's they may have.
fn other_protocol(left: &Value) -> Condition {
    match left["payload"]["protocol"].as_str() {
        Some("ether") => Condition::Always(Fit::Perhaps),
        Some("ip6" | "arp") => Condition::Always(Fit::No),
        _ => Condition::Udp(false),
    }
}

fn protocol(right: &Value) -> Condition {
    Condition::Udp(items(right).iter().any(|item| **item == "udp" || **item == 17))
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

fn networks(right: &Value) -> Option<Vec<Ipv4Network>> {
    let network = |item: &Value| match item.get("prefix") {
        Some(prefix) => {
            Ipv4Network::new(prefix["addr"].as_str()?.parse().ok()?, u8::try_from(prefix["len"].as_u64()?).ok()?).ok()
        }
        None => item.as_str()?.parse().ok(),
    };
    items(right).into_iter().map(network).collect()
}
