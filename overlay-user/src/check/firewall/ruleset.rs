//! Rules of a firewall without the words of one, and what they do to a packet. Pure.

use std::collections::BTreeMap;

use ipnetwork::Ipv4Network;

/// How deep chains may call each other; the kernel allows no more than 16.
const DEPTH: u32 = 16;

/// The first packet of a connection, as far as it is known.
#[derive(Debug, Clone, Copy)]
pub(super) struct Packet<'a> {
    /// Where it comes in.
    pub(super) interface: &'a str,
    /// Where it may come from; none: anywhere.
    pub(super) source: Option<Ipv4Network>,
    /// Where it goes.
    pub(super) destination: Ipv4Network,
    /// For UDP, the port that it goes to; none: any protocol.
    pub(super) udp_port: Option<u16>,
}

/// Whether a packet meets a condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fit {
    No,
    Perhaps,
    Yes,
}

impl Fit {
    pub(super) const fn of(fits: bool) -> Self {
        if fits { Self::Yes } else { Self::No }
    }

    pub(super) const fn not(self) -> Self {
        match self {
            Self::No => Self::Yes,
            Self::Perhaps => Self::Perhaps,
            Self::Yes => Self::No,
        }
    }
}

/// One condition of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Condition {
    /// The interface is called so; `+` or `*` at the end stands for anything.
    Interface(String),
    /// The source lies in one of these networks.
    Source(Vec<Ipv4Network>),
    /// The destination does.
    Destination(Vec<Ipv4Network>),
    /// The protocol is UDP, or another.
    Udp(bool),
    /// The UDP destination port lies in one of these ranges.
    Port(Vec<(u16, u16)>),
    /// Whether it holds is known without looking at the packet.
    Always(Fit),
    /// The contrary.
    Not(Box<Condition>),
}

impl Condition {
    fn fit(&self, packet: &Packet<'_>) -> Fit {
        match self {
            Self::Interface(name) => match name.strip_suffix(['+', '*']) {
                Some(start) => Fit::of(packet.interface.starts_with(start)),
                None => Fit::of(packet.interface == name),
            },
            Self::Source(networks) => packet.source.map_or(Fit::Perhaps, |source| within(source, networks)),
            Self::Destination(networks) => within(packet.destination, networks),
            Self::Udp(udp) => packet.udp_port.map_or(Fit::Perhaps, |_| Fit::of(*udp)),
            Self::Port(ranges) => packet.udp_port.map_or(Fit::Perhaps, |port| {
                Fit::of(ranges.iter().any(|&(first, last)| (first..=last).contains(&port)))
            }),
            Self::Always(fit) => *fit,
            Self::Not(condition) => condition.fit(packet).not(),
        }
    }
}

/// Whether all, some or none of `addresses` lies in one of `networks`.
fn within(addresses: Ipv4Network, networks: &[Ipv4Network]) -> Fit {
    if networks.iter().any(|network| addresses.is_subnet_of(*network)) {
        Fit::Yes
    } else if networks.iter().any(|network| addresses.overlaps(*network)) {
        Fit::Perhaps
    } else {
        Fit::No
    }
}

/// What a rule does with a packet that meets its conditions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    Accept,
    Drop,
    Return,
    Jump(String),
    Goto(String),
    Continue,
}

/// A rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) conditions: Vec<Condition>,
    pub(super) verdict: Verdict,
}

/// A chain.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Chain {
    /// The hook that the kernel calls it from (`input`), and whether its policy is to drop.
    pub(super) base: Option<(String, bool)>,
    pub(super) rules: Vec<Rule>,
}

/// Chains by name, one that people understand.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Ruleset {
    pub(super) chains: BTreeMap<String, Chain>,
}

/// What becomes of a packet, the worst last; and by which chain.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fate {
    Accepted,
    Perhaps(String),
    Dropped(String),
}

/// All that may happen to a packet in a chain.
#[derive(Debug, Default)]
struct Ways {
    accepts: bool,
    /// By what it is dropped.
    drops: Option<String>,
    /// It comes to the end of the chain.
    ends: bool,
}

impl Ways {
    fn add(&mut self, other: Self) {
        self.accepts |= other.accepts;
        self.ends |= other.ends;
        self.drops = self.drops.take().or(other.drops);
    }
}

impl Ruleset {
    /// What the chains at `hook` do with `packet`: each of them must accept it.
    pub(super) fn fate(&self, hook: &str, packet: &Packet<'_>) -> Fate {
        let at_hook = |chain: &Chain| chain.base.as_ref().is_some_and(|(own, _)| own == hook);
        let chains = self.chains.iter().filter(|(_, chain)| at_hook(chain));
        chains.map(|(name, chain)| self.fate_in(name, chain, packet)).max().unwrap_or(Fate::Accepted)
    }

    fn fate_in(&self, name: &str, chain: &Chain, packet: &Packet<'_>) -> Fate {
        let mut ways = self.walk(name, packet, DEPTH);
        if ways.ends {
            match chain.base {
                Some((_, true)) => ways.drops = ways.drops.or_else(|| Some(format!("the policy of {name}"))),
                _ => ways.accepts = true,
            }
        }
        match (ways.drops, ways.accepts) {
            (None, _) => Fate::Accepted,
            (Some(by), true) => Fate::Perhaps(by),
            (Some(by), false) => Fate::Dropped(by),
        }
    }

    fn walk(&self, name: &str, packet: &Packet<'_>, depth: u32) -> Ways {
        let mut ways = Ways::default();
        let rules = self.chains.get(name).filter(|_| depth > 0).map_or(&[][..], |chain| &chain.rules);
        for rule in rules {
            let fit = rule.conditions.iter().map(|condition| condition.fit(packet)).min().unwrap_or(Fit::Yes);
            if fit == Fit::No {
                continue;
            }
            let mut way = self.follow(name, &rule.verdict, packet, depth);
            // Back from a chain that was jumped to, it goes on here.
            let goes_on = match rule.verdict {
                Verdict::Jump(_) | Verdict::Continue => std::mem::take(&mut way.ends),
                _ => false,
            };
            ways.add(way);
            if fit == Fit::Yes && !goes_on {
                return ways;
            }
        }
        ways.ends = true;
        ways
    }

    fn follow(&self, name: &str, verdict: &Verdict, packet: &Packet<'_>, depth: u32) -> Ways {
        match verdict {
            Verdict::Accept => Ways { accepts: true, ..Ways::default() },
            Verdict::Drop => Ways { drops: Some(format!("a rule of {name}")), ..Ways::default() },
            Verdict::Jump(target) | Verdict::Goto(target) => self.walk(target, packet, depth - 1),
            Verdict::Return | Verdict::Continue => Ways { ends: true, ..Ways::default() },
        }
    }
}
