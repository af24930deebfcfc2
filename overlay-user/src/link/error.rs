//! [`LinkError`]: why there is no overlay device.

use ipnetwork::IpNetwork;
use nix::errno::Errno;

use crate::sysctl::SysctlError;

/// Why there is no overlay device.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// A netlink request failed.
    #[error("{action}")]
    Netlink {
        /// What was tried, on what.
        action: String,
        /// The kernel's answer.
        source: rtnetlink::Error,
    },
    /// The name is taken by a device that is not ours.
    #[error("set up {name}: a {kind} device of this name exists; remove it with `ip link del {name}`")]
    Foreign {
        /// The name.
        name: String,
        /// The kind of the device that has it.
        kind: String,
    },
    /// Another process has the TAP open.
    #[error("open {0}: another process has it open; is an agent for the same network running?")]
    Busy(String),
    /// Another VXLAN device has the same VNI and port.
    #[error(
        "create {name}: {holder} has VNI {vni} on port {port} already; stop what uses it (flanneld for flannel.*) \
         and remove it with `ip link del {holder}`"
    )]
    VniTaken {
        /// Our device.
        name: String,
        /// The other device.
        holder: String,
        /// The VXLAN network number.
        vni: u32,
        /// The UDP port.
        port: u16,
    },
    /// A socket that is not a VXLAN device has the port.
    #[error("bring up {name}: port {port}/udp is in use; see `ss -lunp sport = :{port}`")]
    PortInUse {
        /// Our device.
        name: String,
        /// The UDP port.
        port: u16,
    },
    /// The overlay network is routed elsewhere.
    #[error(
        "route {network} to {name}: it is routed to {holder} already; stop what routes it there (flanneld for flannel*), then run `ip route del {network} dev {holder}`"
    )]
    RouteTaken {
        /// The overlay network.
        network: IpNetwork,
        /// Our device.
        name: String,
        /// The device it is routed to.
        holder: String,
    },
    /// The TAP device could not be opened.
    #[error("open TAP device {name}")]
    Tap {
        /// Its name.
        name: String,
        /// Why.
        source: std::io::Error,
    },
    /// A kernel parameter could not be set.
    #[error(transparent)]
    Sysctl(#[from] SysctlError),
    /// A device is gone that was just there.
    #[error("set up {0}: the device vanished meanwhile")]
    Vanished(String),
    /// No netlink socket could be had, or it was closed.
    #[error("listen for changes of interfaces")]
    Socket(#[source] std::io::Error),
    /// The set-up failed, and undoing it as well.
    #[error("{error}; and then: {undo}")]
    NotUndone {
        /// Why the set-up failed.
        #[source]
        error: Box<LinkError>,
        /// Why it could not be undone.
        undo: Box<LinkError>,
    },
}

/// The error of a netlink request, given what was tried, on what.
pub(super) fn netlink(action: String) -> impl FnOnce(rtnetlink::Error) -> LinkError {
    move |source| LinkError::Netlink { action, source }
}

/// The kernel's error number, if the kernel has answered.
pub(super) fn errno(error: &rtnetlink::Error) -> Option<Errno> {
    match error {
        rtnetlink::Error::NetlinkError(message) => Some(Errno::from_raw(-message.raw_code())),
        _ => None,
    }
}
