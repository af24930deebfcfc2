//! [`Stage`]: makes a node drop a packet, for each [`Reason`] there is.
//!
//! A reason that is not provoked here does not compile; what shows drops to people is tested with all of them.

use std::net::{Ipv4Addr, UdpSocket};

use anyhow::{Context as _, Result};
use aya::{
    maps::{Map, MapData, PerCpuArray, PerCpuValues},
    util::nr_cpus,
};
use overlay_common::Reason;

use crate::{
    cluster::Cluster,
    netns::Netns,
    node::{Node, UNDERLAY_DEVICE, VETH},
    packet_socket::{PacketSocket, mac},
    packets::{ETHER_ARP, ETHER_IPV4, Ipv4, PROTO_UDP, ethernet, udp, vxlan},
    two_nodes::two,
};

/// The overlay device of the only backend that knows every reason, and its port.
const DEVICE: &str = "overlay.1";
const PORT: u16 = 8472;

/// An address of a subnet that nobody leases.
const NOBODY: Ipv4Addr = Ipv4Addr::new(10, 1, 250, 1);

/// Who is reached through the container's own tunnel.
const NESTED_NEIGHBOUR: Ipv4Addr = Ipv4Addr::new(10, 9, 9, 2);

/// An address of the victim on the underlay that is not its VTEP's.
const SECOND_ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 168, 50, 201);

/// A frame that a node drops.
#[derive(Debug)]
pub struct Provocation {
    /// Its bytes.
    pub frame: Vec<u8>,
    /// Where the node gets it.
    pub at: Place,
}

/// Where a node gets a frame from.
#[derive(Debug, Clone, Copy)]
pub enum Place {
    /// Its container sends it.
    Container,
    /// It routes it into the overlay.
    Overlay,
    /// It comes in on the underlay.
    Underlay,
}

impl Place {
    /// The node's interface there.
    #[must_use]
    pub const fn interface(self) -> &'static str {
        match self {
            Self::Container => VETH,
            Self::Overlay => DEVICE,
            Self::Underlay => UNDERLAY_DEVICE,
        }
    }
}

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
    /// When an interface is missing, or the victim's second address is refused.
    pub fn new(cluster: &'a Cluster) -> Result<Self> {
        let [victim, other] = two(cluster);
        let (netns, stranger) = cluster.attach("stranger", 66)?;
        victim.netns().ip(&format!("address add {SECOND_ADDRESS}/24 dev {UNDERLAY_DEVICE}"))?;
        nest(&victim.container().netns, other.container().v4())?;
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
        let Some(Provocation { frame, at }) = self.provocation(reason) else {
            return if reason == Reason::EncapRefused { self.send_nested() } else { self.count_one(reason) };
        };
        match at {
            Place::Container => self.container.send(&frame),
            // The sender is told of the drop as of a full queue: that it was one is for the caller to see.
            Place::Overlay => self.overlay.send(&frame).or(Ok(())),
            Place::Underlay => self.wire.send(&frame),
        }
    }

    /// The frame that the victim drops for `reason`; `None` where it is not for its bytes, but for what the kernel knows of it.
    #[must_use]
    pub fn provocation(&self, reason: Reason) -> Option<Provocation> {
        let (own, remote) = (self.victim.container().v4(), self.other.container().v4());
        let node = self.other.address();
        let payload = || udp(1234, 4242, b"dropped");
        let inner = || Ipv4::new(remote, own, PROTO_UDP, payload());
        let routed = |source: Ipv4Addr, destination: Ipv4Addr| {
            self.to_overlay(ETHER_IPV4, &Ipv4::new(source, destination, PROTO_UDP, payload()).bytes())
        };
        let outer = |payload: &[u8]| self.outer(node, payload);
        let framed = |ether_type: u16, bytes: &[u8]| ethernet(self.vtep_mac, [2; 6], ether_type, bytes);
        let tunnel = |inner: &Ipv4| vxlan(8, 1, &framed(ETHER_IPV4, &inner.bytes()));
        Some(match reason {
            Reason::NotIpv4 => self.to_overlay(ETHER_ARP, &[0; 28]),
            Reason::NotUnicast => routed(own, [224, 0, 0, 251].into()),
            Reason::OutsideNetwork => routed(own, [192, 0, 2, 1].into()),
            Reason::OwnSubnet => routed(own, own),
            Reason::NoRoute => routed(own, NOBODY),
            Reason::SourceNotOurs => routed(remote, remote),
            Reason::Truncated => self.on_wire(&outer(&[8, 0, 0, 0])),
            Reason::BadLength => self.on_wire(&outer(&tunnel(&Ipv4 { total_length: Some(500), ..inner() }))),
            Reason::BadHeader => self.on_wire(&outer(&tunnel(&Ipv4 { version_and_length: Some(0x65), ..inner() }))),
            Reason::UnknownNode => self.on_wire(&self.outer(self.stranger, &tunnel(&inner()))),
            Reason::SourceNotTheirs => {
                self.on_wire(&outer(&tunnel(&Ipv4 { source: Ipv4Addr::new(10, 2, 3, 4), ..inner() })))
            }
            Reason::DestinationNotOurs => self.on_wire(&outer(&tunnel(&Ipv4 { destination: NOBODY, ..inner() }))),
            Reason::WrongVni => self.on_wire(&outer(&vxlan(8, 2, &framed(ETHER_IPV4, &inner().bytes())))),
            Reason::BadVxlanFlags => self.on_wire(&outer(&vxlan(0x88, 1, &framed(ETHER_IPV4, &inner().bytes())))),
            Reason::InnerNotIpv4 => self.on_wire(&outer(&vxlan(8, 1, &framed(ETHER_ARP, &[0; 28])))),
            Reason::WrongVtepMac => {
                let frame = ethernet([2; 6], [2; 6], ETHER_IPV4, &inner().bytes());
                self.on_wire(&outer(&vxlan(8, 1, &frame)))
            }
            Reason::NotEncapsulated => self.on_wire(&inner()),
            Reason::CeOnNotEct => self.on_wire(&Ipv4 { tos: 3, ..outer(&tunnel(&inner())) }),
            // A VXLAN device of the kernel takes packets to every address of the node.
            Reason::NotAccepted => self.on_wire(&Ipv4 { destination: SECOND_ADDRESS, ..outer(&tunnel(&inner())) }),
            Reason::SpoofedNeighbour => {
                let packet = Ipv4::new(self.victim.subnet().gateway(), remote, PROTO_UDP, payload());
                let frame = ethernet([255; 6], [2; 6], ETHER_IPV4, &packet.bytes());
                Provocation { frame, at: Place::Container }
            }
            Reason::EncapRefused | Reason::DecapRefused => return None,
        })
    }

    /// A packet in the overlay device, as the kernel's routing would bring it there.
    fn to_overlay(&self, ether_type: u16, packet: &[u8]) -> Provocation {
        Provocation { frame: ethernet(self.vtep_mac, self.vtep_mac, ether_type, packet), at: Place::Overlay }
    }

    fn on_wire(&self, packet: &Ipv4) -> Provocation {
        Provocation { frame: ethernet(self.underlay_mac, [2; 6], ETHER_IPV4, &packet.bytes()), at: Place::Underlay }
    }

    /// A tunnel packet to the victim.
    fn outer(&self, source: Ipv4Addr, payload: &[u8]) -> Ipv4 {
        Ipv4::new(source, self.victim.address(), PROTO_UDP, udp(PORT, PORT, payload))
    }

    /// Has the container send a packet through the tunnel device in it.
    fn send_nested(&self) -> Result<()> {
        let socket = self.victim.container().netns.run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)))?;
        socket.send_to(b"nested", (NESTED_NEIGHBOUR, 4242)).context("send through a tunnel in the container")?;
        Ok(())
    }

    /// Counts a drop where the programs would.
    ///
    /// Of what comes so far, the kernel refuses to shorten super-packets that are neither of TCP nor of UDP segments (and what
    /// it has no memory for). Those of SCTP never come so far: they are the kernel's own VXLAN device's. Those of UDP that is
    /// to be fragmented would have to come by the underlay, and in front of a veth, which has no offload for them, the kernel
    /// cuts them up. `BPF_PROG_TEST_RUN` can make them: the tests of `from_underlay` against the model do.
    fn count_one(&self, reason: Reason) -> Result<()> {
        let path = self.victim.run_dir().join("bpf/v1/maps/DROPS");
        let map = Map::from_map_data(MapData::from_pin(&path)?)?;
        let mut drops: PerCpuArray<_, u64> = map.try_into()?;
        let cpus = nr_cpus().map_err(|(_, error)| error).context("count the CPUs")?;
        drops.set(reason.index(), PerCpuValues::try_from(vec![1; cpus])?, 0)?;
        Ok(())
    }
}

/// Makes a tunnel device in a container: what a socket sends through it to [`NESTED_NEIGHBOUR`] is for `remote`, is
/// encapsulated already, and leaves the checksums to the hardware. The kernel encapsulates no such packet once more.
fn nest(container: &Netns, remote: Ipv4Addr) -> Result<()> {
    // It sends nothing of its own accord.
    container.sysctl("net.ipv6.conf.default.disable_ipv6", "1")?;
    for arguments in [
        &format!("link add nested type vxlan id 7 dev eth0 remote {remote} dstport 4789"),
        "address add 10.9.9.1/24 dev nested",
        "link set dev nested up",
        &format!("neighbour add {NESTED_NEIGHBOUR} lladdr 02:00:00:00:00:07 dev nested"),
    ] {
        container.ip(arguments)?;
    }
    Ok(())
}
