//! Addresses and ports that netfilter translates.

use super::{BOTH, HERE, HERE2, Place, Something, Step, THERE, WORDS, connected, world};
use crate::ground::{Backend, for_either_backend};

/// A service's address, outside the overlay network.
const SERVICE: &str = "172.30.0.1";
/// The first node's underlay address, and the bridges' addresses.
const NODE_ONE: &str = "192.168.50.1";
const GATEWAY_ONE: &str = "10.1.10.1";
const GATEWAY_TWO: &str = "10.1.20.1";

/// Translates the destination of what comes to `address` and port 80 to port 8080 of `to`.
fn publish(address: &str, to: &str) -> String {
    format!(
        "table ip publish {{
           chain prerouting {{
             type nat hook prerouting priority dstnat;
             ip daddr {address} meta l4proto {{ tcp, udp }} th dport 80 dnat to {to}:8080
           }}
           chain postrouting {{
             type nat hook postrouting priority srcnat;
             ip saddr 10.1.10.0/24 ip daddr {to} ct status dnat meta iifname br0 meta oifname br0 masquerade
           }}
         }}"
    )
}

/// A UDP and a TCP conversation of a client, from a port and the next one of its own, with `to`, which the sockets `udp` and `listener` serve at port 8080 of
/// `server`; these nodes may carry them on the fast path.
fn conversations(
    port: u16,
    client: Place,
    to: (&'static str, u16),
    server: Place,
    fast: &'static [Place],
) -> Vec<Step> {
    let mut steps = vec![
        Step::Udp("udp", server, 8080),
        Step::Listen("listener", server, 8080),
        Step::Udp("client", client, port),
        Step::Say("client", Some(to), "hello"),
        Step::Hear("udp", Something),
        Step::Engage("client", "udp", fast),
        Step::Talk("client", "udp", WORDS, fast),
    ];
    steps.extend(connected("near", (client, port + 1), to, "listener", "far"));
    steps.extend([
        Step::Engage("near", "far", fast),
        Step::Talk("near", "far", WORDS, fast),
        Step::Conntrack(Place::One, port),
        Step::Conntrack(Place::Two, port),
    ]);
    steps
}

fn with_rules(place: Place, rules: String, table: &str, steps: Vec<Step>) -> Vec<Step> {
    let mut all = vec![Step::Nft(place, rules)];
    all.extend(steps);
    all.push(Step::Nft(place, format!("delete table ip {table}")));
    all
}

/// A service over a container on each node, as kube-proxy does it with nftables: a client keeps to what it got first.
fn balanced() -> Vec<Step> {
    let endpoint = |name: &str, to: &str| {
        format!(
            "set {name} {{ type ipv4_addr; flags dynamic, timeout; timeout 60s; }}
             chain to_{name} {{
               update @{name} {{ ip saddr }}
               meta l4proto {{ tcp, udp }} dnat to {to}:8080
             }}"
        )
    };
    let rules = format!(
        "table ip service {{
           {}
           {}
           chain choose {{
             ip saddr @remote goto to_remote
             ip saddr @local goto to_local
             numgen inc mod 2 vmap {{ 0 : goto to_remote, 1 : goto to_local }}
           }}
           chain prerouting {{
             type nat hook prerouting priority dstnat;
             ip daddr {SERVICE} meta l4proto {{ tcp, udp }} th dport 80 goto choose
           }}
           chain postrouting {{
             type nat hook postrouting priority srcnat;
             ip saddr 10.1.10.0/24 ip daddr {HERE2} ct status dnat masquerade
           }}
         }}",
        endpoint("remote", THERE),
        endpoint("local", HERE2)
    );
    let mut steps = conversations(4000, Place::Here, (SERVICE, 80), Place::There, &[Place::Two]);
    for (client, port) in [("second", 4010), ("third", 4011)] {
        steps.extend([
            Step::Udp(client, Place::Here, port),
            Step::Say(client, Some((SERVICE, 80)), client),
            Step::Hear("udp", Something),
        ]);
    }
    steps.push(Step::Close(&["udp", "listener", "client", "near", "far"]));
    steps.extend(conversations(4100, Place::Here3, (SERVICE, 80), Place::Here2, &[]));
    with_rules(Place::One, rules, "service", steps)
}

/// A service whose containers are chosen by a hash of the client's address and port.
fn hashed() -> Vec<Step> {
    let rules = format!(
        "table ip service {{
           chain prerouting {{
             type nat hook prerouting priority dstnat;
             ip daddr {SERVICE} udp dport 80 dnat to jhash ip saddr . udp sport mod 2 seed 0x1 map {{ 0 : {THERE}, 1 : {HERE2} }}
           }}
           chain postrouting {{
             type nat hook postrouting priority srcnat;
             ip saddr 10.1.10.0/24 ip daddr {HERE2} ct status dnat masquerade
           }}
         }}"
    );
    let mut steps = vec![Step::Udp("remote", Place::There, 80), Step::Udp("local", Place::Here2, 80)];
    for (client, port) in [("a", 4000), ("b", 4001), ("c", 4002), ("d", 4003), ("e", 4004), ("f", 4005)] {
        steps.push(Step::Udp(client, Place::Here, port));
        steps.extend((0..20).map(|_| Step::Say(client, Some((SERVICE, 80)), client)));
    }
    // Each hears those of its clients, in the order in which they spoke.
    steps.extend(["remote", "local"].into_iter().flat_map(|server| (0..125).map(move |_| Step::HearIfAny(server))));
    with_rules(Place::One, rules, "service", steps)
}

fn translated_source() -> Vec<Step> {
    let rules = format!(
        "table ip hide {{
           chain postrouting {{
             type nat hook postrouting priority srcnat;
             ip saddr {HERE} ip daddr {THERE} snat to 10.1.10.0
           }}
         }}"
    );
    with_rules(Place::One, rules, "hide", conversations(4200, Place::Here, (THERE, 8080), Place::There, &[Place::Two]))
}

for_either_backend! {
    fn translated_flows(backend) {
        let scripts = [
            ("a service over both nodes", balanced()),
            ("a service by hash", hashed()),
            ("a port of the node, from outside", with_rules(Place::One, publish(NODE_ONE, HERE), "publish",
                conversations(4300, Place::Three, (NODE_ONE, 80), Place::Here, &[]))),
            ("a port of the node, from the other node", with_rules(Place::One, publish(NODE_ONE, HERE), "publish",
                conversations(4400, Place::Two, (NODE_ONE, 80), Place::Here, &[]))),
            ("a port of the gateway, from a container of the other node", with_rules(Place::One, publish(GATEWAY_ONE, HERE), "publish",
                conversations(4500, Place::There, (GATEWAY_ONE, 80), Place::Here, &[Place::Two]))),
            ("a port of the gateway", with_rules(Place::One, publish(GATEWAY_ONE, HERE), "publish",
                conversations(4600, Place::Here2, (GATEWAY_ONE, 80), Place::Here, &[]))),
            ("a port of the other node's gateway", with_rules(Place::Two, publish(GATEWAY_TWO, THERE), "publish",
                conversations(4700, Place::Here, (GATEWAY_TWO, 80), Place::There, &[Place::One]))),
            ("another port of a container", with_rules(Place::Two, publish(THERE, THERE), "publish",
                conversations(4800, Place::Here, (THERE, 80), Place::There, &[Place::One]))),
            ("a translated source", translated_source()),
            ("nothing translated", conversations(4900, Place::Here, (THERE, 8080), Place::There, BOTH)),
        ];
        world::compare(backend, &scripts);
    }
}
