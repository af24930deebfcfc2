//! The command line as clap sees it; nothing else.

mod datastore;
mod docker_opts;

use std::{
    ffi::{OsStr, OsString},
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
};

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};

pub use self::{
    datastore::{ConfigCommand, DatastoreArgs, LeaseCommand, OperatorArgs},
    docker_opts::{DOCKER_OPTS, DockerOptsArgs},
};

/// An eBPF overlay network for container hosts.
#[derive(Debug, Parser)]
#[command(name = "overlay", version)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the node agent: take a subnet, keep the data path equal to the datastore
    Agent(AgentArgs),
    /// Say whether this node can run the agent, and what the agent would choose; changes nothing
    ///
    /// Takes the agent's options and environment. Exits with 1 when a check is red: the agent would refuse to start.
    /// With `-o json` it prints one object: `can_run`; `agent_pid` of a running agent; `choice` with `interface`, `address`,
    /// `public_ip`, `network`, `subnet` (null where chance decides), `backend`, `port`, `device`, `mtu`, `decap`,
    /// `fast_path`; and `checks`, each with `check` (its name), `state` (green, yellow or red), `found` and `advice`.
    Check(Box<CheckArgs>),
    /// Look into the maps that the programs read and write
    #[command(subcommand)]
    Map(MapCommand),
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
    /// File that tells Docker and CNI about this node's subnet
    #[arg(long, env = "FLANNELD_SUBNET_FILE", value_name = "FILE", default_value = "/run/flannel/subnet.env")]
    pub subnet_file: PathBuf,
    /// Renew the lease when it has this many minutes left
    #[arg(long, env = "FLANNELD_SUBNET_LEASE_RENEW_MARGIN", value_name = "MINUTES", default_value_t = 60,
          value_parser = clap::value_parser!(u32).range(1..=1439))]
    pub subnet_lease_renew_margin: u32,
    /// Masquerade traffic from this node's subnet to the outside of the overlay network
    #[arg(long, env = "FLANNELD_IP_MASQ", value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_value_t = false, default_missing_value = "true", action = ArgAction::Set)]
    pub ip_masq: bool,
    /// Let masqueraded flows keep their source ports where that is possible
    #[arg(long, env = "FLANNELD_IP_MASQ_FULLY_RANDOM_DISABLE", value_name = "BOOL", num_args = 0..=1,
          require_equals = true, default_value_t = false, default_missing_value = "true", action = ArgAction::Set)]
    pub ip_masq_fully_random_disable: bool,
    /// Accept forwarded overlay traffic in iptables' FORWARD chain, whose policy Docker sets to DROP
    #[arg(long, env = "FLANNELD_IPTABLES_FORWARD_RULES", value_name = "BOOL", num_args = 0..=1,
          require_equals = true, default_value_t = true, default_missing_value = "true", action = ArgAction::Set)]
    pub iptables_forward_rules: bool,
    /// Where the data path lives while no agent does
    #[command(flatten)]
    pub run_dir: RunDirArgs,
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
    /// Log each packet that the programs drop, with its addresses and the reason; for debugging, it costs
    #[arg(long, env = "OVERLAY_LOG_DROPS")]
    pub log_drops: bool,
    /// Take the data path away when the agent stops, instead of leaving it to forward
    #[arg(long, env = "OVERLAY_TEARDOWN_ON_EXIT")]
    pub teardown_on_exit: bool,
}

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
    /// List the maps
    List(RunDirArgs),
    /// Print what a map holds, decoded; needs no running agent
    Dump {
        /// The map, as `overlay map list` names it
        #[arg(ignore_case = true)]
        name: String,
        /// How to print it
        #[arg(short, long, value_enum, default_value_t = Output::Table)]
        output: Output,
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
    /// In TC
    Auto,
    /// In TC, after the kernel has merged what belongs together
    Tc,
    /// In XDP, before the kernel builds a packet; needs a driver that runs XDP natively
    Xdp,
    /// In the kernel's own VXLAN device, which leaves no fast path
    Kernel,
}

/// Names of this program under which it is `overlay cni`: a container runtime runs a plugin by its type, without
/// arguments.
const CNI_NAMES: [&str; 2] = ["overlay-cni", "flannel"];

/// The arguments of this process, with flanneld's `-name` turned into `--name`: Go programs take either, and unit
/// files hold both. `docker-opts` stands for a shell script, whose `-ic` means `-i -c`. A program by a CNI plugin's name is
/// `overlay cni`.
pub fn arguments(given: impl IntoIterator<Item = OsString>) -> impl Iterator<Item = OsString> {
    let mut given = given.into_iter();
    let program = given.next();
    let is_plugin = program.as_ref().and_then(|program| Path::new(program).file_name()).is_some_and(is_cni_name);
    let subcommand = is_plugin.then(|| OsString::from("cni"));
    let mut is_script = false;
    program.into_iter().chain(subcommand).chain(given.enumerate().map(move |(place, argument)| {
        is_script |= place == 0 && argument == DOCKER_OPTS;
        match argument.to_str() {
            Some(text) if !is_script && is_go_flag(text) => OsString::from(format!("-{text}")),
            _ => argument,
        }
    }))
}

fn is_cni_name(name: &OsStr) -> bool {
    CNI_NAMES.iter().any(|plugin| name == *plugin)
}

fn is_go_flag(argument: &str) -> bool {
    argument.strip_prefix('-').is_some_and(|name| {
        let name = name.split('=').next().unwrap_or_default();
        name.len() > 1 && name.starts_with(|first: char| first.is_ascii_lowercase())
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn parse(line: &str) -> Cli {
        Cli::parse_from(arguments(line.split(' ').map(OsString::from)))
    }

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_flanneld_command_line_is_understood_with_one_dash_or_two() {
        for line in [
            "overlay agent -etcd-endpoints=http://a:1,http://b:2 -iface=eth1 -iface=eth2 -o",
            "overlay agent --etcd-endpoints http://a:1,http://b:2 --iface eth1 --iface eth2 -o",
        ] {
            let Command::Agent(agent) = parse(line.trim_end_matches(" -o")).command else { panic!("no agent") };
            assert_eq!(agent.datastore.etcd_endpoints, ["http://a:1", "http://b:2"]);
            assert_eq!(agent.iface, ["eth1", "eth2"]);
        }
    }

    #[test]
    fn by_a_plugins_name_it_is_the_plugin() {
        for line in ["/opt/cni/bin/overlay-cni", "flannel", "overlay cni"] {
            assert!(matches!(parse(line).command, Command::Cni), "{line}");
        }
        assert!(Cli::try_parse_from(arguments(["/usr/bin/overlay".into()])).is_err());
    }

    #[test]
    fn short_options_stay_short() {
        let Command::Map(MapCommand::Dump { output, .. }) = parse("overlay map dump routes -o json").command else {
            panic!("no map dump")
        };
        assert_eq!(output, Output::Json);
    }

    #[test]
    fn options_of_mk_docker_opts_are_taken_as_a_shell_takes_them() {
        for line in
            ["overlay docker-opts -icm -kKEY -d out", "overlay docker-opts -i -c -m --combined-key KEY --output out"]
        {
            let Command::DockerOpts(args) = parse(line).command else { panic!("no docker-opts") };
            assert_eq!((args.individual, args.combined, args.no_ip_masq), (true, true, true), "{line}");
            assert_eq!((args.combined_key.as_str(), args.output.as_deref()), ("KEY", Some("out".as_ref())));
            assert_eq!(args.subnet_file, PathBuf::from("/run/flannel/subnet.env"));
        }
    }
}
