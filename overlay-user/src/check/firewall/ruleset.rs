//! Rules of a firewall without the words of one, and what they do to a packet. Pure.

use std::collections::BTreeMap;

use ipnetwork::IpNetwork;

use super::packet::{Packet, Payload, Protocol};
use crate::{masquerade::Family, network::overlap};

/// How deep chains may call each other; the kernel allows no more than 16.
const DEPTH: u32 = 16;

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
    Source(Vec<IpNetwork>),
    /// The destination does.
    Destination(Vec<IpNetwork>),
    /// The packet is of this family.
    Family(Family),
    /// The protocol is one of these.
    Protocol(Vec<Protocol>),
    /// The UDP destination port lies in one of these ranges.
    Port(Vec<(u16, u16)>),
    /// The type of ICMPv6 is, or may be, that of a neighbour solicitation; or it is another.
    NeighbourSolicitation(bool),
    /// The hop limit is this.
    HopLimit(u64),
    /// What conntrack calls the packet's state is one of these, in small letters.
    State(Vec<String>),
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
            Self::Family(family) => Fit::of(packet.family() == *family),
            Self::Protocol(protocols) => {
                packet.payload.protocol().map_or(Fit::Perhaps, |protocol| Fit::of(protocols.contains(&protocol)))
            }
            Self::Port(ranges) => match packet.payload {
                Payload::Any => Fit::Perhaps,
                Payload::Udp(port) => Fit::of(ranges.iter().any(|&(first, last)| (first..=last).contains(&port))),
                Payload::NeighbourSolicitation => Fit::No,
            },
            Self::NeighbourSolicitation(is_one) => match packet.payload {
                Payload::Any => Fit::Perhaps,
                Payload::Udp(_) => Fit::No,
                Payload::NeighbourSolicitation => Fit::of(*is_one),
            },
            Self::HopLimit(limit) => packet.payload.hop_limit().map_or(Fit::Perhaps, |own| Fit::of(own == *limit)),
            Self::State(states) => Fit::of(states.iter().any(|state| state == packet.payload.state())),
            Self::Always(fit) => *fit,
            Self::Not(condition) => condition.fit(packet).not(),
        }
    }
}

/// Whether all, some or none of `addresses` lies in one of `networks`.
fn within(addresses: IpNetwork, networks: &[IpNetwork]) -> Fit {
    if networks.iter().any(|network| network.prefix() <= addresses.prefix() && network.contains(addresses.network())) {
        Fit::Yes
    } else if networks.iter().any(|network| overlap(addresses, *network)) {
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
    /// None for one that is called from others.
    pub(super) base: Option<Base>,
    pub(super) rules: Vec<Rule>,
}

/// How the kernel calls a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Base {
    /// From where: `input`.
    pub(super) hook: String,
    /// With packets of which family; none: of each.
    pub(super) family: Option<Family>,
    /// Whether its policy is to drop.
    pub(super) drops: bool,
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
        let is_called = |base: &Base| base.hook == hook && base.family.is_none_or(|family| family == packet.family());
        let chains = self.chains.iter().filter(|(_, chain)| chain.base.as_ref().is_some_and(is_called));
        chains.map(|(name, chain)| self.fate_in(name, chain, packet)).max().unwrap_or(Fate::Accepted)
    }

    fn fate_in(&self, name: &str, chain: &Chain, packet: &Packet<'_>) -> Fate {
        let mut ways = self.walk(name, packet, DEPTH);
        if ways.ends {
            match &chain.base {
                Some(base) if base.drops => ways.drops = ways.drops.or_else(|| Some(format!("the policy of {name}"))),
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
