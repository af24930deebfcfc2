//! The options of `overlay docker-opts`: the letters are those of flannel's `mk-docker-opts.sh`.

use std::path::PathBuf;

use clap::Args;

use crate::docker_opts::DockerOptsFormat;

/// The name of the subcommand.
pub const DOCKER_OPTS: &str = "docker-opts";

/// Options of `overlay docker-opts`.
#[derive(Debug, Args)]
pub struct DockerOptsArgs {
    /// The file that the agent has written
    #[arg(
        short = 'f',
        long,
        env = "FLANNELD_SUBNET_FILE",
        value_name = "FILE",
        default_value = "/run/flannel/subnet.env"
    )]
    pub subnet_file: PathBuf,
    /// Write the options to this file, not to standard output
    #[arg(short = 'd', long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Print one variable for each option, such as DOCKER_OPT_MTU; with neither -i nor -c both kinds are printed
    #[arg(short = 'i', long)]
    pub individual: bool,
    /// Print all options in one variable, behind those that it holds in the environment
    #[arg(short = 'c', long)]
    pub combined: bool,
    /// The name of that variable
    #[arg(short = 'k', long, value_name = "NAME", default_value = "DOCKER_OPTS")]
    pub combined_key: String,
    /// Leave --ip-masq out, for a Docker that does not know it
    #[arg(short = 'm', long)]
    pub no_ip_masq: bool,
}

impl From<DockerOptsArgs> for DockerOptsFormat {
    fn from(args: DockerOptsArgs) -> Self {
        Self {
            individual: args.individual,
            combined: args.combined,
            combined_key: args.combined_key,
            ip_masq: !args.no_ip_masq,
        }
    }
}
