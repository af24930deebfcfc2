//! `overlay`: parses the command line, starts logging, runs one command, and says how it went.

use std::process::ExitCode;

use anyhow::Result;
use overlay_user::{
    agent,
    cli::{self, Cli, Command},
    cni, command_line, commands, documents, logging,
    rundir::RunDir,
    trace,
};
use tokio::task::LocalSet;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().collect();
    // First of all: until then `ps` shows them.
    let hidden = command_line::hide_passwords();
    let cli = cli::parse(arguments);
    logging::start(cli.log_level(), cli.log_format());
    if let Err(error) = hidden {
        tracing::warn!(%error, "a password on the command line would be seen by `ps`; give it in FLANNELD_ETCD_PASSWORD");
    }
    match LocalSet::new().run_until(run(cli)).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("overlay: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: Cli) -> Result<ExitCode> {
    match cli.command {
        Command::Agent(args) => agent::run((*args).try_into()?).await,
        Command::Cni => Ok(cni::run()?),
        Command::Teardown(args) => agent::teardown(&RunDir::new(&args.run_dir)).await,
        Command::Status(args) => return commands::status(args).await,
        Command::Top(args) => commands::top(args).await,
        Command::Map(command) => commands::map(command),
        Command::Config(command) => commands::config(command).await,
        Command::Lease(command) => commands::lease(command).await,
        Command::Check(args) => return commands::check(*args).await,
        Command::Documents { directory } => documents::write(&directory),
        Command::Trace(args) => return commands::trace(args).await,
        Command::TraceGuard => trace::guard(),
        Command::DockerOpts(args) => commands::docker_opts(args).await,
    }
    .map(|()| ExitCode::SUCCESS)
}
