//! The command line as clap sees it; nothing else.

mod cni_name;
mod datastore;
mod docker_opts;
mod flanneld;
mod go_flags;
mod trace;

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
};

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum, builder::BoolishValueParser};
use ipnetwork::IpNetwork;
use overlay_common::{MAX_CANDIDATES, MAX_FLOWS};

pub use self::{
    datastore::{ConfigCommand, DatastoreArgs, LeaseCommand, OperatorArgs},
    docker_opts::DockerOptsArgs,
    flanneld::FlanneldArgs,
    go_flags::parse,
    trace::{Protocol, TraceArgs},
};

/// An eBPF overlay network for container hosts.
#[derive(Debug, Parser)]
#[command(name = "overlay", version, propagate_version = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

impl Cli {
    /// What is logged unless RUST_LOG says it.
    #[must_use]
    pub fn log_level(&self) -> &'static str {
        match &self.command {
            Command::Agent(agent) => agent.flanneld.log_level(),
            _ => "info",
        }
    }

    /// How log lines are written.
    #[must_use]
    pub fn log_format(&self) -> LogFormat {
        match &self.command {
            Command::Agent(agent) => agent.log_format,
            _ => LogFormat::Human,
        }
    }
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the node agent: take a subnet, keep the data path equal to the datastore
    // The last of several equal flags counts, as with flanneld.
    #[command(args_override_self = true)]
    Agent(Box<AgentArgs>),
    /// Say whether this node can run the agent, and what the agent would choose; changes nothing
    ///
    /// Takes the agent's options and environment. Exits with 1 when a check is red: the agent would refuse to start.
    /// With `-o json` it prints one object: `can_run`; `agent_pid` of a running agent; `choice` with `interface`, `address`,
    /// `public_ip`, `network`, `subnet` (null where chance decides), the same of IPv6 in `ipv6_address`, `public_ipv6`,
    /// `ipv6_network`, `ipv6_subnet` (null where there is none); `backend`, `port`, `device`, `mtu`, `decap`, `fast_path`;
    /// and `checks`, each with `check` (its name), `state` (green, yellow or red), `found` and `advice`.
    #[command(args_override_self = true)]
    Check(Box<CheckArgs>),
    /// Show this node, its peers, what was dropped and why, and whether anything is wrong
    ///
    /// Reads the pinned maps, and asks the agent if one runs. Exits with 1 when something is wrong: no agent answers, the
    /// lease is lost, the datastore is silent for long, traffic cannot flow, a program is not attached. With `-o json` it prints
    /// one object: `problems` (each in words), `agent` (null: none answers), `node`, `peers`, `drops`, `interval`.
    Status(StatusArgs),
    /// Show live rates of peers and containers, drops, and how much takes the fast path
    ///
    /// Needs a terminal of at least 80 columns and 24 lines to show everything. `h` explains the columns and lists the keys.
    Top(TopArgs),
    /// Look into the maps that the programs read and write
    #[command(subcommand)]
    Map(MapCommand),
    /// Say what would become of a packet, step by step, and why; sends nothing and counts nothing
    ///
    /// The packet, of IPv4 or IPv6, goes through the programs, over the maps as they are now; needs no running agent. What bridge
    /// and routing do in between is told as `ip route get` would; netfilter is not asked. Exits with 1 when the packet does not
    /// arrive.
    /// With `-o json` it prints one object: `packet`, `steps`, `arrives`, `result`; a step has `at` (the program, `underlay` or
    /// `kernel`), `text`, and where it applies `interface`, `reason` (as in `overlay map dump DROPS`) and `outer`, the headers.
    ///
    /// With `--live` it shows what happens to real packets, for which programs that tell it take the places of the attached
    /// ones; those are back when it ends, however it ends. Containers that come meanwhile are not traced. With `-o json` each
    /// line is an object: `time` (nanoseconds since boot), `program`, `step`, `source`, `source_port`, `destination`,
    /// `destination_port`, `protocol`, `length`, `text`, at a drop `reason`; or `suppressed_packets` and `lost_events`.
    Trace(TraceArgs),
    /// Put programs back when the trace that has exchanged them is gone; a trace starts it
    #[command(hide = true)]
    TraceGuard,
    /// Read or write the network config in the datastore
    #[command(subcommand)]
    Config(ConfigCommand),
    /// List, reserve or release subnets in the datastore
    #[command(subcommand)]
    Lease(LeaseCommand),
    /// Print options for Docker's daemon by a node's subnet.env, as flannel's mk-docker-opts.sh makes them
    DockerOpts(DockerOptsArgs),
    /// Answer a container runtime as a CNI plugin: the request is in the environment and on standard input
    Cni,
    /// Take away everything that agents have left on this node
    Teardown(RunDirArgs),
    /// Write shell completions and manual pages of these commands; packages are made with it
    #[command(hide = true)]
    Documents {
        /// Where to: completions go into `completions`, pages into `man`
        directory: PathBuf,
    },
}

/// Options of `overlay agent`. Those that flanneld has carry flanneld's names, on the command line and in the
/// environment.
#[derive(Debug, Args)]
pub struct AgentArgs {
    /// Where the cluster's config and leases are
    #[command(flatten)]
    pub datastore: DatastoreArgs,
    /// Underlay interface, by name or address; the first that exists is taken
    #[arg(long, env = "FLANNELD_IFACE", value_delimiter = ',', value_name = "NAME|ADDRESS")]
    pub iface: Vec<String>,
    /// Underlay interface, by a pattern for addresses, then names; tried after --iface
    #[arg(long, env = "FLANNELD_IFACE_REGEX", value_name = "REGEX")]
    pub iface_regex: Vec<String>,
    /// Underlay interface, by the route to this address; tried last
    #[arg(long, env = "FLANNELD_IFACE_CAN_REACH", value_name = "ADDRESS")]
    pub iface_can_reach: Option<IpAddr>,
    /// Address that other nodes reach this one at [default: the underlay interface's]
    #[arg(long, env = "FLANNELD_PUBLIC_IP", value_name = "ADDRESS")]
    pub public_ip: Option<Ipv4Addr>,
    /// The same over IPv6, where the overlay has IPv6 [default: the underlay interface's]
    #[arg(long, env = "FLANNELD_PUBLIC_IPV6", value_name = "ADDRESS")]
    pub public_ipv6: Option<Ipv6Addr>,
    /// File that tells Docker and CNI about this node's subnet
    #[arg(long, env = "FLANNELD_SUBNET_FILE", value_name = "FILE", default_value = "/run/flannel/subnet.env")]
    pub subnet_file: PathBuf,
    /// Renew the lease when it has this many minutes left
    #[arg(long, env = "FLANNELD_SUBNET_LEASE_RENEW_MARGIN", value_name = "MINUTES", default_value_t = 60,
          value_parser = clap::value_parser!(u32).range(1..=1439))]
    pub subnet_lease_renew_margin: u32,
    /// Masquerade traffic from this node's subnet to the outside of the overlay network
    #[arg(long, env = "FLANNELD_IP_MASQ", value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_value_t = false, default_missing_value = "true", action = ArgAction::Set, value_parser = BoolishValueParser::new())]
    pub ip_masq: bool,
    /// Let masqueraded flows keep their source ports where that is possible
    #[arg(long, env = "FLANNELD_IP_MASQ_FULLY_RANDOM_DISABLE", value_name = "BOOL", num_args = 0..=1,
          require_equals = true, default_value_t = false, default_missing_value = "true", action = ArgAction::Set, value_parser = BoolishValueParser::new())]
    pub ip_masq_fully_random_disable: bool,
    /// Accept forwarded overlay traffic in iptables' FORWARD chain, whose policy Docker sets to DROP
    #[arg(long, env = "FLANNELD_IPTABLES_FORWARD_RULES", value_name = "BOOL", num_args = 0..=1,
          require_equals = true, default_value_t = true, default_missing_value = "true", action = ArgAction::Set, value_parser = BoolishValueParser::new())]
    pub iptables_forward_rules: bool,
    /// Where the data path lives while no agent does
    #[command(flatten)]
    pub run_dir: RunDirArgs,
    /// Whether the agent lives, and what else flanneld has flags for
    #[command(flatten)]
    pub flanneld: FlanneldArgs,
    /// Where outer packets are decapsulated
    #[arg(long, env = "OVERLAY_DECAP", value_enum, default_value_t = Decap::Auto)]
    pub decap: Decap,
    /// Let packets of flows that netfilter has approved skip bridge, netfilter and routing
    #[arg(long, env = "OVERLAY_FAST_PATH", value_enum, default_value_t = Switch::On)]
    pub fast_path: Switch,
    /// How long an approval lasts: so long a new netfilter rule may take to bite on running flows
    #[arg(long, env = "OVERLAY_FAST_PATH_APPROVAL", value_name = "SECONDS", default_value_t = 2,
          value_parser = clap::value_parser!(u32).range(1..=60))]
    pub fast_path_approval: u32,
    /// How many approved flows are remembered; each takes 96 bytes of memory, from the start
    #[arg(long, env = "OVERLAY_MAX_FLOWS", value_name = "N", default_value_t = MAX_FLOWS,
          value_parser = clap::value_parser!(u32).range(FEWEST_FLOWS..=MOST_FLOWS))]
    pub max_flows: u32,
    /// How many flows on their way to approval are remembered; each takes 96 bytes of memory, from the start
    #[arg(long, env = "OVERLAY_MAX_CANDIDATES", value_name = "N", default_value_t = MAX_CANDIDATES,
          value_parser = clap::value_parser!(u32).range(FEWEST_FLOWS..=MOST_FLOWS))]
    pub max_candidates: u32,
    /// Address and port that answer /metrics for Prometheus; may be those of /healthz [default: none]
    #[arg(long, env = "OVERLAY_METRICS_ADDR", value_name = "ADDRESS:PORT")]
    pub metrics_addr: Option<SocketAddr>,
    /// Log each packet that the programs drop, with its addresses and the reason; for debugging, it costs
    #[arg(long, env = "OVERLAY_LOG_DROPS")]
    pub log_drops: bool,
    /// How log lines are written: for people, or as one JSON object each; RUST_LOG says which
    #[arg(long, env = "OVERLAY_LOG_FORMAT", value_enum, default_value_t = LogFormat::Human)]
    pub log_format: LogFormat,
    /// Attach programs as on kernels without tcx; for tests
    #[arg(long, env = "OVERLAY_CLSACT", hide = true)]
    pub clsact: bool,
    /// Take the data path away when the agent stops, instead of leaving it to forward
    #[arg(long, env = "OVERLAY_TEARDOWN_ON_EXIT")]
    pub teardown_on_exit: bool,
}

/// With fewer, the kernel's LRU, which keeps some free for each CPU, would have none left.
const FEWEST_FLOWS: i64 = 1024;
/// Some gigabytes of memory.
const MOST_FLOWS: i64 = 1 << 24;

/// Options of `overlay check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// What the agent is to be started with
    #[command(flatten)]
    pub agent: AgentArgs,
    /// How to print it
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    pub output: Output,
}

/// Options of `overlay status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Measure rates for this many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub interval: u32,
    /// How to print it
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    pub output: Output,
    /// Where the maps are, and the agent's socket
    #[command(flatten)]
    pub run_dir: RunDirArgs,
}

/// Options of `overlay top`.
#[derive(Debug, Args)]
pub struct TopArgs {
    /// Read the counters every so many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub interval: u32,
    /// Where the maps are, and the agent's socket
    #[command(flatten)]
    pub run_dir: RunDirArgs,
}

/// The directory of pinned programs and maps.
#[derive(Debug, Args)]
pub struct RunDirArgs {
    /// Directory with the pinned programs and maps
    #[arg(long, env = "OVERLAY_RUN_DIR", value_name = "DIR", default_value = "/run/overlay")]
    pub run_dir: PathBuf,
}

/// Subcommands of `overlay map`.
#[derive(Debug, Subcommand)]
pub enum MapCommand {
    /// List the maps: what they hold, how full they are, and the memory that they take
    List {
        /// How to print it
        #[arg(short, long, value_enum, default_value_t = Output::Table)]
        output: Output,
        /// Where the maps are
        #[command(flatten)]
        run_dir: RunDirArgs,
    },
    /// Print what a map holds, decoded; needs no running agent
    Dump {
        /// The map, as `overlay map list` names it
        #[arg(ignore_case = true)]
        name: String,
        /// How to print it
        #[arg(short, long, value_enum, default_value_t = MapOutput::Table)]
        output: MapOutput,
        /// Only entries about this subnet, or a part of it
        #[arg(long, value_name = "NETWORK")]
        subnet: Option<IpNetwork>,
        /// Only entries about the node with this underlay address
        #[arg(long, value_name = "ADDRESS")]
        node: Option<IpAddr>,
        /// Only entries about this container's address
        #[arg(long, value_name = "ADDRESS")]
        address: Option<IpAddr>,
        /// Where the maps are
        #[command(flatten)]
        run_dir: RunDirArgs,
    },
}

/// How to print what was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// Columns, for people.
    Table,
    /// JSON, for programs.
    Json,
}

/// How to print what a map holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum MapOutput {
    /// Columns, for people.
    Table,
    /// JSON, for programs.
    Json,
    /// Key and value of each entry in hexadecimal, as the map has them; values of all CPUs one after the other.
    Raw,
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people, in colour on a terminal
    Human,
    /// One JSON object a line
    Json,
}

/// On or off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Switch {
    /// On
    On,
    /// Off
    Off,
}

/// Where outer packets are decapsulated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Decap {
    /// In XDP where the driver runs it natively and is no veth, else in TC
    Auto,
    /// In TC, after the kernel has merged what belongs together
    Tc,
    /// In XDP, before the kernel builds a packet; needs a driver that runs XDP natively
    Xdp,
    /// In the kernel's own VXLAN device, which leaves no fast path
    Kernel,
}
