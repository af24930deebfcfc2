//! Listings of iptables and ip6tables, and what becomes of packets.

use super::{
    super::{
        packet::{Packet, Payload},
        ruleset::Fate,
    },
    *,
};

const TUNNEL: Payload = Payload::Udp(8472);

fn fate(listing: &str, family: Family, destination: &str, payload: Payload) -> Fate {
    let packet = Packet { interface: "eth0", source: None, destination: destination.parse().unwrap(), payload };
    parse(listing, family).fate("input", &packet)
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
        assert_eq!(fate(listing, Family::Ipv4, "192.168.50.1", TUNNEL), expected, "{listing}");
    }
}

#[test]
fn rules_of_a_family_are_for_its_packets_alone() {
    let dropped = |by: &str| Fate::Dropped(format!("{by} ip6tables' INPUT"));
    let cases = [
        ("-P INPUT ACCEPT", Fate::Accepted),
        ("-P INPUT DROP", dropped("the policy of")),
        ("-P INPUT DROP\n-A INPUT -d fd50::/64 -p udp -m udp --dport 8472 -j ACCEPT", Fate::Accepted),
        ("-P INPUT DROP\n-A INPUT -d fd51::/64 -p udp -m udp --dport 8472 -j ACCEPT", dropped("the policy of")),
        ("-P INPUT ACCEPT\n-A INPUT -p udp -j REJECT --reject-with icmp6-port-unreachable", dropped("a rule of")),
        ("-P INPUT ACCEPT\n-A INPUT -p ipv6-icmp -j DROP", Fate::Accepted),
    ];
    for (listing, expected) in cases {
        assert_eq!(fate(listing, Family::Ipv6, "fd50::1", TUNNEL), expected, "{listing}");
        assert_eq!(fate(listing, Family::Ipv6, "192.168.50.1", TUNNEL), Fate::Accepted, "{listing}");
    }
    assert_eq!(fate("-P INPUT DROP", Family::Ipv4, "fd50::1", TUNNEL), Fate::Accepted);
}

#[test]
fn neighbour_solicitations_are_told_from_other_packets() {
    let policy = || Fate::Dropped("the policy of ip6tables' INPUT".to_owned());
    let cases = [
        ("-A INPUT -p udp -m udp --dport 8472 -j ACCEPT", policy()),
        ("-A INPUT -p ipv6-icmp -j ACCEPT", Fate::Accepted),
        ("-A INPUT -p ipv6-icmp -m icmp6 --icmpv6-type 135 -j ACCEPT", Fate::Accepted),
        ("-A INPUT -p ipv6-icmp -m icmp6 --icmpv6-type 135/0 -j ACCEPT", Fate::Accepted),
        ("-A INPUT -p ipv6-icmp -m icmp6 --icmpv6-type 128 -j ACCEPT", policy()),
        ("-A INPUT -p ipv6-icmp -m icmp6 --icmpv6-type 135 -m hl --hl-eq 255 -j ACCEPT", Fate::Accepted),
        ("-A INPUT -p ipv6-icmp -m hl --hl-eq 64 -j ACCEPT", policy()),
        ("-A INPUT -m conntrack --ctstate NEW,RELATED,ESTABLISHED -j ACCEPT", policy()),
        ("-A INPUT -m conntrack --ctstate UNTRACKED -j ACCEPT", Fate::Accepted),
        ("-A INPUT -d fd50::/64 -j ACCEPT", policy()),
        ("-A INPUT -d ff02::/16 -j ACCEPT", Fate::Accepted),
    ];
    for (rules, expected) in cases {
        let listing = format!("-P INPUT DROP\n{rules}");
        let solicitation = Payload::NeighbourSolicitation;
        assert_eq!(fate(&listing, Family::Ipv6, "ff02::1:ff00:1", solicitation), expected, "{rules}");
    }
}
