//! What flanneld has flags for and the agent treats in a way of its own: the health server, and flags that are taken
//! so that a unit file need not change, though they have no effect here.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use clap::{ArgAction, Args, builder::BoolishValueParser};

/// Flags of flanneld's that need no word elsewhere.
#[derive(Debug, Args)]
pub struct FlanneldArgs {
    /// Address that answers /healthz and /readyz
    #[arg(long, env = "FLANNELD_HEALTHZ_IP", value_name = "ADDRESS", default_value_t = Ipv4Addr::UNSPECIFIED.into())]
    pub healthz_ip: IpAddr,
    /// Port that answers /healthz (200: the agent runs) and /readyz (200: traffic can flow; 503: why not); 0: none
    #[arg(long, env = "FLANNELD_HEALTHZ_PORT", value_name = "PORT", default_value_t = 0)]
    pub healthz_port: u16,
    /// Log verbosity: 4 and more debug, 8 and more trace; RUST_LOG overrides it
    #[arg(long, env = "FLANNELD_V", value_name = "LEVEL", default_value_t = 0)]
    pub v: i32,
    /// Refused: leases are in etcd or in a directory, never in Kubernetes
    #[arg(long, env = "FLANNELD_KUBE_SUBNET_MGR", value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_value_t = false, default_missing_value = "true", action = ArgAction::Set,
          value_parser = BoolishValueParser::new(), hide = true)]
    pub kube_subnet_mgr: bool,
    /// What has no effect here
    #[command(flatten)]
    pub ignored: IgnoredArgs,
}

/// Flags of flanneld's that are taken and have no effect. All optional, so that it shows which were given.
#[derive(Debug, Args)]
#[command(next_help_heading = "Taken for flanneld's sake, without effect")]
pub struct IgnoredArgs {
    /// Kubernetes API server
    #[arg(long, env = "FLANNELD_KUBE_API_URL", value_name = "URL")]
    pub kube_api_url: Option<String>,
    /// Access to the Kubernetes API
    #[arg(long, env = "FLANNELD_KUBECONFIG_FILE", value_name = "FILE")]
    pub kubeconfig_file: Option<String>,
    /// Prefix of a Kubernetes node's annotations
    #[arg(long, env = "FLANNELD_KUBE_ANNOTATION_PREFIX", value_name = "PREFIX")]
    pub kube_annotation_prefix: Option<String>,
    /// Network config of Kubernetes' subnet manager; here it is in the datastore
    #[arg(long, env = "FLANNELD_NET_CONFIG_PATH", value_name = "FILE")]
    pub net_config_path: Option<String>,
    /// Set a Kubernetes node's NetworkUnavailable
    #[arg(long, env = "FLANNELD_SET_NODE_NETWORK_UNAVAILABLE", value_name = "BOOL", num_args = 0..=1,
          require_equals = true, default_missing_value = "true", value_parser = BoolishValueParser::new())]
    pub set_node_network_unavailable: Option<bool>,
    /// Seconds between two looks at the netfilter rules; here a change of them is noticed at once
    #[arg(long, env = "FLANNELD_IPTABLES_RESYNC", value_name = "SECONDS")]
    pub iptables_resync: Option<u32>,
    /// Keep a blackhole route for the node's own subnet
    #[arg(long, env = "FLANNELD_IP_BLACKHOLE_ROUTE", value_name = "BOOL", num_args = 0..=1,
          require_equals = true, default_missing_value = "true", value_parser = BoolishValueParser::new())]
    pub ip_blackhole_route: Option<bool>,
    /// Log verbosity by source file
    #[arg(long, env = "FLANNELD_VMODULE", value_name = "PATTERN=N")]
    pub vmodule: Option<String>,
    /// Log a stack trace at a line
    // The one flag of flanneld's with underscores.
    #[arg(long = "log_backtrace_at", env = "FLANNELD_LOG_BACKTRACE_AT", value_name = "FILE:N")]
    pub log_backtrace_at: Option<String>,
}

impl FlanneldArgs {
    /// Where to answer questions after the agent's health, if anywhere.
    #[must_use]
    pub fn healthz(&self) -> Option<SocketAddr> {
        (self.healthz_port != 0).then(|| SocketAddr::new(self.healthz_ip, self.healthz_port))
    }

    /// The level that `-v` stands for: Kubernetes' conventions put what helps debugging at 4 and above.
    #[must_use]
    pub fn log_level(&self) -> &'static str {
        match self.v {
            ..4 => "info",
            4..8 => "debug",
            8.. => "trace",
        }
    }
}

impl IgnoredArgs {
    /// The flags that were given, on the command line or in the environment.
    #[must_use]
    pub fn given(&self) -> Vec<&'static str> {
        [
            ("--kube-api-url", self.kube_api_url.is_some()),
            ("--kubeconfig-file", self.kubeconfig_file.is_some()),
            ("--kube-annotation-prefix", self.kube_annotation_prefix.is_some()),
            ("--net-config-path", self.net_config_path.is_some()),
            ("--set-node-network-unavailable", self.set_node_network_unavailable.is_some()),
            ("--iptables-resync", self.iptables_resync.is_some()),
            ("--ip-blackhole-route", self.ip_blackhole_route.is_some()),
            ("--vmodule", self.vmodule.is_some()),
            ("--log_backtrace_at", self.log_backtrace_at.is_some()),
        ]
        .into_iter()
        .filter_map(|(name, given)| given.then_some(name))
        .collect()
    }
}
