//! `overlay`: parses the command line, starts logging, runs one command, and says how it went.

use std::{
    io::{self, IsTerminal as _},
    process::ExitCode,
};

use anyhow::Result;
use overlay_user::{
    agent,
    cli::{self, Cli, Command},
    cni, commands,
    rundir::RunDir,
};
use tokio::task::LocalSet;
use tracing_subscriber::EnvFilter;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let cli = cli::parse(std::env::args_os());
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(cli.log_level()));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_target(false)
        .init();
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
        Command::Map(command) => commands::map(command),
        Command::Config(command) => commands::config(command).await,
        Command::Lease(command) => commands::lease(command).await,
        Command::Check(args) => return commands::check(*args).await,
        Command::DockerOpts(args) => commands::docker_opts(args).await,
    }
    .map(|()| ExitCode::SUCCESS)
}
