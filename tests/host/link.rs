//! The overlay device: set up, taken over, replaced, removed.

use std::net::UdpSocket;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

use overlay_tests::process::{wait_for, wait_until};
use overlay_user::link::{
    LinkConfig, LinkError, LinkEvent, LinkKind, LinkWatch, OverlayLink, list, remove, set_mtu, set_up,
};
use overlay_user::network::Range;
use tokio::time::timeout;

use crate::node::{Node, VXLAN_PORT, udp, vxlan, vxlan_over_ipv6};

const PATIENCE: Duration = Duration::from_secs(10);

fn create(node: &Node, config: &LinkConfig) -> Result<OverlayLink, LinkError> {
    // A process that another test is just starting holds a copy of a closed TAP until it executes.
    let attempt = || match node.run(async |handle| set_up(handle, config).await) {
        Err(LinkError::Busy(_)) => Ok(None),
        outcome => Ok(Some(outcome)),
    };
    wait_for("nobody has the device open", PATIENCE, attempt).unwrap()
}

/// One configuration for each kind of device.
fn kinds() -> [LinkConfig; 3] {
    [udp(), vxlan(), vxlan_over_ipv6()]
}

/// What a device has, as `ip` names it.
struct Shown {
    family: &'static str,
    network: String,
    address: String,
}

fn shown(config: &LinkConfig) -> Shown {
    match (config.ipv4, config.ipv6) {
        (Some(ipv4), _) => {
            Shown { family: "-4", network: ipv4.network.to_string(), address: format!("{}/32", ipv4.subnet.network()) }
        }
        (None, Some(ipv6)) => {
            Shown { family: "-6", network: ipv6.network.to_string(), address: format!("{}/128", ipv6.subnet.network()) }
        }
        (None, None) => unreachable!("each device is for some addresses"),
    }
}

/// The routes to the device. IPv6 has one to the device's own address, made by the kernel.
fn routes(node: &Node, config: &LinkConfig) -> Vec<String> {
    let routes = node.netns.ip(&format!("{} route show dev {}", shown(config).family, config.name())).unwrap();
    routes.lines().filter(|route| !route.contains("proto kernel")).map(str::to_owned).collect()
}

/// The same device for a node with another subnet.
fn with(config: &LinkConfig, [network, subnet]: [&str; 2], [network6, subnet6]: [&str; 2]) -> LinkConfig {
    LinkConfig {
        ipv4: config.ipv4.map(|_| Range { network: network.parse().unwrap(), subnet: subnet.parse().unwrap() }),
        ipv6: config.ipv6.map(|_| Range { network: network6.parse().unwrap(), subnet: subnet6.parse().unwrap() }),
        ..config.clone()
    }
}

#[test]
fn a_fresh_device_has_address_route_and_parameters() {
    let node = Node::new();
    node.netns.sysctl("net.ipv4.ip_forward", "0").unwrap();
    node.netns.sysctl("net.ipv6.conf.all.forwarding", "0").unwrap();
    node.netns.sysctl("net.ipv6.conf.default.disable_ipv6", "1").unwrap();
    node.netns.sysctl("net.ipv4.conf.all.rp_filter", "1").unwrap();
    for config in kinds() {
        let link = create(&node, &config).unwrap();
        let name = &link.name;
        let Shown { network, address, .. } = shown(&config);
        assert!(!link.adopted);
        assert_eq!(link.mac[0] & 3, 2, "a locally administered address of one station");
        let shown = node.netns.ip(&format!("-d link show {name}")).unwrap();
        assert!(shown.contains(&format!("mtu {}", config.mtu)), "{shown}");
        assert!(shown.contains("NOARP") && !shown.contains("MULTICAST") && shown.contains("UP"), "{shown}");
        assert!(shown.contains("addrgenmode none"), "{shown}");
        assert_eq!(
            shown.contains("qlen 1\n"),
            matches!(config.kind, LinkKind::Udp),
            "nothing piles up in a TAP: {shown}"
        );
        let addresses = node.netns.ip(&format!("-br address show {name}")).unwrap();
        assert_eq!(addresses.split_whitespace().skip(2).collect::<Vec<_>>(), [address.as_str()], "{addresses}");
        let routes = routes(&node, &config);
        let source = address.split('/').next().unwrap();
        assert_eq!(routes.len(), 1, "{routes:?}");
        assert!(routes[0].starts_with(&network) && routes[0].contains(&format!("src {source}")), "{routes:?}");
        if config.ipv6.is_some() {
            assert!(shown.contains(&format!("{name}:")) && shown.contains("local fd00:50::1"), "{shown}");
            assert!(shown.contains(" noudp6zerocsumtx udp6zerocsumrx"), "{shown}");
            let conf = |parameter: &str| node.read(&format!("/proc/sys/net/ipv6/conf/{name}/{parameter}"));
            assert_eq!((conf("accept_ra").as_str(), conf("forwarding").as_str()), ("0", "1"));
            assert_eq!(node.read("/proc/sys/net/ipv6/conf/all/forwarding"), "1");
        }
        let conf = |parameter: &str| node.read(&format!("/proc/sys/net/ipv4/conf/{name}/{parameter}"));
        assert_eq!((conf("rp_filter").as_str(), conf("ignore_routes_with_linkdown").as_str()), ("2", "0"));
        assert_eq!(node.read("/proc/sys/net/ipv4/ip_forward"), "1");
        assert_eq!(node.read("/proc/sys/net/ipv4/conf/all/rp_filter"), "1", "only the device's own is loosened");
        drop(link);
        assert!(node.run(async |handle| remove(handle, &config.name()).await).unwrap());
    }
}

#[test]
fn setting_up_again_changes_nothing_and_keeps_the_mac() {
    let node = Node::new();
    for config in kinds() {
        let first = create(&node, &config).unwrap();
        let (ifindex, mac) = (first.ifindex, first.mac);
        let has_carrier = || node.netns.ip(&format!("link show {}", config.name())).unwrap().contains("LOWER_UP");
        wait_until("the device has carrier", PATIENCE, has_carrier).unwrap();
        let before = node.state();
        drop(first);
        let second = create(&node, &config).unwrap();
        assert!(second.adopted);
        assert_eq!((second.ifindex, second.mac), (ifindex, mac));
        // A TAP loses its carrier and gets it back; the kernel says so a little later.
        wait_until("the state is as before", PATIENCE, || node.state() == before).unwrap();
        drop(second);
        node.run(async |handle| remove(handle, &config.name()).await).unwrap();
    }
}

#[test]
fn removing_leaves_nothing() {
    let node = Node::new();
    // A node that forwards has more addresses, and goes on forwarding.
    node.netns.sysctl("net.ipv6.conf.all.forwarding", "1").unwrap();
    let before = node.state();
    for config in kinds() {
        let link = create(&node, &config).unwrap();
        let name = config.name();
        assert_eq!(node.run(async |handle| list(handle).await).unwrap(), std::slice::from_ref(&name));
        // The agent may still have the TAP open.
        assert!(node.run(async |handle| remove(handle, &name).await).unwrap());
        assert!(!node.run(async |handle| remove(handle, &name).await).unwrap(), "nothing left to remove");
        assert_eq!(node.state(), before);
        drop(link);
    }
}

#[test]
fn a_tap_that_nobody_has_open_is_still_routed_to() {
    let node = Node::new();
    drop(create(&node, &udp()).unwrap());
    let without_carrier = || node.netns.ip("link show overlay.0").unwrap().contains("NO-CARRIER");
    wait_until("the TAP has no carrier", PATIENCE, without_carrier).unwrap();
    let route = node.netns.ip("route get 10.1.16.2").unwrap();
    assert!(route.contains("dev overlay.0 src 10.1.15.0"), "{route}");
}

#[test]
fn a_second_agent_is_refused_while_the_first_has_the_tap() {
    let node = Node::new();
    let _first = create(&node, &udp()).unwrap();
    let refused = node.run(async |handle| set_up(handle, &udp()).await).unwrap_err();
    assert!(matches!(refused, LinkError::Busy(_)), "{refused}");
}

#[test]
fn another_subnet_or_network_replaces_address_and_route_of_an_adopted_device() {
    let node = Node::new();
    for config in kinds() {
        drop(create(&node, &config).unwrap());
        let other_subnet = with(&config, ["10.1.0.0/16", "10.1.8.0/24"], ["fd00:1::/48", "fd00:1:0:8::/64"]);
        let other_network = with(&config, ["10.2.0.0/16", "10.2.7.0/24"], ["fd00:2::/48", "fd00:2:0:7::/64"]);
        drop(create(&node, &other_subnet).unwrap());
        let addresses = node.netns.ip(&format!("-br address show {}", config.name())).unwrap();
        let (old, new) = (shown(&config).address, shown(&other_subnet).address);
        assert!(addresses.contains(&new) && !addresses.contains(&old), "{addresses}");
        drop(create(&node, &other_network).unwrap());
        let routes = routes(&node, &config);
        assert!(routes.len() == 1 && routes[0].starts_with(&shown(&other_network).network), "{routes:?}");
        node.run(async |handle| remove(handle, &config.name()).await).unwrap();
    }
}

#[test]
fn a_vxlan_device_of_another_shape_is_replaced_and_its_mac_kept() {
    let node = Node::new();
    let config = vxlan();
    let first = create(&node, &config).unwrap();
    let LinkKind::Vxlan(mut shape) = config.kind.clone() else { unreachable!("vxlan() makes a VXLAN device") };
    shape.port = 4789;
    let second = create(&node, &LinkConfig { kind: LinkKind::Vxlan(shape), ..config }).unwrap();
    assert!(!second.adopted);
    assert_eq!(second.mac, first.mac);
    assert!(node.netns.ip("-d link show overlay.1").unwrap().contains("dstport 4789"));
}

#[test]
fn devices_that_are_not_ours_are_refused_and_left_alone() {
    let node = Node::new();
    type Expected = fn(&LinkError) -> bool;
    let cases: [(&str, LinkConfig, Expected); 4] = [
        (
            "link add flannel.1 type vxlan id 1 dstport 8472 local 192.168.50.1 dev eth0 nolearning",
            vxlan(),
            |error| matches!(error, LinkError::VniTaken { holder, .. } if holder == "flannel.1"),
        ),
        ("link add overlay.1 type bridge", vxlan(), |error| matches!(error, LinkError::Foreign { .. })),
        ("link add overlay.0 type bridge", udp(), |error| matches!(error, LinkError::Foreign { .. })),
        ("tuntap add dev overlay.0 mode tun", udp(), |error| matches!(error, LinkError::Foreign { .. })),
    ];
    for (add, config, expected) in cases {
        node.netns.ip(add).unwrap();
        let before = node.state();
        let refused = create(&node, &config).unwrap_err();
        assert!(expected(&refused), "{add}: {refused}");
        assert_eq!(node.state(), before, "{add}");
        let name = add.split_whitespace().find(|word| word.contains('.')).unwrap();
        node.netns.ip(&format!("link del {name}")).unwrap();
    }
}

#[test]
fn a_failure_half_way_undoes_what_was_created() {
    let node = Node::new();
    let holder = node.netns.run(|| UdpSocket::bind(("0.0.0.0", VXLAN_PORT))).unwrap();
    let before = node.state();
    let refused = create(&node, &vxlan()).unwrap_err();
    assert!(matches!(refused, LinkError::PortInUse { port: VXLAN_PORT, .. }), "{refused}");
    assert_eq!(node.state(), before);
    drop(holder);

    node.netns.ip("route add 10.1.0.0/16 via 192.168.50.2").unwrap();
    node.netns.ip("route add fd00:1::/48 dev eth0").unwrap();
    let before = node.state();
    for config in kinds() {
        let refused = create(&node, &config).unwrap_err();
        assert!(matches!(&refused, LinkError::RouteTaken { holder, .. } if holder == "eth0"), "{refused}");
        assert_eq!(node.state(), before);
    }
}

#[test]
fn damage_to_the_device_is_repaired_and_its_loss_reported() {
    let node = Node::new();
    for config in kinds() {
        let name = config.name();
        node.run(async |handle| {
            let link = set_up(handle, &config).await.unwrap();
            let intact = node.state();
            let mut watch = LinkWatch::new(&config, &link).unwrap();
            let damage = [
                format!("link set {name} down"),
                format!("link set {name} arp on"),
                format!("link set {name} mtu 1300"),
                format!("link set {name} address 02:00:00:00:00:99"),
                format!("address flush dev {name}"),
                format!("route del {} dev {name}", shown(&config).network),
            ];
            for damage in damage {
                node.netns.ip(&damage).unwrap();
                while node.state() != intact {
                    let event = timeout(PATIENCE, watch.next()).await.unwrap_or_else(|_| panic!("{damage}: unnoticed"));
                    assert_eq!(event.unwrap(), LinkEvent::Repaired, "{damage}");
                }
            }
            set_mtu(handle, link.ifindex, 1200).await.unwrap();
            watch.expect_mtu(1200);
            node.netns.ip(&format!("link del {name}")).unwrap();
            while timeout(PATIENCE, watch.next()).await.expect("the loss is noticed").unwrap() != LinkEvent::Gone {}
        });
    }
}

#[test]
fn a_fresh_device_sends_nothing_by_itself() {
    let node = Node::new();
    let socket = node.netns.run(capture);
    // The control: an interface without these precautions does send, and the capture sees it.
    node.netns.veth("loud0", &node.peer, "loud0", 1500).unwrap();
    let loud = ifindex(&node, "loud0");
    let deadline = Instant::now() + PATIENCE;
    while sent_from(&socket, deadline).is_none_or(|ifindex| ifindex != loud) {
        assert!(Instant::now() < deadline, "the capture sees nothing at all");
    }
    let links = kinds().map(|mut config| {
        // Both at once: they need different networks.
        if matches!(config.kind, LinkKind::Udp) {
            config = with(&config, ["10.2.0.0/16", "10.2.15.0/24"], ["fd00:2::/48", "fd00:2:0:15::/64"]);
        }
        create(&node, &config).unwrap()
    });
    // Router solicitations start within a second of an interface coming up.
    let deadline = Instant::now() + Duration::from_millis(2500);
    while let Some(ifindex) = sent_from(&socket, deadline) {
        assert!(links.iter().all(|link| link.ifindex != ifindex), "interface {ifindex} has sent a packet");
    }
}

fn ifindex(node: &Node, name: &str) -> u32 {
    node.netns.ip(&format!("-o link show {name}")).unwrap().split(':').next().unwrap().parse().unwrap()
}

/// A socket that sees all packets of the namespace it is opened in.
fn capture() -> OwnedFd {
    let protocol = i32::from((libc::ETH_P_ALL as u16).to_be());
    // SAFETY: no memory is passed; the descriptor is checked before it is owned.
    let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, protocol) };
    assert!(fd >= 0, "open a packet socket: {}", std::io::Error::last_os_error());
    // SAFETY: fresh from the kernel, owned by nobody else.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// The index of the next interface that sends a packet, until `deadline`.
fn sent_from(socket: &OwnedFd, deadline: Instant) -> Option<u32> {
    loop {
        let left = deadline.checked_duration_since(Instant::now())?;
        let mut poll = libc::pollfd { fd: socket.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one valid pollfd, as the count says.
        if unsafe { libc::poll(&raw mut poll, 1, left.as_millis() as i32) } == 0 {
            return None;
        }
        let mut packet = [0u8; 64];
        // SAFETY: sockaddr_ll is plain data; all zeros are a valid value.
        let mut from: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        let mut length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        // SAFETY: buffer and address are writable for the lengths given and outlive the call.
        let received = unsafe {
            libc::recvfrom(
                socket.as_raw_fd(),
                packet.as_mut_ptr().cast(),
                packet.len(),
                0,
                (&raw mut from).cast(),
                &raw mut length,
            )
        };
        if received >= 0 && from.sll_pkttype == libc::PACKET_OUTGOING {
            return Some(from.sll_ifindex as u32);
        }
    }
}
