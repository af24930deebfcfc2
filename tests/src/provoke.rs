//! [`Stage`]: makes a node drop a packet, for each [`Reason`] there is.
//!
//! A reason that is not provoked here does not compile; what shows drops to people is tested with all of them.

use std::net::Ipv4Addr;

use anyhow::{Context as _, Result};
use aya::{
    maps::{Map, MapData, PerCpuArray, PerCpuValues},
    util::nr_cpus,
};
use overlay_common::Reason;

use crate::{
    cluster::Cluster,
    netns::Netns,
    node::{Node, UNDERLAY_DEVICE},
    packet_socket::{PacketSocket, mac},
    packets::{ETHER_ARP, ETHER_IPV4, Ipv4, PROTO_UDP, ethernet, udp, vxlan},
    two_nodes::two,
};

/// The overlay device of the only backend that knows every reason, and its port.
const DEVICE: &str = "overlay.1";
const PORT: u16 = 8472;

/// Two nodes with vxlan and somebody on their link who sends the first of them what he likes.
pub struct Stage<'a> {
    victim: &'a Node,
    other: &'a Node,
    stranger: Ipv4Addr,
    /// Where the stranger sends.
    wire: PacketSocket,
    /// Where the victim routes packets into the overlay.
    overlay: PacketSocket,
    /// Where the victim's container sends.
    container: PacketSocket,
    underlay_mac: [u8; 6],
    vtep_mac: [u8; 6],
    _stranger: Netns,
}

impl<'a> Stage<'a> {
    /// Sets the stage on a cluster of two nodes with vxlan and a container each.
    ///
    /// # Errors
    /// When an interface is missing.
    pub fn new(cluster: &'a Cluster) -> Result<Self> {
        let [victim, other] = two(cluster);
        let (netns, stranger) = cluster.attach("stranger", 66)?;
        Ok(Self {
            victim,
            other,
            stranger,
            wire: PacketSocket::open(&netns, UNDERLAY_DEVICE)?,
            overlay: PacketSocket::open(victim.netns(), DEVICE)?,
            container: PacketSocket::open(&victim.container().netns, "eth0")?,
            underlay_mac: mac(victim.netns(), UNDERLAY_DEVICE)?,
            vtep_mac: mac(victim.netns(), DEVICE)?,
            _stranger: netns,
        })
    }

    /// The node that drops.
    #[must_use]
    pub fn victim(&self) -> &Node {
        self.victim
    }

    /// Makes the victim drop at least one packet for `reason`, soon.
    ///
    /// # Errors
    /// When the packet cannot be sent.
    pub fn provoke(&self, reason: Reason) -> Result<()> {
        let (own, remote) = (self.victim.container().address, self.other.container().address);
        let node = self.other.address();
        let payload = || udp(1234, 4242, b"dropped");
        let inner = || Ipv4::new(remote, own, PROTO_UDP, payload());
        let routed = |source: Ipv4Addr, destination: Ipv4Addr| {
            self.send_to_overlay(ETHER_IPV4, &Ipv4::new(source, destination, PROTO_UDP, payload()).bytes())
        };
        let carried = |inner: &Ipv4| self.outer(node, &self.frame(&inner.bytes()));
        match reason {
            Reason::NotIpv4 => self.send_to_overlay(ETHER_ARP, &[0; 28]),
            Reason::NotUnicast => routed(own, [224, 0, 0, 251].into()),
            Reason::OutsideNetwork => routed(own, [192, 0, 2, 1].into()),
            Reason::OwnSubnet => routed(own, own),
            Reason::NoRoute => routed(own, [10, 1, 250, 1].into()),
            Reason::SourceNotOurs => routed(remote, remote),
            Reason::Truncated => self.send_on_wire(&self.outer(node, &[8, 0, 0, 0])),
            Reason::BadLength => self.send_on_wire(&carried(&Ipv4 { total_length: Some(500), ..inner() })),
            Reason::BadHeader => self.send_on_wire(&carried(&Ipv4 { version_and_length: Some(0x65), ..inner() })),
            Reason::UnknownNode => self.send_on_wire(&self.outer(self.stranger, &self.frame(&inner().bytes()))),
            Reason::SourceNotTheirs => {
                self.send_on_wire(&carried(&Ipv4 { source: Ipv4Addr::new(10, 2, 3, 4), ..inner() }))
            }
            Reason::DestinationNotOurs => {
                self.send_on_wire(&carried(&Ipv4 { destination: Ipv4Addr::new(10, 1, 250, 1), ..inner() }))
            }
            Reason::WrongVni => {
                let frame = ethernet(self.vtep_mac, [2; 6], ETHER_IPV4, &inner().bytes());
                self.send_on_wire(&self.outer(node, &vxlan(8, 2, &frame)))
            }
            Reason::BadVxlanFlags => {
                let frame = ethernet(self.vtep_mac, [2; 6], ETHER_IPV4, &inner().bytes());
                self.send_on_wire(&self.outer(node, &vxlan(0x88, 1, &frame)))
            }
            Reason::InnerNotIpv4 => {
                let frame = ethernet(self.vtep_mac, [2; 6], ETHER_ARP, &[0; 28]);
                self.send_on_wire(&self.outer(node, &vxlan(8, 1, &frame)))
            }
            Reason::WrongVtepMac => {
                let frame = ethernet([2; 6], [2; 6], ETHER_IPV4, &inner().bytes());
                self.send_on_wire(&self.outer(node, &vxlan(8, 1, &frame)))
            }
            Reason::NotEncapsulated => self.send_on_wire(&inner()),
            Reason::CeOnNotEct => self.send_on_wire(&Ipv4 { tos: 3, ..carried(&inner()) }),
            Reason::NotAccepted => {
                // A VXLAN device of the kernel takes packets to every address of the node.
                let another = Ipv4Addr::new(192, 168, 50, 201);
                self.victim.netns().ip(&format!("address replace {another}/24 dev {UNDERLAY_DEVICE}"))?;
                self.send_on_wire(&Ipv4 { destination: another, ..carried(&inner()) })
            }
            Reason::SpoofedNeighbour => {
                let packet = Ipv4::new(self.victim.subnet().gateway, remote, PROTO_UDP, payload());
                self.container.send(&ethernet([255; 6], [2; 6], ETHER_IPV4, &packet.bytes()))
            }
            // What the kernel refuses differs from version to version, and no packet is known that this one does.
            Reason::EncapRefused | Reason::DecapRefused => self.count_one(reason),
        }
    }

    /// Hands a packet to the overlay device, as the kernel's routing would.
    fn send_to_overlay(&self, ether_type: u16, packet: &[u8]) -> Result<()> {
        // The sender is told of the drop as of a full queue: that it was one is for the caller to see.
        self.overlay.send(&ethernet(self.vtep_mac, self.vtep_mac, ether_type, packet)).or(Ok(()))
    }

    fn send_on_wire(&self, packet: &Ipv4) -> Result<()> {
        self.wire.send(&ethernet(self.underlay_mac, [2; 6], ETHER_IPV4, &packet.bytes()))
    }

    /// The VXLAN payload that carries `inner`.
    fn frame(&self, inner: &[u8]) -> Vec<u8> {
        vxlan(8, 1, &ethernet(self.vtep_mac, [2; 6], ETHER_IPV4, inner))
    }

    fn outer(&self, source: Ipv4Addr, payload: &[u8]) -> Ipv4 {
        Ipv4::new(source, self.victim.address(), PROTO_UDP, udp(PORT, PORT, payload))
    }

    /// Counts a drop where the programs would.
    fn count_one(&self, reason: Reason) -> Result<()> {
        let path = self.victim.run_dir().join("bpf/v1/maps/DROPS");
        let map = Map::from_map_data(MapData::from_pin(&path)?)?;
        let mut drops: PerCpuArray<_, u64> = map.try_into()?;
        let cpus = nr_cpus().map_err(|(_, error)| error).context("count the CPUs")?;
        drops.set(reason.index(), PerCpuValues::try_from(vec![1; cpus])?, 0)?;
        Ok(())
    }
}
