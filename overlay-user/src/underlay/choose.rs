//! The choice itself: interfaces and routes in, underlay out. No I/O.

use std::net::IpAddr;

use regex::Regex;

use super::{Address, End, Interface, Outer, RouteInfo, Routes, Underlay, UnderlayChoice, UnderlayError};

/// An interface that an option points at, with the address that it points at, if it does.
type Candidate<'a> = (&'a Interface, Option<IpAddr>);

/// Chooses the underlay: `--iface`, then `--iface-regex`, then `--iface-can-reach`; without these the interface that
/// `--public-ip` is assigned to; without any the interface of the default route. The first that will do is taken.
///
/// # Errors
/// What was looked for and not found, or why what was found is no underlay.
pub fn choose(interfaces: &[Interface], routes: &Routes, choice: &UnderlayChoice) -> Result<Underlay, UnderlayError> {
    let mut refused = Vec::new();
    for candidate in candidates(interfaces, routes, choice) {
        match candidate.and_then(|candidate| underlay(candidate, choice)) {
            Ok(underlay) => return Ok(underlay),
            Err(error) => refused.push(error),
        }
    }
    Err(match refused.len() {
        0 => UnderlayError::NoDefaultRoute,
        1 => refused.swap_remove(0),
        _ => UnderlayError::AllRefused(refused),
    })
}

/// Why [`choose`] has chosen `underlay`, a part of a sentence: what comes first of all that points at it.
#[must_use]
pub fn why(underlay: &Underlay, choice: &UnderlayChoice) -> String {
    let mut names: Vec<_> = underlay.ends().map(|end| end.address.to_string()).collect();
    names.push(underlay.name.clone());
    if choice.iface.iter().any(|iface| names.contains(iface)) {
        return "as --iface says".to_owned();
    }
    if let Some(regex) = choice.iface_regex.iter().find(|regex| names.iter().any(|name| regex.is_match(name))) {
        return format!("--iface-regex {regex} matches");
    }
    match (choice.iface_can_reach, choice.public_ip) {
        (Some(target), _) => format!("{target} is reached by it, as --iface-can-reach asks"),
        (None, Some(public_ip)) if choice.iface.is_empty() && choice.iface_regex.is_empty() => {
            format!("it has {public_ip}, as --public-ip asks")
        }
        _ => "the default route leaves by it".to_owned(),
    }
}

/// Everything that the options point at, in the order in which it is tried.
fn candidates<'a>(
    interfaces: &'a [Interface],
    routes: &Routes,
    choice: &UnderlayChoice,
) -> Vec<Result<Candidate<'a>, UnderlayError>> {
    let mut found: Vec<_> = choice.iface.iter().map(|iface| named(interfaces, iface)).collect();
    for regex in &choice.iface_regex {
        found.extend(matching(interfaces, regex));
    }
    if let Some(target) = choice.iface_can_reach {
        let reach = routes.reach.and_then(|route| Some((by_index(interfaces, route.ifindex)?, route.source)));
        found.push(reach.ok_or(UnderlayError::Unreachable(target)));
    }
    if !found.is_empty() {
        return found;
    }
    if let Some(public_ip) = choice.public_ip {
        return vec![by_address(interfaces, public_ip.into()).ok_or(UnderlayError::PublicIpNotLocal(public_ip))];
    }
    let sorted = |routes: &[RouteInfo]| {
        let mut sorted = routes.to_vec();
        sorted.sort_by_key(|route| route.metric);
        sorted
    };
    let (ipv4, ipv6) = (sorted(&routes.default), sorted(&routes.default_ipv6));
    let defaults = match choice.outer {
        Outer::Ipv4 => ipv4,
        Outer::Either => [ipv4, ipv6].concat(),
        Outer::Ipv6 => [ipv6, ipv4].concat(),
    };
    defaults.iter().filter_map(|route| Some(Ok((by_index(interfaces, route.ifindex)?, route.source)))).collect()
}

fn named<'a>(interfaces: &'a [Interface], iface: &str) -> Result<Candidate<'a>, UnderlayError> {
    let found = match iface.parse::<IpAddr>() {
        Ok(address) => by_address(interfaces, address),
        Err(_) => interfaces.iter().find(|interface| interface.name == iface).map(|interface| (interface, None)),
    };
    found.ok_or_else(|| UnderlayError::NoSuchInterface(iface.to_owned()))
}

/// All interfaces that one expression matches: those with a matching address first, then those with a matching name.
fn matching<'a>(interfaces: &'a [Interface], regex: &Regex) -> Vec<Result<Candidate<'a>, UnderlayError>> {
    let by_address = interfaces.iter().filter_map(|interface| {
        let ipv4 = preferred_matching(&interface.addresses, regex).map(IpAddr::from);
        let address = ipv4.or_else(|| preferred_matching(&interface.ipv6_addresses, regex).map(IpAddr::from))?;
        Some(Ok((interface, Some(address))))
    });
    let by_name =
        interfaces.iter().filter(|interface| regex.is_match(&interface.name)).map(|interface| Ok((interface, None)));
    let found: Vec<_> = by_address.chain(by_name).collect();
    if found.is_empty() { vec![Err(UnderlayError::NothingMatches(regex.to_string()))] } else { found }
}

fn preferred_matching<A: Copy + ToString>(addresses: &[Address<A>], regex: &Regex) -> Option<A> {
    let matching: Vec<_> =
        addresses.iter().copied().filter(|address| regex.is_match(&address.ip.to_string())).collect();
    preferred(&matching)
}

fn by_index(interfaces: &[Interface], ifindex: u32) -> Option<&Interface> {
    interfaces.iter().find(|interface| interface.ifindex == ifindex)
}

fn by_address(interfaces: &[Interface], address: IpAddr) -> Option<Candidate<'_>> {
    let has_it = |interface: &&Interface| interface.all_addresses().contains(&address);
    interfaces.iter().find(has_it).map(|interface| (interface, Some(address)))
}

/// The address an interface is known by: global before link-local, permanent before dynamic, never an unfit one.
pub(super) fn preferred<A: Copy>(addresses: &[Address<A>]) -> Option<A> {
    let fit = addresses.iter().filter(|address| !address.unfit);
    fit.min_by_key(|address| (address.link_local, !address.permanent)).map(|address| address.ip)
}

/// Whether `interface` can be an underlay, and with which address.
fn underlay((interface, address): Candidate<'_>, choice: &UnderlayChoice) -> Result<Underlay, UnderlayError> {
    let name = || interface.name.clone();
    if interface.loopback {
        return Err(UnderlayError::Loopback(name()));
    }
    if interface.overlay {
        return Err(UnderlayError::Overlay(name()));
    }
    if !interface.up {
        return Err(UnderlayError::Down(name()));
    }
    let mac = interface.mac.ok_or_else(|| UnderlayError::NotEthernet(name()))?;
    let (named_ipv4, named_ipv6) = match address {
        Some(IpAddr::V4(address)) => (Some(address), None),
        Some(IpAddr::V6(address)) => (None, Some(address)),
        None => (None, None),
    };
    let ipv4 = named_ipv4.or_else(|| preferred(&interface.addresses));
    let ipv6 = named_ipv6.or_else(|| preferred(&interface.ipv6_addresses));
    let (ipv4, ipv6) = match choice.outer {
        Outer::Ipv4 => (ipv4, None),
        Outer::Either => (ipv4, ipv6),
        Outer::Ipv6 => (ipv4.filter(|_| ipv6.is_none()), ipv6),
    };
    match (ipv4, ipv6) {
        (None, _) if choice.needs_ipv4() => return Err(UnderlayError::NoAddress(name())),
        (None, None) => return Err(UnderlayError::NoAddressAtAll(name())),
        _ => {}
    }
    if let (None, Some(public_ip)) = (ipv6, choice.public_ipv6.filter(|_| choice.outer != Outer::Ipv4)) {
        return Err(UnderlayError::NoIpv6Address { name: name(), public_ip });
    }
    Ok(Underlay {
        name: name(),
        ifindex: interface.ifindex,
        mac,
        mtu: interface.mtu,
        ipv4: ipv4.map(|address| end(address, choice.public_ip)),
        ipv6: ipv6.map(|address| end(address, choice.public_ipv6)),
        addresses: interface.all_addresses(),
    })
}

/// An end that others reach at `public_ip`, or at its own address.
pub(super) fn end<A: Copy>(address: A, public_ip: Option<A>) -> End<A> {
    End { address, public_ip: public_ip.unwrap_or(address) }
}

#[cfg(test)]
mod tests;
