//! `overlay`: parses the command line, starts logging, runs one command, and says how it went.

use std::process::ExitCode;

use anyhow::Result;
use overlay_user::{
    agent,
    cli::{self, Cli, Command},
    cni, commands, documents, logging,
    rundir::RunDir,
};
use tokio::task::LocalSet;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let cli = cli::parse(std::env::args_os());
    logging::start(cli.log_level(), cli.log_format());
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
        Command::Map(command) => commands::map(command),
        Command::Config(command) => commands::config(command).await,
        Command::Lease(command) => commands::lease(command).await,
        Command::Check(args) => return commands::check(*args).await,
        Command::Documents { directory } => documents::write(&directory),
        Command::Trace(args) => return commands::trace(args).await,
        Command::DockerOpts(args) => commands::docker_opts(args).await,
    }
    .map(|()| ExitCode::SUCCESS)
}
