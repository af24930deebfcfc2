//! Addresses of devices and routes to others, alike for both families.

use std::{net::IpAddr, time::Duration};

use anyhow::Result;
use ipnetwork::IpNetwork;

use super::Netns;
use crate::{packets::ndp, process::wait_until};

/// How long the kernel may take for what it does when it comes to it.
const LIMIT: Duration = Duration::from_secs(5);

impl Netns {
    /// Gives `device` the address in `address`, and its namespace the route to the others of that network.
    ///
    /// The address can be used at once: nobody looks for another device that has it (RFC 4862, section 5.4), and this one
    /// already hears who asks for it.
    ///
    /// # Errors
    ///
    /// When `ip` fails, for example because there is no such device; for IPv6 also when nobody can ask for a neighbour on
    /// it, as on loopback.
    pub fn add_address(&self, device: &str, address: IpNetwork) -> Result<()> {
        let IpNetwork::V6(v6) = address else {
            return self.ip(&format!("address add {address} dev {device}")).map(drop);
        };
        self.ip(&format!("address add {address} dev {device} nodad"))?;
        let group = format!(" {} ", ndp::solicited_node(v6.ip()));
        let listens = || {
            let groups = self.ip(&format!("-6 maddress show dev {device}"));
            groups.is_ok_and(|groups| format!("{groups} ").replace('\n', " ").contains(&group))
        };
        wait_until(&format!("{device} to listen to{group}"), LIMIT, listens)
    }

    /// Routes everything that has no other route to `gateway`.
    ///
    /// # Errors
    ///
    /// When `ip` fails, as for a gateway on no link.
    pub fn add_default_route(&self, gateway: IpAddr) -> Result<()> {
        self.ip(&format!("route add default via {gateway}")).map(drop)
    }

    /// Lets the namespace forward packets of the family of `address`.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn forward_family_of(&self, address: IpAddr) -> Result<()> {
        match address {
            IpAddr::V4(_) => self.sysctl("net.ipv4.ip_forward", "1"),
            IpAddr::V6(_) => self.sysctl("net.ipv6.conf.all.forwarding", "1"),
        }
    }

    /// Waits until `device` has a link-local address: the kernel makes it some time after the device's link is up, and
    /// asks for no neighbour on behalf of packets that it forwards as long as it has none.
    ///
    /// # Errors
    ///
    /// When it gets none, as when its link stays down.
    pub fn wait_link_local(&self, device: &str) -> Result<()> {
        let usable = || {
            let shown = self.ip(&format!("-6 -o address show dev {device} scope link -tentative"));
            shown.is_ok_and(|addresses| !addresses.is_empty())
        };
        wait_until(&format!("a link-local address of {device}"), LIMIT, usable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traffic::ping;

    #[test]
    fn addresses_of_either_family_can_be_used_at_once() {
        let (left, right) = (Netns::new().unwrap(), Netns::new().unwrap());
        left.veth("a", &right, "b", 1500).unwrap();
        for (near, far) in [("192.0.2.1/24", "192.0.2.2/24"), ("2001:db8::1/64", "2001:db8::2/64")] {
            let far: IpNetwork = far.parse().unwrap();
            left.add_address("a", near.parse().unwrap()).unwrap();
            right.add_address("b", far).unwrap();
            assert_eq!(ping(&left, far.ip(), 1).unwrap().received, 1, "{far}");
        }
    }

    #[test]
    fn packets_of_either_family_are_forwarded_once_the_router_can_ask_for_its_neighbours() {
        let [near, router, far] = [(); 3].map(|()| Netns::new().unwrap());
        near.veth("a", &router, "to-near", 1500).unwrap();
        router.veth("to-far", &far, "b", 1500).unwrap();
        for [host, gateway, other_gateway, other] in [
            ["192.0.2.2/24", "192.0.2.1/24", "198.51.100.1/24", "198.51.100.2/24"],
            ["2001:db8:1::2/64", "2001:db8:1::1/64", "2001:db8:2::1/64", "2001:db8:2::2/64"],
        ] {
            let [host, gateway, other_gateway, other] =
                [host, gateway, other_gateway, other].map(|address| address.parse::<IpNetwork>().unwrap());
            near.add_address("a", host).unwrap();
            router.add_address("to-near", gateway).unwrap();
            router.add_address("to-far", other_gateway).unwrap();
            far.add_address("b", other).unwrap();
            near.add_default_route(gateway.ip()).unwrap();
            far.add_default_route(other_gateway.ip()).unwrap();
            router.forward_family_of(gateway.ip()).unwrap();
            ["to-near", "to-far"].iter().for_each(|device| router.wait_link_local(device).unwrap());
            assert_eq!(ping(&near, other.ip(), 1).unwrap().received, 1, "{other}");
        }
    }
}
