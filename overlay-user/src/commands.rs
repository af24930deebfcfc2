//! What the short commands do: ask, print, done. Each takes its part of the command line.

use std::{
    env, fs,
    io::{self, Read as _, Write as _},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, bail};

use crate::{
    admin::{self, Ours},
    atomic_file, check,
    cli::{
        CheckArgs, ConfigCommand, DockerOptsArgs, LeaseCommand, MapCommand, OperatorArgs, Output, Protocol, StatusArgs,
        TopArgs, TraceArgs,
    },
    datastore::{self, Datastore, DatastoreConfig},
    docker_opts,
    map_dump::{self, Filter},
    network::{ConfigChange, MAX_CONFIG, NetworkConfig},
    rundir::RunDir,
    status::Status,
    top, trace,
};

/// `overlay status`. The exit code says whether something is wrong.
///
/// # Errors
/// When there is no data path, or it cannot be read.
pub async fn status(args: StatusArgs) -> Result<ExitCode> {
    let interval = Duration::from_secs(args.interval.into());
    let status = Status::read(&RunDir::new(&args.run_dir.run_dir), interval).await?;
    match args.output {
        Output::Table => print(&status.to_text())?,
        Output::Json => print(&serde_json::to_string_pretty(&status)?)?,
    }
    Ok(if status.problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// `overlay top`, until it is told to stop.
///
/// # Errors
/// When there is no terminal, or no data path.
pub async fn top(args: TopArgs) -> Result<()> {
    top::run(&RunDir::new(&args.run_dir.run_dir), Duration::from_secs(args.interval.into())).await
}

/// `overlay map`.
///
/// # Errors
/// When there is no data path, or no such map.
pub fn map(command: MapCommand) -> Result<()> {
    match command {
        MapCommand::List { output, run_dir } => {
            let rows = map_dump::list(&RunDir::new(&run_dir.run_dir))?;
            match output {
                Output::Table => print(&map_dump::list_table(&rows)),
                Output::Json => print(&serde_json::to_string_pretty(&rows)?),
            }
        }
        MapCommand::Dump { name, output, subnet, node, address, run_dir } => {
            let filter = Filter { subnet, node, address };
            Ok(map_dump::dump(&RunDir::new(&run_dir.run_dir), &name, &filter, output, &mut io::stdout())?)
        }
    }
}

/// `overlay config`.
///
/// # Errors
/// When the datastore fails, there is no network config to print, or the one to write breaks a rule.
pub async fn config(command: ConfigCommand) -> Result<()> {
    match command {
        ConfigCommand::Get(operator) => {
            let (store, _) = open(operator)?;
            print(admin::config_get(&*store).await?.trim_end())
        }
        ConfigCommand::Set { config, operator } => {
            let json = given(&config)?;
            let (store, _) = open(operator)?;
            let before = store.config().await?.and_then(|before| NetworkConfig::parse(&before.value).ok());
            let config = admin::config_set(&*store, &json).await?;
            match before.map(|before| ConfigChange::between(&before, &config)) {
                Some(change) if !change.is_empty() => tracing::info!(%change, "network config stored"),
                _ => tracing::info!("network config stored"),
            }
            Ok(())
        }
    }
}

/// `overlay lease`.
///
/// # Errors
/// When the datastore fails, or a lease is not what the command needs it to be.
pub async fn lease(command: LeaseCommand) -> Result<()> {
    match command {
        LeaseCommand::List { output, operator } => {
            let (store, run_dir) = open(operator)?;
            let ours = Ours::of_this_node(&run_dir).context("read this node's addresses")?;
            let rows = admin::lease_list(&*store, &ours).await?;
            match output {
                Output::Table => print(&admin::lease_table(&rows)),
                Output::Json => print(&serde_json::to_string_pretty(&rows)?),
            }
        }
        LeaseCommand::Reserve { subnet, public_ip, operator } => {
            admin::lease_reserve(&*open(operator)?.0, subnet, public_ip).await?;
            tracing::info!(%subnet, %public_ip, "reserved");
            Ok(())
        }
        LeaseCommand::Release { subnet, operator } => {
            admin::lease_release(&*open(operator)?.0, subnet).await?;
            tracing::info!(%subnet, "released");
            Ok(())
        }
    }
}

/// `overlay check`. The exit code says whether the agent would start.
///
/// # Errors
/// When an option is wrong, or nothing can be found out.
pub async fn check(args: CheckArgs) -> Result<ExitCode> {
    let report = check::run(&args.agent.try_into()?).await?;
    match args.output {
        Output::Table => print(&report.to_text())?,
        Output::Json => print(&serde_json::to_string_pretty(&report)?)?,
    }
    Ok(if report.can_run { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// `overlay trace`. The exit code says whether the packet would arrive.
///
/// # Errors
/// When there is no data path, or the kernel refuses.
pub async fn trace(args: TraceArgs) -> Result<ExitCode> {
    let run_dir = RunDir::new(&args.run_dir.run_dir);
    if args.live {
        let flow = trace::Flow {
            protocol: args.proto,
            source: args.src,
            destination: args.dst,
            source_port: args.sport,
            destination_port: args.dport,
        };
        trace::live(&run_dir, &flow, args.rate, args.output).await?;
        return Ok(ExitCode::SUCCESS);
    }
    let report = match (&args.pcap, args.source.zip(args.destination)) {
        (Some(file), _) => trace::captured(&run_dir, file, args.on.as_deref()).await?,
        (None, Some((source, destination))) => {
            let wanted = trace::Wanted {
                source,
                destination,
                protocol: args.proto.unwrap_or(Protocol::Tcp),
                source_port: args.sport,
                destination_port: args.dport.unwrap_or(80),
                size: args.size,
            };
            trace::made_up(&run_dir, &wanted).await?
        }
        (None, None) => bail!("trace nothing; give source and destination, --pcap FILE, or --live"),
    };
    match args.output {
        Output::Table => print(&report.to_text())?,
        Output::Json => print(&serde_json::to_string_pretty(&report)?)?,
    }
    Ok(if report.arrives { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// `overlay docker-opts`.
///
/// # Errors
/// When `subnet.env` cannot be read or says what Docker cannot be told, the options cannot be written, or packets for the
/// subnet would leave the node.
pub async fn docker_opts(args: DockerOptsArgs) -> Result<()> {
    let path = args.subnet_file.clone();
    let subnet_env = fs::read_to_string(&path)
        .map_err(|error| anyhow!("read {}: {error}; the agent writes it when it is ready", path.display()))?;
    let output = args.output.clone();
    // What is no text cannot be one of ours.
    let environment =
        env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let text = docker_opts::docker_opts(&subnet_env, environment, &args.into())
        .with_context(|| format!("make options for Docker by {}", path.display()))?;
    match &output {
        Some(output) => {
            atomic_file::replace(output, &text).with_context(|| format!("write {}", output.display()))?;
        }
        None if text.is_empty() => {}
        None => print(text.trim_end())?,
    }
    if let Some((subnet, gateway)) = docker_opts::routed_away(&subnet_env).await? {
        bail!("Docker would not get packets for {subnet}: this node routes them via {gateway}; remove that route");
    }
    Ok(())
}

fn open(operator: OperatorArgs) -> Result<(std::sync::Arc<dyn Datastore>, RunDir)> {
    let config: DatastoreConfig = operator.datastore.try_into()?;
    Ok((datastore::open(&config)?, RunDir::new(&operator.run_dir.run_dir)))
}

/// The network config that the command line gives, or names. One that is too large is cut just where that shows.
fn given(config: &str) -> Result<Vec<u8>> {
    if config.trim_start().starts_with('{') {
        return Ok(config.as_bytes().to_vec());
    }
    let source: Box<dyn io::Read> = match config {
        "-" => Box::new(io::stdin()),
        file => Box::new(fs::File::open(file).with_context(|| format!("read the network config from {file}"))?),
    };
    let mut json = Vec::new();
    let limit = MAX_CONFIG as u64 + 1;
    source.take(limit).read_to_end(&mut json).with_context(|| format!("read the network config from {config}"))?;
    Ok(json)
}

/// Prints `text` and a line end. A reader that has read enough is no failure.
fn print(text: &str) -> Result<()> {
    match writeln!(io::stdout(), "{text}") {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error).context("write to standard output"),
        _ => Ok(()),
    }
}
