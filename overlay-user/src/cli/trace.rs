//! Options of `overlay trace`.

use std::{net::IpAddr, path::PathBuf};

use clap::{Args, ValueEnum};

use super::{Output, RunDirArgs};

/// Options of `overlay trace`.
#[derive(Debug, Args)]
pub struct TraceArgs {
    /// Where the packet comes from
    #[arg(required_unless_present_any = ["pcap", "live"], requires = "destination")]
    pub source: Option<IpAddr>,
    /// Where it is to go, an address of the same family
    pub destination: Option<IpAddr>,
    /// Trace the one packet in this capture (pcap or pcapng, of an Ethernet device) instead, byte by byte as it is
    #[arg(long, value_name = "FILE", conflicts_with_all = ["source", "destination", "proto", "sport", "dport", "size"])]
    pub pcap: Option<PathBuf>,
    /// The interface of this node where that packet was captured: a container's veth, the overlay device, the underlay or
    /// another [default: by its addresses]
    #[arg(long, value_name = "INTERFACE", requires = "pcap")]
    pub on: Option<String>,
    /// Show what happens to real packets, in both directions, until Ctrl-C
    #[arg(long, conflicts_with_all = ["source", "destination", "pcap", "size"])]
    pub live: bool,
    /// With --live: only packets from this address, and the answers to them [default: any]
    #[arg(long, value_name = "ADDRESS", requires = "live")]
    pub src: Option<IpAddr>,
    /// With --live: only packets to this address, and the answers to them [default: any]
    #[arg(long, value_name = "ADDRESS", requires = "live")]
    pub dst: Option<IpAddr>,
    /// With --live: the most packets in a second that each CPU tells of at each program; how many more there were is said
    #[arg(long, value_name = "PACKETS", default_value_t = 100, requires = "live",
          value_parser = clap::value_parser!(u32).range(1..))]
    pub rate: u32,
    /// What it carries [default: tcp; with --live any]
    #[arg(long, value_enum)]
    pub proto: Option<Protocol>,
    /// The port it comes from; without it, the packet opens a new connection
    #[arg(long, value_name = "PORT")]
    pub sport: Option<u16>,
    /// The port it is for [default: 80; with --live any]
    #[arg(long, value_name = "PORT")]
    pub dport: Option<u16>,
    /// Length of the IP packet in bytes [default: as short as can be]
    #[arg(long, value_name = "BYTES")]
    pub size: Option<usize>,
    /// How to print it
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    pub output: Output,
    /// Where the data path lives
    #[command(flatten)]
    pub run_dir: RunDirArgs,
}

/// What a packet carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Protocol {
    /// TCP
    Tcp,
    /// UDP
    Udp,
    /// An ICMP echo request, of ICMPv6 between IPv6 addresses; with --live any ICMP packet, of ICMPv6 where an address is IPv6
    Icmp,
}
