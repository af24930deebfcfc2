//! The options of `overlay docker-opts`: the letters are those of flannel's `mk-docker-opts.sh`.

use std::path::PathBuf;

use clap::Args;

use crate::docker_opts::DockerOptsFormat;

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

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::{Cli, Command};

    #[test]
    fn options_of_mk_docker_opts_are_taken_as_a_shell_takes_them() {
        for line in
            ["overlay docker-opts -icm -kKEY -d out", "overlay docker-opts -i -c -m --combined-key KEY --output out"]
        {
            let Command::DockerOpts(args) = Cli::parse_from(line.split(' ')).command else { panic!("no docker-opts") };
            assert_eq!((args.individual, args.combined, args.no_ip_masq), (true, true, true), "{line}");
            assert_eq!((args.combined_key.as_str(), args.output.as_deref()), ("KEY", Some("out".as_ref())));
            assert_eq!(args.subnet_file, PathBuf::from("/run/flannel/subnet.env"));
        }
    }
}
