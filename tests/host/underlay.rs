//! The underlay is chosen and watched on real interfaces.

use std::net::Ipv4Addr;
use std::time::Duration;

use overlay_user::underlay::{Outer, UnderlayChoice, UnderlayError, UnderlayEvent, Watch, select};
use tokio::time::timeout;

use crate::node::Node;

const PATIENCE: Duration = Duration::from_secs(10);

fn iface(name: &str) -> UnderlayChoice {
    UnderlayChoice { iface: vec![name.to_owned()], ..UnderlayChoice::default() }
}

#[test]
fn the_interface_of_the_best_default_route_is_chosen() {
    let node = Node::new();
    node.netns.veth("eth1", &node.peer, "eth1", 9000).unwrap();
    node.netns.ip("address add 172.16.0.1/24 dev eth1").unwrap();
    node.netns.ip("route add default via 172.16.0.2 metric 50").unwrap();
    let chosen = node.run(async |handle| select(handle, &UnderlayChoice::default()).await).unwrap();
    assert_eq!((chosen.name.as_str(), chosen.mtu), ("eth0", 1500));
    assert_eq!((chosen.local_text(), chosen.public_text()), ("192.168.50.1".to_owned(), "192.168.50.1".to_owned()));
    node.netns.ip("route del default via 192.168.50.2").unwrap();
    let chosen = node.run(async |handle| select(handle, &UnderlayChoice::default()).await).unwrap();
    assert_eq!((chosen.name.as_str(), chosen.mtu), ("eth1", 9000));
}

#[test]
fn vlan_devices_and_bridges_will_do() {
    let node = Node::new();
    node.netns.bridge("br0").unwrap();
    node.netns.ip("address add 192.168.60.1/24 dev br0").unwrap();
    // A kernel without 8021q has no VLAN devices to choose.
    let vlan = node.netns.ip("link add link eth0 name eth0.50 type vlan id 50").is_ok();
    let mut names = vec!["br0"];
    if vlan {
        node.netns.ip("link set eth0.50 up").unwrap();
        node.netns.ip("address add 192.168.70.1/24 dev eth0.50").unwrap();
        names.push("eth0.50");
    }
    for name in names {
        let choice = iface(name);
        let chosen = node.run(async |handle| select(handle, &choice).await).unwrap();
        assert_eq!(chosen.name, name);
    }
}

#[test]
fn can_reach_follows_the_route_with_its_source_address() {
    let node = Node::new();
    node.netns.veth("eth1", &node.peer, "eth1", 1500).unwrap();
    node.netns.ip("address add 172.16.0.1/24 dev eth1").unwrap();
    node.netns.ip("address add 172.16.0.9/24 dev eth1").unwrap();
    node.netns.ip("route add 203.0.113.0/24 via 172.16.0.2 src 172.16.0.9").unwrap();
    let choice = UnderlayChoice { iface_can_reach: "203.0.113.7".parse().ok(), ..UnderlayChoice::default() };
    let chosen = node.run(async |handle| select(handle, &choice).await).unwrap();
    assert_eq!((chosen.name.as_str(), chosen.local_text()), ("eth1", "172.16.0.9".to_owned()));
    node.netns.ip("route del default").unwrap();
    let choice = UnderlayChoice { iface_can_reach: "198.51.100.1".parse().ok(), ..UnderlayChoice::default() };
    let refused = node.run(async |handle| select(handle, &choice).await).unwrap_err();
    assert!(matches!(refused, UnderlayError::Unreachable(_)), "{refused}");
}

#[test]
fn what_the_kernel_says_of_an_interface_decides_whether_it_will_do() {
    let node = Node::new();
    node.netns.bridge("bare0").unwrap();
    node.netns.bridge("down0").unwrap();
    node.netns.ip("address add 192.168.60.1/24 dev down0").unwrap();
    node.netns.ip("link set down0 down").unwrap();
    let refusal = |name: &str| {
        let choice = iface(name);
        node.run(async |handle| select(handle, &choice).await).unwrap_err()
    };
    node.netns.ip("link add overlay.7 type vxlan id 7 dstport 4789").unwrap();
    assert!(matches!(refusal("overlay.7"), UnderlayError::Overlay(_)));
    assert!(matches!(refusal("lo"), UnderlayError::Loopback(_)));
    assert!(matches!(refusal("bare0"), UnderlayError::NoAddress(_)));
    assert!(matches!(refusal("down0"), UnderlayError::Down(_)));
    assert!(matches!(refusal("eth9"), UnderlayError::NoSuchInterface(_)));
    node.netns.ip("route del default").unwrap();
    let refused = node.run(async |handle| select(handle, &UnderlayChoice::default()).await).unwrap_err();
    assert!(matches!(refused, UnderlayError::NoDefaultRoute), "{refused}");
}

#[test]
fn changes_of_the_interface_are_reported_as_they_happen() {
    let node = Node::new();
    node.run(async |handle| {
        let chosen = select(handle, &UnderlayChoice::default()).await.unwrap();
        let mut watch = Watch::new(chosen, UnderlayChoice::default()).unwrap();
        let steps = [
            ("link set eth0 mtu 1400", UnderlayEvent::MtuChanged(1400)),
            ("link set eth0 address 02:00:00:00:00:77", UnderlayEvent::MacChanged([2, 0, 0, 0, 0, 0x77])),
            ("route add 203.0.113.0/24 via 192.168.50.2", UnderlayEvent::RoutesChanged),
            ("link set eth0 down", UnderlayEvent::Down),
            ("link set eth0 name uplink0", UnderlayEvent::Renamed("uplink0".to_owned())),
            ("link set uplink0 up", UnderlayEvent::Up),
            ("link del uplink0", UnderlayEvent::Gone),
        ];
        for (step, expected) in steps {
            node.netns.ip(step).unwrap();
            wait_for(&mut watch, &expected).await;
        }
        node.netns.veth("eth0", &node.peer, "eth1", 1500).unwrap();
        node.netns.ip("address add 192.168.50.9/24 dev eth0").unwrap();
        while !matches!(next_event(&mut watch).await, UnderlayEvent::Back(_)) {}
        assert_eq!(watch.underlay().ipv4.unwrap().address, Ipv4Addr::new(192, 168, 50, 9));
    });
}

#[test]
fn ipv6_addresses_are_chosen_and_followed_as_the_kernel_has_them() {
    let node = Node::new();
    node.run(async |handle| {
        let choice = UnderlayChoice { outer: Outer::Either, ..UnderlayChoice::default() };
        let chosen = select(handle, &choice).await.unwrap();
        assert_eq!(chosen.ipv6, None, "the link-local address does not count");
        let mut watch = Watch::new(chosen, choice).unwrap();
        let address = async |watch: &mut Watch| {
            while !matches!(next_event(watch).await, UnderlayEvent::AddressChanged(_)) {}
            watch.underlay().ipv6.as_ref().map(|end| end.address.to_string())
        };
        // Not before duplicate detection has ended, which takes a second.
        node.netns.sysctl("net.ipv6.conf.eth0.accept_dad", "1").unwrap();
        node.netns.ip("address add fd00:50::1/64 dev eth0").unwrap();
        assert_eq!(address(&mut watch).await.as_deref(), Some("fd00:50::1"));
        node.netns.ip("address add fd00:50::2/64 dev eth0 nodad preferred_lft 0").unwrap();
        node.netns.ip("address add fd00:50::3/64 dev eth0 nodad").unwrap();
        node.netns.ip("address del fd00:50::1/64 dev eth0").unwrap();
        assert_eq!(address(&mut watch).await.as_deref(), Some("fd00:50::3"));
        assert_eq!(watch.underlay().ipv4.unwrap().address, Ipv4Addr::new(192, 168, 50, 1));
    });
}

#[test]
fn giving_up_a_wait_half_way_loses_nothing() {
    let node = Node::new();
    node.run(async |handle| {
        let chosen = select(handle, &UnderlayChoice::default()).await.unwrap();
        let mut watch = Watch::new(chosen, UnderlayChoice::default()).unwrap();
        for mtu in [1400, 1300, 1200] {
            node.netns.ip(&format!("link set eth0 mtu {mtu}")).unwrap();
            // As in a `select!` whose other branches are ready again and again.
            let mut given_up = 0;
            let event = loop {
                let next = watch.next();
                tokio::select! {
                    biased;
                    event = next => break event.unwrap(),
                    () = tokio::task::yield_now() => given_up += 1,
                }
                if given_up > 20 {
                    break next_event(&mut watch).await;
                }
            };
            assert_eq!(event, UnderlayEvent::MtuChanged(mtu));
        }
    });
}

/// Waits for `expected`; a step may also cause other events, and in no fixed order.
async fn wait_for(watch: &mut Watch, expected: &UnderlayEvent) {
    let mut seen = Vec::new();
    while seen.last() != Some(expected) {
        let event = timeout(PATIENCE, watch.next()).await;
        seen.push(event.unwrap_or_else(|_| panic!("waiting for {expected:?}, saw {seen:?}")).unwrap());
    }
}

async fn next_event(watch: &mut Watch) -> UnderlayEvent {
    timeout(PATIENCE, watch.next()).await.expect("an event within the deadline").unwrap()
}
