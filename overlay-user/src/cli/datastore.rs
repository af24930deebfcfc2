//! The commands on the datastore, and the options that say where it is.

use std::{net::IpAddr, path::PathBuf};

use clap::{Args, Subcommand};

use super::{Output, RunDirArgs};
use crate::lease::{KeyError, SubnetKey};

/// Where the cluster's config and leases are, and how to get there.
#[derive(Debug, Args)]
pub struct DatastoreArgs {
    /// `etcd`, or `file:DIR` for a machine, a lab or a static cluster without etcd
    #[arg(long, env = "OVERLAY_DATASTORE", value_name = "etcd|file:DIR", default_value = "etcd")]
    pub datastore: String,
    /// etcd's client URLs
    #[arg(
        long,
        env = "FLANNELD_ETCD_ENDPOINTS",
        value_delimiter = ',',
        value_name = "URL",
        default_value = "http://127.0.0.1:4001,http://127.0.0.1:2379"
    )]
    pub etcd_endpoints: Vec<String>,
    /// Prefix of etcd's keys
    #[arg(long, env = "FLANNELD_ETCD_PREFIX", value_name = "PREFIX", default_value = "/coreos.com/network")]
    pub etcd_prefix: String,
    /// Client's key for etcd
    #[arg(long, env = "FLANNELD_ETCD_KEYFILE", value_name = "FILE", requires = "etcd_certfile")]
    pub etcd_keyfile: Option<PathBuf>,
    /// Client's certificate for etcd
    #[arg(long, env = "FLANNELD_ETCD_CERTFILE", value_name = "FILE", requires = "etcd_keyfile")]
    pub etcd_certfile: Option<PathBuf>,
    /// Authority that signs etcd's certificates
    #[arg(long, env = "FLANNELD_ETCD_CAFILE", value_name = "FILE")]
    pub etcd_cafile: Option<PathBuf>,
    /// User name for etcd
    #[arg(long, env = "FLANNELD_ETCD_USERNAME", value_name = "NAME", requires = "etcd_password")]
    pub etcd_username: Option<String>,
    /// Password for etcd; better given in the environment, for here `ps` shows it until the program has hidden it
    #[arg(
        long,
        env = "FLANNELD_ETCD_PASSWORD",
        value_name = "PASSWORD",
        requires = "etcd_username",
        hide_env_values = true
    )]
    pub etcd_password: Option<String>,
}

/// Subcommands of `overlay config`.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Print the network config as it is stored
    Get(OperatorArgs),
    /// Check a network config and store it; running agents notice
    Set {
        /// The JSON itself, a file that holds it, or - for standard input
        #[arg(value_name = "FILE|-|JSON", default_value = "-")]
        config: String,
        /// The datastore
        #[command(flatten)]
        operator: OperatorArgs,
    },
}

/// Subcommands of `overlay lease`.
#[derive(Debug, Subcommand)]
pub enum LeaseCommand {
    /// List all leases: subnet, node, backend, MAC address, expiry, and which is this node's
    List {
        /// How to print it
        #[arg(short, long, value_enum, default_value_t = Output::Table)]
        output: Output,
        /// The datastore, and the overlay that is ours
        #[command(flatten)]
        operator: OperatorArgs,
    },
    /// Make a subnet the one that the node with this address takes, now and for ever
    Reserve {
        /// The subnet, such as 10.1.15.0/24, or as `lease list` prints it
        #[arg(value_parser = subnet)]
        subnet: SubnetKey,
        /// The node's underlay address
        public_ip: IpAddr,
        /// The datastore
        #[command(flatten)]
        operator: OperatorArgs,
    },
    /// Delete a lease or a reservation; a node that holds it and lives takes it back at once
    Release {
        /// The subnet, such as 10.1.15.0/24, or as `lease list` prints it
        #[arg(value_parser = subnet)]
        subnet: SubnetKey,
        /// The datastore
        #[command(flatten)]
        operator: OperatorArgs,
    },
}

/// What every command on the datastore takes.
#[derive(Debug, Args)]
pub struct OperatorArgs {
    /// Where the cluster's config and leases are
    #[command(flatten)]
    pub datastore: DatastoreArgs,
    /// Which overlay on this node is ours
    #[command(flatten)]
    pub run_dir: RunDirArgs,
}

/// A subnet as people write it (`10.1.15.0/24`) or as the datastore's keys do (`10.1.15.0-24`).
fn subnet(text: &str) -> Result<SubnetKey, KeyError> {
    text.replace('/', "-").parse()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subnet_is_written_with_a_slash_or_as_its_key() {
        for text in ["10.1.15.0/24", "10.1.15.0-24"] {
            assert_eq!(subnet(text).map(|key| key.to_string()), Ok("10.1.15.0-24".to_owned()));
        }
        assert!(subnet("10.1.15.1/24").is_err());
    }
}
