//! Options of `overlay trace`.

use std::{net::Ipv4Addr, path::PathBuf};

use clap::{Args, ValueEnum};

use super::{Output, RunDirArgs};

/// Options of `overlay trace`.
#[derive(Debug, Args)]
pub struct TraceArgs {
    /// Where the packet comes from
    #[arg(required_unless_present = "pcap", requires = "destination")]
    pub source: Option<Ipv4Addr>,
    /// Where it is to go
    pub destination: Option<Ipv4Addr>,
    /// Trace the one packet in this capture (pcap or pcapng, of an Ethernet device) instead, byte by byte as it is
    #[arg(long, value_name = "FILE", conflicts_with_all = ["source", "destination", "proto", "sport", "dport", "size"])]
    pub pcap: Option<PathBuf>,
    /// The interface of this node where that packet was captured: a container's veth, the overlay device, the underlay or
    /// another [default: by its addresses]
    #[arg(long, value_name = "INTERFACE", requires = "pcap")]
    pub on: Option<String>,
    /// What it carries
    #[arg(long, value_enum, default_value_t = Protocol::Tcp)]
    pub proto: Protocol,
    /// The port it comes from; without it, the packet opens a new connection
    #[arg(long, value_name = "PORT")]
    pub sport: Option<u16>,
    /// The port it is for
    #[arg(long, value_name = "PORT", default_value_t = 80)]
    pub dport: u16,
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
    /// An ICMP echo request
    Icmp,
}
