//! [`Ours`]: which leases are this node's.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr};

use nix::ifaddrs::getifaddrs;
use overlay_common::LocalNode;

use crate::lease::{Backend, Lease};
use crate::maps::LocalNodeMap;
use crate::rundir::RunDir;

/// What makes a lease this node's: its PublicIP is an address of ours, or the overlay in the run directory lives on it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ours {
    addresses: BTreeSet<IpAddr>,
    overlay: Option<Overlay>,
}

/// The overlay in the run directory.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Overlay {
    subnet: (Ipv4Addr, u8),
    /// Of the devices.
    macs: Vec<[u8; 6]>,
}

impl Ours {
    /// The node that this process runs on. An overlay that cannot be read, as without root, counts as none.
    ///
    /// # Errors
    /// When the kernel does not tell its addresses.
    pub fn of_this_node(run_dir: &RunDir) -> io::Result<Self> {
        let addresses = getifaddrs()?.filter_map(|interface| {
            let address = interface.address?;
            let ipv4 = address.as_sockaddr_in().map(|address| address.ip().into());
            ipv4.or_else(|| address.as_sockaddr_in6().map(|address| address.ip().into()))
        });
        let local = run_dir.existing_maps().ok().and_then(|maps| LocalNodeMap::open(&maps).ok()?.get().ok());
        Ok(Self { addresses: addresses.collect(), overlay: local.as_ref().map(Overlay::of) })
    }

    /// Whether `lease` is ours.
    #[must_use]
    pub fn holds(&self, lease: &Lease) -> bool {
        self.addresses.contains(&lease.node.address())
            || self.overlay.as_ref().is_some_and(|overlay| overlay.lives_on(lease))
    }
}

impl Overlay {
    fn of(local: &LocalNode) -> Self {
        Self { subnet: local.range::<[u8; 4]>().subnet(), macs: local.devices().map(|device| device.mac).collect() }
    }

    /// A MAC address was drawn at random and settles it. Without one the subnet has to do.
    fn lives_on(&self, lease: &Lease) -> bool {
        match &lease.node.backend {
            Backend::Vxlan { v4, v6 } => v4.iter().chain(v6).any(|vtep| self.macs.contains(&vtep.mac.0)),
            _ => self.subnet == (lease.subnet.v4.ip(), lease.subnet.v4.prefix()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 7];

    fn lease(value: &str) -> Lease {
        Lease::parse("10.1.15.0-24", value.as_bytes()).unwrap()
    }

    fn vxlan(mac: &str) -> Lease {
        let data = format!(r#"{{"VNI":1,"VtepMAC":"{mac}"}}"#);
        lease(&format!(r#"{{"PublicIP":"192.0.2.9","BackendType":"vxlan","BackendData":{data}}}"#))
    }

    #[test]
    fn a_lease_with_an_address_of_ours_is_ours() {
        let ours = Ours { addresses: [IpAddr::from([192, 0, 2, 9])].into(), overlay: None };
        assert!(ours.holds(&lease(r#"{"PublicIP":"192.0.2.9"}"#)));
        assert!(!ours.holds(&lease(r#"{"PublicIP":"192.0.2.8"}"#)));
    }

    #[test]
    fn behind_a_nat_the_mac_address_or_else_the_subnet_tells() {
        let overlay = Overlay { subnet: (Ipv4Addr::new(10, 1, 15, 0), 24), macs: vec![MAC] };
        let ours = Ours { addresses: BTreeSet::new(), overlay: Some(overlay) };
        assert!(ours.holds(&vxlan("02:00:00:00:00:07")));
        assert!(!ours.holds(&vxlan("02:00:00:00:00:08")), "our subnet, taken by somebody else");
        assert!(ours.holds(&lease(r#"{"PublicIP":"192.0.2.9"}"#)));
    }
}
