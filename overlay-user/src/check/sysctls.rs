//! Kernel parameters: those that the agent sets, and those of others that are in its way.

use std::{collections::BTreeSet, net::Ipv6Addr};

use futures::TryStreamExt as _;
use rtnetlink::{Handle, RouteMessageBuilder, packet_route::route::RouteProtocol};

use super::Finding;
use crate::{
    in_words::joined,
    interface_name::interface_name,
    link,
    network::Ranges,
    node::Plan,
    route_message::oif,
    sysctl::{Sysctl, SysctlError},
};

/// Containers are reached by forwarding: the agent switches it on, for the families in `ranges`.
pub(super) fn forwarding(ranges: &Ranges) -> Vec<Finding> {
    let ipv4 = ranges.ipv4.map(|_| ("ip-forward", "net.ipv4.ip_forward", Sysctl::ipv4("ip_forward")));
    let ipv6 =
        ranges.ipv6.map(|_| ("ipv6-forward", "net.ipv6.conf.all.forwarding", Sysctl::ipv6_conf("all", "forwarding")));
    let check = |(check, name, sysctl): (&'static str, &str, Sysctl)| match sysctl.would_set("1") {
        Ok(false) => Finding::green(check, "on"),
        Ok(true) => Finding::green(check, "off; the agent switches it on"),
        Err(_) if !sysctl.exists() => Finding::red(
            check,
            format!("this kernel has no {name}"),
            "boot it without ipv6.disable=1, or take IPv6 out of the network config",
        ),
        Err(error) => Finding::refused(
            check,
            error,
            format!("set {name} to 1 before the agent starts, or let it write /proc/sys"),
        ),
    };
    ipv4.into_iter().chain(ipv6).map(check).collect()
}

/// A node that forwards IPv6 takes routes from router advertisements only where `accept_ra` is 2. The agent sets that for the
/// underlay interface; the others are their owners'.
pub(super) async fn accept_ra(handle: &Handle, plan: &Plan) -> Option<Finding> {
    const CHECK: &str = "accept-ra";
    plan.ranges.ipv6?;
    let underlay = plan.underlay.name.as_str();
    let of_underlay = match link::would_keep_advertised_routes(underlay) {
        Ok(true) => format!("1 on {underlay}; the agent sets it to 2, so that it keeps its routes"),
        Ok(false) => match Sysctl::ipv6_conf(underlay, "accept_ra").get() {
            Ok(value) => format!("{value} on {underlay}"),
            Err(_) => format!("{underlay} has no IPv6"),
        },
        Err(error) => {
            let advice = format!("set net.ipv6.conf.{underlay}.accept_ra to 2 before the agent starts");
            return Some(Finding::refused(CHECK, error, advice));
        }
    };
    let forgets = |name: &String| name != underlay && link::would_keep_advertised_routes(name).is_ok_and(|would| would);
    let forgetful: Vec<_> = advertised_to(handle).await.into_iter().filter(forgets).collect();
    if forgetful.is_empty() {
        return Some(Finding::green(CHECK, of_underlay));
    }
    let found = format!(
        "{of_underlay}; 1 on {}, whose routes from router advertisements go when the node forwards IPv6",
        joined(&forgetful)
    );
    let advice = joined(forgetful.iter().map(|name| format!("set net.ipv6.conf.{name}.accept_ra to 2")));
    Some(Finding::yellow(CHECK, found, advice))
}

/// The interfaces with routes that the kernel has from router advertisements; none where it does not tell.
async fn advertised_to(handle: &Handle) -> BTreeSet<String> {
    let all = RouteMessageBuilder::<Ipv6Addr>::new().build();
    let routes: Vec<_> = handle.route().get(all).execute().try_collect().await.unwrap_or_default();
    let advertised = routes.iter().filter(|route| route.header.protocol == RouteProtocol::Ra);
    advertised.filter_map(oif).filter_map(interface_name).collect()
}

/// Strict checking of sources drops what comes in by another interface than the answer would leave by. The agent sets
/// the overlay device to loose; the underlay interface is its owner's.
pub(super) fn rp_filter(underlay: &str) -> Finding {
    const CHECK: &str = "rp-filter";
    let read = |device: &str| -> Result<u8, SysctlError> {
        Ok(Sysctl::ipv4_conf(device, "rp_filter").get()?.parse().unwrap_or_default())
    };
    match (read("all"), read(underlay)) {
        (Ok(all), Ok(own)) if all.max(own) == 1 => Finding::yellow(
            CHECK,
            format!(
                "strict on {underlay} (all {all}, {underlay} {own}): meets what our programs leave to the kernel, as fragments"
            ),
            format!(
                "none if other nodes' packets come and go by {underlay}; else set net.ipv4.conf.{underlay}.rp_filter to 2"
            ),
        ),
        (Ok(all), Ok(own)) => {
            Finding::green(CHECK, format!("all {all}, {underlay} {own}; the overlay device gets 2, loose"))
        }
        (Err(error), _) | (_, Err(error)) => {
            Finding::yellow(CHECK, format!("{:#}", anyhow::Error::from(error)), "see whether /proc/sys is mounted")
        }
    }
}

/// What the fast path needs of conntrack, if it is loaded.
pub(super) fn conntrack(fast_path: bool) -> Finding {
    const CHECK: &str = "conntrack";
    let liberal = Sysctl::netfilter("nf_conntrack_tcp_be_liberal");
    match (liberal.exists(), fast_path) {
        (false, _) => Finding::green(CHECK, "not in use, or not in this kernel: no rule depends on it"),
        (true, false) => Finding::green(CHECK, "in this kernel; without the fast path it is left as it is"),
        (true, true) => match liberal.would_set("1") {
            Ok(false) => Finding::green(CHECK, "nf_conntrack_tcp_be_liberal is 1, as the fast path needs it"),
            Ok(true) => {
                Finding::green(CHECK, "nf_conntrack_tcp_be_liberal is 0; the agent sets it to 1 for the fast path")
            }
            Err(error) => Finding::yellow(
                CHECK,
                format!("{:#}", anyhow::Error::from(error)),
                "set it to 1 from outside: rules that drop what conntrack calls invalid would drop flows of the fast path",
            ),
        },
    }
}
