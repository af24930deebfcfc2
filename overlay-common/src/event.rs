//! [`Event`]: one step of what a program does with a packet, as `overlay trace` is told it.

use core::net::IpAddr;

use crate::{
    UnderlayAddress,
    address::{halves, unmapped},
};

/// Writes an enum that travels as a number, and the way back from the number.
macro_rules! numbered {
    ($(#[$outer:meta])* $name:ident { $($(#[$inner:meta])* $variant:ident = $number:literal,)* }) => {
        $(#[$outer])*
        #[repr(u8)]
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum $name { $($(#[$inner])* $variant = $number,)* }

        impl $name {
            /// The variant with this number.
            #[must_use]
            pub const fn from_number(number: u8) -> Option<Self> {
                match number {
                    $($number => Some(Self::$variant),)*
                    _ => None,
                }
            }
        }
    };
}

numbered! {
    /// The program that an [`Event`] comes from.
    Program {
        /// TC ingress of a container's veth.
        FromContainer = 0,
        /// TC egress of a container's veth.
        ToContainer = 1,
        /// TC egress of the overlay device.
        ToOverlay = 2,
        /// TC ingress of the underlay interface.
        FromUnderlay = 3,
        /// TC ingress of the overlay device of VXLAN.
        Admit = 4,
        /// XDP on the underlay interface.
        XdpDecap = 5,
    }
}

impl Program {
    /// Every program, in the order of their numbers.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..).map_while(Self::from_number)
    }

    /// The name of the program.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::FromContainer => "from_container",
            Self::ToContainer => "to_container",
            Self::ToOverlay => "to_overlay",
            Self::FromUnderlay => "from_underlay",
            Self::Admit => "admit",
            Self::XdpDecap => "xdp_decap",
        }
    }
}

numbered! {
    /// What an [`Event`] tells. In brackets: what its [`value`](Event::value) and [`mac`](Event::mac) hold.
    Step {
        /// The program has been given the packet [index of the interface].
        Seen = 0,
        /// Nobody is known to have the source address, which is one of this node's subnet.
        UnknownSource = 1,
        /// It does not take the fast path [number of a [`Slow`]].
        Slow = 2,
        /// There is a route to the destination, [`node`](Event::node) is the next hop; from a container: on the fast path [MAC
        /// of its VTEP].
        Route = 3,
        /// Outer headers are in front [UDP source port].
        Encapsulated = 4,
        /// A tunnel packet from a [`node`](Event::node) that may send it.
        Accepted = 5,
        /// The outer headers are gone.
        Decapsulated = 6,
        /// A fragment of a tunnel packet, which the kernel reassembles first.
        Fragment = 7,
        /// The mark is left that `admit` asks for.
        Marked = 8,
        /// Netfilter's approval of this direction is noted, as far as the packet has been seen in front of it.
        BehindNetfilter = 9,
        /// It goes out of an interface, to a MAC address that is known [its index].
        Out = 10,
        /// It goes out of an interface; the kernel finds the next hop's MAC address [its index].
        ToNeighbour = 11,
        /// It comes in on an interface, as if it had been received there [its index].
        In = 12,
        /// It goes into the container behind an interface: the fast path [its index].
        IntoPeer = 13,
        /// The program lets it go on to the kernel.
        Passed = 14,
        /// The program drops it [number of a [`Reason`](crate::Reason)].
        Dropped = 15,
    }
}

numbered! {
    /// Why a packet does not take the fast path.
    Slow {
        /// The fast path is off.
        Off = 0,
        /// It is not for another node.
        NotRemote = 1,
        /// It is a fragment, has IP options, or is neither TCP nor UDP.
        Unfit = 2,
        /// It opens or closes a connection.
        Control = 3,
        /// Netfilter has not let both directions of its flow through unchanged a moment ago.
        NotApproved = 4,
        /// The approval is about to end: this packet renews it.
        Renewal = 5,
        /// Its source address is not known to be the sender's.
        UnknownSource = 6,
        /// Its TTL ends here.
        Ttl = 7,
        /// It does not fit the overlay MTU.
        TooBig = 8,
        /// Nobody leases the destination's subnet.
        NoRoute = 9,
        /// The container with the destination address is not known.
        NoEndpoint = 10,
        /// The other node insists on a UDP checksum over IPv6, which the kernel's device computes.
        Checksum = 11,
    }
}

impl Slow {
    /// The same in words.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Off => "the fast path is off",
            Self::NotRemote => "it is not for another node",
            Self::Unfit => "only whole TCP and UDP packets without IP options take the fast path",
            Self::Control => "it opens or closes a connection: conntrack must see it",
            Self::NotApproved => "netfilter has not let both directions of the flow through a moment ago",
            Self::Renewal => "it renews netfilter's approval of the flow",
            Self::UnknownSource => "its source address is not known to be the sender's",
            Self::Ttl => "its TTL ends here",
            Self::TooBig => "it does not fit the overlay MTU",
            Self::NoRoute => "nobody leases the destination's subnet",
            Self::NoEndpoint => "the container with the destination address is not known",
            Self::Checksum => "the other node wants a UDP checksum, which the kernel's VXLAN device computes",
        }
    }
}

/// What tells packets of one flow from others: addresses, ports (0 where there are none) and protocol, as the containers
/// know them. Addresses are [mapped](crate::Address::mapped); all is zero of what is not IP. Aligned, so that programs read words.
#[repr(C, align(8))]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tuple {
    source: [u8; 16],
    destination: [u8; 16],
    source_port: [u8; 2],
    destination_port: [u8; 2],
    protocol: u8,
    _pad: [u8; 3],
}

const _: () = assert!(size_of::<Tuple>() == 40 && align_of::<Tuple>() == 8);

impl Tuple {
    /// From `source` to `destination`, mapped addresses with ports in network order.
    #[must_use]
    #[inline(always)]
    pub const fn new(protocol: u8, source: ([u8; 16], [u8; 2]), destination: ([u8; 16], [u8; 2])) -> Self {
        Self {
            source: source.0,
            destination: destination.0,
            source_port: source.1,
            destination_port: destination.1,
            protocol,
            _pad: [0; 3],
        }
    }

    /// Source and destination, each an address and a port, as numbers that stand in memory as the bytes do.
    #[inline(always)]
    pub(crate) const fn ends(&self) -> [([u64; 2], u16); 2] {
        [
            (halves(self.source), u16::from_ne_bytes(self.source_port)),
            (halves(self.destination), u16::from_ne_bytes(self.destination_port)),
        ]
    }

    /// Where packets come from: address and port.
    #[must_use]
    pub const fn source(&self) -> (IpAddr, u16) {
        (unmapped(self.source), u16::from_be_bytes(self.source_port))
    }

    /// Where they go: address and port.
    #[must_use]
    pub const fn destination(&self) -> (IpAddr, u16) {
        (unmapped(self.destination), u16::from_be_bytes(self.destination_port))
    }

    /// IP protocol number, or the first extension header's; `None` for what is not IP.
    #[must_use]
    pub fn protocol(&self) -> Option<u8> {
        (*self != Self::default()).then_some(self.protocol)
    }

    /// The same number, 0 for what is not IP.
    #[inline(always)]
    pub(crate) const fn protocol_number(&self) -> u8 {
        self.protocol
    }
}

/// One step of what a program does with a packet.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    /// When, in nanoseconds since boot.
    pub time: u64,
    /// The packet, as the program got it.
    pub tuple: Tuple,
    /// The other node, from the step on that finds it.
    pub node: UnderlayAddress,
    /// Length of the packet in bytes, Ethernet header included.
    pub length: u32,
    value: u32,
    mac: [u8; 6],
    program: u8,
    step: u8,
}

const _: () = assert!(size_of::<Event>() == 80 && align_of::<Event>() == 8);

impl Event {
    /// Makes this the first event of a program about a packet of which nothing more is known yet.
    // In place, as all that programs do with an event: it takes much stack.
    #[inline(always)]
    pub fn begin(&mut self, program: Program, length: u32) {
        (self.time, self.length, self.value, self.mac) = (0, length, 0, [0; 6]);
        (self.program, self.step) = (program as u8, Step::Seen as u8);
        self.tuple = Tuple::default();
        self.node = UnderlayAddress::default();
    }

    /// Makes this the next event about the same packet. `mac` is a MAC address in the lower six bytes, as they stand in
    /// memory.
    #[inline(always)]
    pub const fn go_on(&mut self, time: u64, step: u8, value: u32, mac: u64) {
        let [a, b, c, d, e, f, ..] = mac.to_ne_bytes();
        (self.time, self.step, self.value, self.mac) = (time, step, value, [a, b, c, d, e, f]);
    }

    /// The event in the bytes of the ring buffer; `None` when they are not one.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (time, bytes) = bytes.split_first_chunk()?;
        let (source, bytes) = bytes.split_first_chunk()?;
        let (destination, bytes) = bytes.split_first_chunk()?;
        let (source_port, bytes) = bytes.split_first_chunk()?;
        let (destination_port, bytes) = bytes.split_first_chunk()?;
        let ([protocol, ..], bytes) = bytes.split_first_chunk::<4>()?;
        let (node, bytes) = bytes.split_first_chunk::<16>()?;
        let (length, bytes) = bytes.split_first_chunk()?;
        let (value, bytes) = bytes.split_first_chunk()?;
        let (mac, bytes) = bytes.split_first_chunk()?;
        let [program, step] = *bytes else { return None };
        let tuple = Tuple::new(*protocol, (*source, *source_port), (*destination, *destination_port));
        let (time, node) = (u64::from_ne_bytes(*time), (*node).into());
        let (length, value) = (u32::from_ne_bytes(*length), u32::from_ne_bytes(*value));
        Some(Self { time, tuple, node, length, value, mac: *mac, program, step })
    }

    /// The program; `None` in an event of another version.
    #[must_use]
    pub const fn program(&self) -> Option<Program> {
        Program::from_number(self.program)
    }

    /// What it tells; `None` in an event of another version.
    #[must_use]
    pub const fn step(&self) -> Option<Step> {
        Step::from_number(self.step)
    }

    /// The number that goes with the step.
    #[must_use]
    pub const fn value(&self) -> u32 {
        self.value
    }

    /// The MAC address that goes with the step.
    #[must_use]
    pub const fn mac(&self) -> [u8; 6] {
        self.mac
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, vec::Vec};

    use super::*;
    use crate::Address as _;

    /// What lies in the ring buffer before anybody writes there.
    fn blank() -> Event {
        let (tuple, node) = (Tuple::new(9, ([9; 16], [9; 2]), ([9; 16], [9; 2])), [9_u8; 16].into());
        Event { time: 9, tuple, node, length: 9, value: 9, mac: [9; 6], program: 9, step: 9 }
    }

    #[test]
    fn an_event_is_read_as_it_was_written() {
        let (source, destination) = ([10, 1, 2, 3].mapped(), [0xfd; 16].mapped());
        let mac = u64::from_ne_bytes([1, 2, 3, 4, 5, 6, 0, 0]);
        let mut event = blank();
        event.begin(Program::ToOverlay, 74);
        event.tuple = Tuple::new(6, (source, [0x9c, 0x40]), (destination, [0, 80]));
        event.node = [192_u8, 168, 50, 2].into();
        event.go_on(7, Step::Route as u8, 0x0102_0304, mac);
        // SAFETY: `repr(C)` without padding (80 bytes are the sum of the fields), and borrowed.
        let bytes = unsafe { core::slice::from_raw_parts((&raw const event).cast::<u8>(), size_of::<Event>()) };
        assert_eq!(Event::from_bytes(bytes), Some(event));
        assert_eq!(Event::from_bytes(&bytes[1..]), None);
        assert_eq!((event.program(), event.step()), (Some(Program::ToOverlay), Some(Step::Route)));
        assert_eq!(event.tuple.source(), (IpAddr::from([10, 1, 2, 3]), 40_000));
        assert_eq!(event.tuple.destination(), (IpAddr::from([0xfd; 16]), 80));
        assert_eq!((event.node.ip(), event.mac()), (IpAddr::from([192, 168, 50, 2]), [1, 2, 3, 4, 5, 6]));
    }

    #[test]
    fn nothing_is_left_of_the_packet_before() {
        let mut event = blank();
        event.begin(Program::Admit, 60);
        assert_eq!((event.time, event.tuple.protocol(), event.node.is_unspecified()), (0, None, true));
        assert_eq!((event.length, event.value(), event.mac(), event.step()), (60, 0, [0; 6], Some(Step::Seen)));
    }

    #[test]
    fn a_packet_with_hop_by_hop_options_is_ip_all_the_same() {
        let ends = [[0xfd; 16], [0; 16]].map(|address| (address, [0; 2]));
        assert_eq!(Tuple::new(0, ends[0], ends[1]).protocol(), Some(0));
        assert_eq!(Tuple::default().protocol(), None);
    }

    #[test]
    fn no_two_causes_read_alike() {
        let causes: Vec<Slow> = (0..).map_while(Slow::from_number).collect();
        let texts: BTreeSet<_> = causes.iter().map(|cause| cause.text()).collect();
        assert_eq!((texts.len(), causes.len()), (12, 12));
    }
}
