//! [`Advice`]: what a [`Reason`] means to an operator. The one place for it: every command, every metric and the table in
//! `bpf-maps.md` take it from here.

use super::Reason;

/// What a reason means, and what to look at when its count rises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Advice {
    /// What packets were, and by whose doing, in one sentence.
    pub meaning: &'static str,
    /// What to look at first.
    pub hint: &'static str,
}

impl Reason {
    /// What the reason means to an operator.
    #[must_use]
    pub const fn advice(self) -> Advice {
        let (meaning, hint) = match self {
            Self::NotIpv4 => (
                "the node sent ARP, or IPv6 or IPv4 that the network config does not enable, into the overlay device",
                "a few are harmless; for many, look for addresses or a bridge on the overlay device: `ip address show`, `bridge link`",
            ),
            Self::Truncated => (
                "a packet ended inside an Ethernet, IP, UDP, VXLAN or ARP header",
                "something forges or damages packets: capture on the interface they come by (`tcpdump -e`)",
            ),
            Self::BadLength => (
                "a length field did not agree with the packet that carried it",
                "something forges or damages packets: capture outer packets on the underlay interface and compare with the sender",
            ),
            Self::BadHeader => (
                "an inner IP header was none of its version, or shorter than one",
                "something forges or damages packets, or speaks another protocol on the tunnel's port: capture there",
            ),
            Self::NotUnicast => (
                "a packet for a broadcast, multicast, loopback or link-local address was routed into the overlay",
                "a route leads such addresses to the overlay device: `ip route show table all`",
            ),
            Self::OutsideNetwork => (
                "a packet for an address outside the overlay network was routed into the overlay",
                "a route leads more than the overlay network to the overlay device: `ip route show table all`",
            ),
            Self::OwnSubnet => (
                "a container of this node's own subnet was called, and the bridge's route was not there to take it",
                "the bridge is down, or lacks its address of this node's subnet: `ip address`, `overlay map dump LOCAL_NODE`",
            ),
            Self::NoRoute => (
                "a packet was for a subnet that no node holds; the sender was told with ICMP",
                "the container is gone, or its node has lost its lease: `overlay lease list`, and the agent on that node",
            ),
            Self::SourceNotOurs => (
                "a container or a process on this node sent with an overlay address of another node's subnet",
                "a container with an address from elsewhere, or a forger: find it by `--log-drops`, compare with subnet.env",
            ),
            Self::EncapRefused => (
                "the kernel refused to put outer headers in front of a packet",
                "a container that sends tunnel packets of its own through the overlay: `ethtool -K DEVICE tx off` there, on its tunnel device",
            ),
            Self::UnknownNode => (
                "a tunnel packet came from an address that no lease names",
                "a node whose lease is gone or names another PublicIP, NAT between the nodes, or a stranger: `overlay lease list`",
            ),
            Self::SourceNotTheirs => (
                "a node sent a packet with an inner source outside its own subnet",
                "that node's masquerading or containers, or two nodes that claim one subnet: `overlay lease list`, `overlay map dump NODES`",
            ),
            Self::DestinationNotOurs => (
                "a node sent us a packet for a container that is not in our subnet",
                "the sender's routes are stale, or this node's lease was lost: `overlay map dump LOCAL_NODE` here, ROUTES there",
            ),
            Self::WrongVni => (
                "a tunnel packet carried the VXLAN network number of another network",
                "another VXLAN on the same port, or a node with another `VNI` in its network config: `overlay config get`",
            ),
            Self::BadVxlanFlags => (
                "a tunnel packet carried VXLAN flags that ask for an extension",
                "another kind of VXLAN (GBP, GPE) on the same port: choose another `Port` in the network config",
            ),
            Self::InnerNotIpv4 => (
                "a VXLAN frame carried ARP, or IPv6 or IPv4 that the network config does not enable",
                "another VXLAN on the same port, or a peer with another network config or ARP on its overlay device",
            ),
            Self::NotEncapsulated => (
                "a packet with a container's source address came in on the underlay without a tunnel",
                "forged, or a node with `DirectRouting` that this one does not have on its link: `overlay map dump ROUTES`",
            ),
            Self::CeOnNotEct => (
                "a router marked congestion on a packet whose sender does not understand the mark (RFC 6040)",
                "a router that marks packets without ECN: mend its queue; packets are lost as the standard asks",
            ),
            Self::DecapRefused => (
                "the kernel refused to take the outer headers off a packet",
                "an offload that leaves packets in a shape the kernel cannot change: `ethtool -k` on the underlay interface",
            ),
            Self::WrongVtepMac => (
                "a VXLAN frame was addressed to a MAC address that is not this node's VTEP's",
                "the sender has an old lease of this node, or this node's MAC changed: compare `overlay map dump LOCAL_NODE` with ROUTES there",
            ),
            Self::NotAccepted => (
                "a tunnel packet reached this node by another interface than the underlay's, or for another of its addresses",
                "two interfaces on one link (set `net.ipv4.conf.all.arp_ignore=1`), or somebody on this node who forges: `ip address`",
            ),
            Self::SpoofedNeighbour => (
                "a container sent with the address of another container or of the node, spoke as a router, or hid its source",
                "a forger, or one address given twice: find the container by `--log-drops` and `overlay map dump ENDPOINTS`",
            ),
        };
        Advice { meaning, hint }
    }
}
