//! Addresses and ports that netfilter translates.

use super::{BOTH, Family, Place, Something, Step, WORDS, connected, family::socket_address, world};
use crate::ground::for_each_family;

/// Translates the destination of what comes to `address` and port 80 to port 8080 of `to`.
fn publish(family: &Family, address: &str, to: &str) -> String {
    let &Family { ip, subnets: [subnet, _], .. } = family;
    let target = socket_address((to, 8080));
    format!(
        "table {ip} publish {{
           chain prerouting {{
             type nat hook prerouting priority dstnat;
             {ip} daddr {address} meta l4proto {{ tcp, udp }} th dport 80 dnat to {target}
           }}
           chain postrouting {{
             type nat hook postrouting priority srcnat;
             {ip} saddr {subnet} {ip} daddr {to} ct status dnat meta iifname br0 meta oifname br0 masquerade
           }}
         }}"
    )
}

/// A UDP and a TCP conversation of a client, from a port and the next one of its own, with `to`, which the sockets `udp` and
/// `listener` serve at port 8080 of `server`; these nodes may carry them on the fast path.
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

fn with_rules(family: &Family, place: Place, rules: String, table: &str, steps: Vec<Step>) -> Vec<Step> {
    let mut all = vec![Step::Nft(place, rules)];
    all.extend(steps);
    all.push(Step::Nft(place, format!("delete table {} {table}", family.ip)));
    all
}

/// A service over a container on each node, as kube-proxy does it with nftables: a client keeps to what it got first.
fn balanced(family: &Family) -> Vec<Step> {
    let &Family { ip, addresses, here2, there, service, subnets: [subnet, _], .. } = family;
    let endpoint = |name: &str, to: &str| {
        let target = socket_address((to, 8080));
        format!(
            "set {name} {{ type {addresses}; flags dynamic, timeout; timeout 60s; }}
             chain to_{name} {{
               update @{name} {{ {ip} saddr }}
               meta l4proto {{ tcp, udp }} dnat to {target}
             }}"
        )
    };
    let rules = format!(
        "table {ip} service {{
           {}
           {}
           chain choose {{
             {ip} saddr @remote goto to_remote
             {ip} saddr @local goto to_local
             numgen inc mod 2 vmap {{ 0 : goto to_remote, 1 : goto to_local }}
           }}
           chain prerouting {{
             type nat hook prerouting priority dstnat;
             {ip} daddr {service} meta l4proto {{ tcp, udp }} th dport 80 goto choose
           }}
           chain postrouting {{
             type nat hook postrouting priority srcnat;
             {ip} saddr {subnet} {ip} daddr {here2} ct status dnat masquerade
           }}
         }}",
        endpoint("remote", there),
        endpoint("local", here2)
    );
    let mut steps = conversations(4000, Place::Here, (service, 80), Place::There, &[Place::Two]);
    for (client, port) in [("second", 4010), ("third", 4011)] {
        steps.extend([
            Step::Udp(client, Place::Here, port),
            Step::Say(client, Some((service, 80)), client),
            Step::Hear("udp", Something),
        ]);
    }
    steps.push(Step::Close(&["udp", "listener", "client", "near", "far"]));
    steps.extend(conversations(4100, Place::Here3, (service, 80), Place::Here2, &[]));
    with_rules(family, Place::One, rules, "service", steps)
}

/// A service whose containers are chosen by a hash of the client's address and port.
fn hashed(family: &Family) -> Vec<Step> {
    let &Family { ip, here2, there, service, subnets: [subnet, _], .. } = family;
    let rules = format!(
        "table {ip} service {{
           chain prerouting {{
             type nat hook prerouting priority dstnat;
             {ip} daddr {service} udp dport 80
               dnat to jhash {ip} saddr . udp sport mod 2 seed 0x1 map {{ 0 : {there}, 1 : {here2} }}
           }}
           chain postrouting {{
             type nat hook postrouting priority srcnat;
             {ip} saddr {subnet} {ip} daddr {here2} ct status dnat masquerade
           }}
         }}"
    );
    let mut steps = vec![Step::Udp("remote", Place::There, 80), Step::Udp("local", Place::Here2, 80)];
    for (client, port) in [("a", 4000), ("b", 4001), ("c", 4002), ("d", 4003), ("e", 4004), ("f", 4005)] {
        steps.push(Step::Udp(client, Place::Here, port));
        steps.extend((0..20).map(|_| Step::Say(client, Some((service, 80)), client)));
    }
    // Each hears those of its clients, in the order in which they spoke.
    steps.extend(["remote", "local"].into_iter().flat_map(|server| (0..125).map(move |_| Step::HearIfAny(server))));
    with_rules(family, Place::One, rules, "service", steps)
}

fn translated_source(family: &Family) -> Vec<Step> {
    let &Family { ip, here, there, hidden, .. } = family;
    let rules = format!(
        "table {ip} hide {{
           chain postrouting {{
             type nat hook postrouting priority srcnat;
             {ip} saddr {here} {ip} daddr {there} snat to {hidden}
           }}
         }}"
    );
    with_rules(
        family,
        Place::One,
        rules,
        "hide",
        conversations(4200, Place::Here, (there, 8080), Place::There, &[Place::Two]),
    )
}

for_each_family! {
    fn translated_flows(way) {
        let family = Family::of(way);
        let &Family { here, there, node_one, gateways: [gateway_one, gateway_two], .. } = family;
        let scripts = [
            ("a service over both nodes", balanced(family)),
            ("a service by hash", hashed(family)),
            ("a port of the node, from outside", with_rules(family, Place::One, publish(family, node_one, here), "publish",
                conversations(4300, Place::Three, (node_one, 80), Place::Here, &[]))),
            ("a port of the node, from the other node", with_rules(family, Place::One, publish(family, node_one, here), "publish",
                conversations(4400, Place::Two, (node_one, 80), Place::Here, &[]))),
            ("a port of the gateway, from a container of the other node", with_rules(family, Place::One, publish(family, gateway_one, here), "publish",
                conversations(4500, Place::There, (gateway_one, 80), Place::Here, &[Place::Two]))),
            ("a port of the gateway", with_rules(family, Place::One, publish(family, gateway_one, here), "publish",
                conversations(4600, Place::Here2, (gateway_one, 80), Place::Here, &[]))),
            ("a port of the other node's gateway", with_rules(family, Place::Two, publish(family, gateway_two, there), "publish",
                conversations(4700, Place::Here, (gateway_two, 80), Place::There, &[Place::One]))),
            ("another port of a container", with_rules(family, Place::Two, publish(family, there, there), "publish",
                conversations(4800, Place::Here, (there, 80), Place::There, &[Place::One]))),
            ("a translated source", translated_source(family)),
            ("nothing translated", conversations(4900, Place::Here, (there, 8080), Place::There, BOTH)),
        ];
        world::compare(way, &scripts);
    }
}
