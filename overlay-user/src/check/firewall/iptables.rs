//! What `iptables -S` prints, as a [`Ruleset`]. Pure.

use ipnetwork::Ipv4Network;

use super::ruleset::{Chain, Condition, Fit, Rule, Ruleset, Verdict};

pub(super) fn parse(listing: &str) -> Ruleset {
    let mut ruleset = Ruleset::default();
    for line in listing.lines() {
        let words = words(line);
        match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
            ["-P", chain, policy] => {
                let base = Some((chain.to_ascii_lowercase(), *policy != "ACCEPT"));
                ruleset.chains.insert(name(chain), Chain { base, ..Chain::default() });
            }
            ["-A", chain, rest @ ..] => {
                ruleset.chains.entry(name(chain)).or_default().rules.push(rule(rest));
            }
            _ => {}
        }
    }
    ruleset
}

/// What people call a chain, and what jumps lead to.
fn name(chain: &str) -> String {
    format!("iptables' {chain}")
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

fn rule(mut words: &[&str]) -> Rule {
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
                verdict = target(value);
                continue;
            }
            "-g" => {
                verdict = Verdict::Goto(name(value));
                continue;
            }
            // Names of plugins, whose options follow; what changes nothing.
            "-m" | "--comment" | "--reject-with" | "--log-prefix" | "--log-level" => continue,
            "-p" => Condition::Udp(value == "udp"),
            "-i" => Condition::Interface(value.to_owned()),
            "-s" => networks(value).map_or(Condition::Always(Fit::Perhaps), Condition::Source),
            "-d" => networks(value).map_or(Condition::Always(Fit::Perhaps), Condition::Destination),
            "--dport" | "--dports" => ports(value).map_or(Condition::Always(Fit::Perhaps), Condition::Port),
            "--ctstate" | "--state" => Condition::Always(Fit::of(value.split(',').any(|state| state == "NEW"))),
            _ => Condition::Always(Fit::Perhaps),
        };
        conditions.push(if negated { Condition::Not(Box::new(condition)) } else { condition });
    }
    Rule { conditions, verdict }
}

fn target(name_of: &str) -> Verdict {
    match name_of {
        "ACCEPT" => Verdict::Accept,
        "DROP" | "REJECT" => Verdict::Drop,
        "RETURN" => Verdict::Return,
        // A plugin, or a chain: what is no chain of ours has no rules and so goes on.
        other => Verdict::Jump(name(other)),
    }
}

fn networks(list: &str) -> Option<Vec<Ipv4Network>> {
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
mod tests {
    use super::super::ruleset::{Fate, Packet};
    use super::*;

    fn fate(listing: &str) -> Fate {
        let packet = Packet {
            interface: "eth0",
            source: None,
            destination: "192.168.50.1/32".parse().unwrap(),
            udp_port: Some(8472),
        };
        parse(listing).fate("input", &packet)
    }

    #[test]
    fn rules_are_read_in_their_order() {
        let dropped = |by: &str| Fate::Dropped(format!("{by} iptables' INPUT"));
        let perhaps = |by: &str| Fate::Perhaps(format!("{by} iptables' INPUT"));
        let cases = [
            ("-P INPUT ACCEPT", Fate::Accepted),
            ("-P INPUT DROP", dropped("the policy of")),
            ("-P INPUT DROP\n-A INPUT -p udp -m udp --dport 8472 -j ACCEPT", Fate::Accepted),
            ("-P INPUT DROP\n-A INPUT -p udp -m udp --dport 8000:9000 -j ACCEPT", Fate::Accepted),
            ("-P INPUT DROP\n-A INPUT -p udp -m multiport --dports 53,8472 -j ACCEPT", Fate::Accepted),
            ("-P INPUT DROP\n-A INPUT -p udp -m udp --dport 53 -j ACCEPT", dropped("the policy of")),
            ("-P INPUT DROP\n-A INPUT -p tcp -j ACCEPT", dropped("the policy of")),
            ("-P INPUT DROP\n-A INPUT -i lo -j ACCEPT", dropped("the policy of")),
            ("-P INPUT DROP\n-A INPUT ! -i lo -j ACCEPT", Fate::Accepted),
            ("-P INPUT DROP\n-A INPUT -i eth+ -j ACCEPT", Fate::Accepted),
            ("-P INPUT DROP\n-A INPUT -s 10.0.0.0/8 -j ACCEPT", perhaps("the policy of")),
            ("-P INPUT DROP\n-A INPUT -d 192.168.0.0/16 -j ACCEPT", Fate::Accepted),
            ("-P INPUT DROP\n-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT", dropped("the policy of")),
            ("-P INPUT ACCEPT\n-A INPUT -m conntrack --ctstate INVALID -j DROP", Fate::Accepted),
            ("-P INPUT ACCEPT\n-A INPUT -m mark --mark 0x1 -j DROP", perhaps("a rule of")),
            (
                "-P INPUT ACCEPT\n-A INPUT -m comment --comment \"drop -j ACCEPT\" -j REJECT --reject-with icmp-port-unreachable",
                dropped("a rule of"),
            ),
            ("-P INPUT DROP\n-N OURS\n-A INPUT -j OURS\n-A OURS -p udp -j ACCEPT", Fate::Accepted),
            (
                "-P INPUT DROP\n-N OURS\n-A INPUT -j OURS\n-A OURS -p tcp -j ACCEPT\n-A OURS -j RETURN",
                dropped("the policy of"),
            ),
            ("-P INPUT ACCEPT\n-A INPUT -j LOG --log-prefix \"in \"", Fate::Accepted),
        ];
        for (listing, expected) in cases {
            assert_eq!(fate(listing), expected, "{listing}");
        }
    }
}
