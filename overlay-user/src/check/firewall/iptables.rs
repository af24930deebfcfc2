//! What `iptables -S` and `ip6tables -S` print, as a [`Ruleset`]. Pure.

use ipnetwork::IpNetwork;

use super::{
    packet::{NEIGHBOUR_SOLICITATION, Protocol},
    ruleset::{Base, Chain, Condition, Fit, Rule, Ruleset, Verdict},
};
use crate::masquerade::Family;

pub(super) fn parse(listing: &str, family: Family) -> Ruleset {
    // What people call a chain, and what jumps lead to.
    let name = |chain: &str| format!("{}' {chain}", family.iptables());
    let mut ruleset = Ruleset::default();
    for line in listing.lines() {
        let words = words(line);
        match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
            ["-P", chain, policy] => {
                let base = Base { hook: chain.to_ascii_lowercase(), family: Some(family), drops: *policy != "ACCEPT" };
                ruleset.chains.insert(name(chain), Chain { base: Some(base), ..Chain::default() });
            }
            ["-A", chain, rest @ ..] => {
                ruleset.chains.entry(name(chain)).or_default().rules.push(rule(rest, &name));
            }
            _ => {}
        }
    }
    ruleset
}

/// The words of a line; what stands in quotes is one.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    for (position, part) in line.split('"').enumerate() {
        match position % 2 {
            0 => words.extend(part.split_whitespace().map(str::to_owned)),
            _ => words.push(part.to_owned()),
        }
    }
    words
}

/// A rule; `name` names the chains that it leads to.
fn rule(mut words: &[&str], name: &dyn Fn(&str) -> String) -> Rule {
    let (mut conditions, mut verdict) = (Vec::new(), Verdict::Continue);
    while let [option, rest @ ..] = words {
        let (negated, option, rest) = match (option, rest) {
            (&"!", [option, rest @ ..]) => (true, option, rest),
            _ => (false, option, rest),
        };
        // Values go up to the next option.
        let count = rest.iter().position(|word| word.starts_with('-') || *word == "!").unwrap_or(rest.len());
        let (values, rest) = rest.split_at(count);
        words = rest;
        let value = values.first().copied().unwrap_or_default();
        let condition = match *option {
            "-j" => {
                verdict = target(value, name);
                continue;
            }
            "-g" => {
                verdict = Verdict::Goto(name(value));
                continue;
            }
            // Names of plugins, whose options follow; what changes nothing.
            "-m" | "--comment" | "--reject-with" | "--log-prefix" | "--log-level" => continue,
            "-p" => Condition::Protocol(vec![Protocol::named(value)]),
            "-i" => Condition::Interface(value.to_owned()),
            "-s" => networks(value).map_or(Condition::Always(Fit::Perhaps), Condition::Source),
            "-d" => networks(value).map_or(Condition::Always(Fit::Perhaps), Condition::Destination),
            "--dport" | "--dports" => ports(value).map_or(Condition::Always(Fit::Perhaps), Condition::Port),
            "--icmpv6-type" => match value.split('/').next().and_then(|number| number.parse::<u64>().ok()) {
                Some(number) => Condition::NeighbourSolicitation(number == NEIGHBOUR_SOLICITATION),
                None => Condition::Always(Fit::Perhaps),
            },
            "--hl-eq" => value.parse().map_or(Condition::Always(Fit::Perhaps), Condition::HopLimit),
            "--ctstate" | "--state" => Condition::State(value.split(',').map(str::to_ascii_lowercase).collect()),
            _ => Condition::Always(Fit::Perhaps),
        };
        conditions.push(if negated { Condition::Not(Box::new(condition)) } else { condition });
    }
    Rule { conditions, verdict }
}

fn target(target: &str, name: &dyn Fn(&str) -> String) -> Verdict {
    match target {
        "ACCEPT" => Verdict::Accept,
        "DROP" | "REJECT" => Verdict::Drop,
        "RETURN" => Verdict::Return,
        // A plugin, or a chain: what is no chain of ours has no rules and so goes on.
        other => Verdict::Jump(name(other)),
    }
}

fn networks(list: &str) -> Option<Vec<IpNetwork>> {
    list.split(',').map(|network| network.parse().ok()).collect()
}

fn ports(list: &str) -> Option<Vec<(u16, u16)>> {
    let range = |range: &str| {
        let (first, last) = range.split_once(':').unwrap_or((range, range));
        Some((first.parse().ok()?, last.parse().ok()?))
    };
    list.split(',').map(range).collect()
}

#[cfg(test)]
mod tests;
