//! [`AgentConfig`]: the agent's command line, checked once before anything is touched.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use overlay_common::Ticks;
use regex::Regex;

use crate::{
    cli::{AgentArgs, DatastoreArgs, Decap, Switch},
    datastore::{DatastoreConfig, EtcdOptions, FileOptions},
    maps::Capacities,
    masquerade::Masquerade,
    rundir::RunDir,
    underlay::{Outer, UnderlayChoice},
};

/// What the agent was told.
#[derive(Debug)]
pub struct AgentConfig {
    /// Where the cluster's config and leases are.
    pub datastore: DatastoreConfig,
    /// What was said about the underlay interface.
    pub underlay: UnderlayChoice,
    /// Where to write `subnet.env`.
    pub subnet_file: PathBuf,
    /// How long before its expiry the lease is renewed.
    pub renew_margin: Duration,
    /// How to masquerade, if at all.
    pub masquerade: Option<Masquerade>,
    /// Whether to accept forwarded overlay traffic in iptables' FORWARD chain.
    pub forward_rules: bool,
    /// Where the data path lives.
    pub run_dir: RunDir,
    /// Where to answer questions after the agent's health, if anywhere.
    pub healthz: Option<SocketAddr>,
    /// Where to answer Prometheus, if anywhere.
    pub metrics: Option<SocketAddr>,
    /// Flags of flanneld's that were given and have no effect.
    pub without_effect: Vec<&'static str>,
    /// Where outer packets are decapsulated.
    pub decap: Decap,
    /// How long netfilter's approval of a flow lasts; 0: no fast path.
    pub flow_ttl: Ticks,
    /// Whether to log each dropped packet.
    pub log_drops: bool,
    /// Whether to attach programs by clsact also where the kernel has tcx.
    pub clsact: bool,
    /// How many entries maps have.
    pub capacities: Capacities,
    /// Whether to take the data path away at the end.
    pub teardown_on_exit: bool,
}

/// An option that clap cannot judge has a wrong value. One line.
#[derive(Debug, thiserror::Error)]
pub enum OptionError {
    /// No datastore of this kind.
    #[error("--datastore {0:?}: must be etcd or file:DIR")]
    Datastore(String),
    /// flanneld would take its leases from Kubernetes.
    #[error(
        "--kube-subnet-mgr: this overlay has no Kubernetes subnet manager; leave it out and name an etcd with --etcd-endpoints"
    )]
    KubeSubnetMgr,
    /// No pattern.
    #[error("--iface-regex {pattern:?}: {}", .source.to_string().lines().last().unwrap_or_default().trim())]
    Regex {
        /// The value.
        pattern: String,
        /// Why it is none.
        source: regex::Error,
    },
}

impl TryFrom<AgentArgs> for AgentConfig {
    type Error = OptionError;

    fn try_from(args: AgentArgs) -> Result<Self, OptionError> {
        let pattern = |pattern: String| Regex::new(&pattern).map_err(|source| OptionError::Regex { pattern, source });
        if args.flanneld.kube_subnet_mgr {
            return Err(OptionError::KubeSubnetMgr);
        }
        Ok(Self {
            datastore: args.datastore.try_into()?,
            underlay: UnderlayChoice {
                iface: args.iface,
                iface_regex: args.iface_regex.into_iter().map(pattern).collect::<Result<_, _>>()?,
                iface_can_reach: args.iface_can_reach,
                public_ip: args.public_ip,
                // The network config's to say.
                outer: Outer::default(),
                public_ipv6: args.public_ipv6,
            },
            subnet_file: args.subnet_file,
            renew_margin: Duration::from_secs(60) * args.subnet_lease_renew_margin,
            masquerade: args.ip_masq.then_some(Masquerade { random_fully: !args.ip_masq_fully_random_disable }),
            forward_rules: args.iptables_forward_rules,
            run_dir: RunDir::new(&args.run_dir.run_dir),
            healthz: args.flanneld.healthz(),
            metrics: args.metrics_addr,
            without_effect: args.flanneld.ignored.given(),
            decap: args.decap,
            flow_ttl: match (args.fast_path, args.decap) {
                // What the kernel decapsulates, the fast path does not see.
                (Switch::Off, _) | (_, Decap::Kernel) => 0,
                (Switch::On, _) => ticks(args.fast_path_approval),
            },
            log_drops: args.log_drops,
            clsact: args.clsact,
            capacities: Capacities { flows: args.max_flows, candidates: args.max_candidates, ipv6: false },
            teardown_on_exit: args.teardown_on_exit,
        })
    }
}

/// Seconds as the programs count them, in units of 2^20 ns.
const fn ticks(seconds: u32) -> Ticks {
    ((seconds as u64 * 1_000_000_000) >> 20) as Ticks
}

impl TryFrom<DatastoreArgs> for DatastoreConfig {
    type Error = OptionError;

    fn try_from(args: DatastoreArgs) -> Result<Self, OptionError> {
        match args.datastore.split_once(':') {
            Some(("file", directory)) if !directory.is_empty() => Ok(Self::File(FileOptions::new(directory))),
            None if args.datastore == "etcd" => Ok(Self::Etcd(EtcdOptions {
                endpoints: EtcdOptions::endpoints_from(&args.etcd_endpoints.join(",")),
                prefix: args.etcd_prefix.trim_end_matches('/').to_owned(),
                cert_file: args.etcd_certfile,
                key_file: args.etcd_keyfile,
                ca_file: args.etcd_cafile,
                user: args.etcd_username.zip(args.etcd_password),
                ..EtcdOptions::default()
            })),
            _ => Err(OptionError::Datastore(args.datastore)),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::{Cli, Command};

    fn config(line: &str) -> Result<AgentConfig, OptionError> {
        let Command::Agent(args) = Cli::parse_from(line.split(' ')).command else { panic!("no agent") };
        (*args).try_into()
    }

    #[test]
    fn without_options_the_agent_is_flanneld() {
        let config = config("overlay agent").unwrap();
        let DatastoreConfig::Etcd(etcd) = config.datastore else { panic!("no etcd") };
        assert_eq!(etcd.prefix, "/coreos.com/network");
        assert_eq!(etcd.endpoints, ["http://127.0.0.1:4001", "http://127.0.0.1:2379"]);
        assert_eq!(config.subnet_file, PathBuf::from("/run/flannel/subnet.env"));
        assert_eq!(config.renew_margin, Duration::from_secs(3600));
    }

    #[test]
    fn the_fast_path_is_on_unless_it_or_decap_in_tc_is_off() {
        let on = |line| config(line).unwrap().flow_ttl != 0;
        assert!(on("overlay agent") && on("overlay agent --decap tc"));
        assert!(!on("overlay agent --fast-path off") && !on("overlay agent --decap kernel"));
    }

    #[test]
    fn a_directory_can_be_the_datastore() {
        let config = config("overlay agent --datastore file:/srv/overlay").unwrap();
        let DatastoreConfig::File(file) = config.datastore else { panic!("no file") };
        assert_eq!(file.directory, PathBuf::from("/srv/overlay"));
    }

    #[test]
    fn wrong_values_are_named_with_their_option() {
        for (line, words) in [
            ("overlay agent --datastore redis", "--datastore \"redis\""),
            ("overlay agent --datastore file:", "--datastore \"file:\""),
            ("overlay agent --iface-regex eth(", "--iface-regex \"eth(\""),
            ("overlay agent --kube-subnet-mgr", "--kube-subnet-mgr: this overlay has no Kubernetes subnet manager"),
        ] {
            let error = config(line).map(|_| ()).unwrap_err().to_string();
            assert!(error.starts_with(words) && !error.contains('\n'), "{error}");
        }
    }
}
