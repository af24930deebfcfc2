//! What the runtime asks for: the environment and the network configuration, checked before anything is done.

use std::{env, io::Read, path::PathBuf};

use rscni_types::{
    error::Error,
    types::{
        CNI_COMMAND, CNI_CONTAINERID, CNI_IFNAME, CNI_NETNS, CNI_PATH, Cmd, ContainerId, GcAttachment, InterfaceName,
        NetConf,
    },
    version::{PluginInfo, SpecVersion},
};
use serde::Deserialize;
use serde_json::{Map, Value};

/// A runtime's request.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) command: Command,
    /// The version of the protocol that the configuration asks for.
    pub(super) version: SpecVersion,
    /// Where plugins are, `CNI_PATH`.
    pub(super) path: Vec<PathBuf>,
    pub(super) config: Config,
}

/// What is to be done, and to which container.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Command {
    Add(Attachment),
    Del(Attachment),
    Check(Attachment),
    Status,
    Gc,
    Version,
}

/// One interface of one container.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Attachment {
    pub(super) container: ContainerId,
    pub(super) interface: InterfaceName,
}

/// The network configuration: what flannel's plugin takes, and what runtimes add.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Config {
    pub(super) cni_version: Option<String>,
    pub(super) name: Option<String>,
    /// What the agent has written about this node's subnet.
    pub(super) subnet_file: Option<PathBuf>,
    /// Where the delegates' configurations are kept until DEL.
    pub(super) data_dir: Option<PathBuf>,
    /// The delegate's configuration, as far as it is not generated.
    pub(super) delegate: Option<Map<String, Value>>,
    /// The delegate's `ipam`, as far as it is not generated.
    pub(super) ipam: Option<Map<String, Value>>,
    pub(super) runtime_config: Option<Map<String, Value>>,
    pub(super) prev_result: Option<Value>,
    #[serde(rename = "cni.dev/valid-attachments")]
    pub(super) valid_attachments: Option<Vec<GcAttachment>>,
}

impl Request {
    /// Reads a request; `variable` yields a variable of the environment, empty when it is not set.
    ///
    /// # Errors
    /// The specification's error for the first thing that is wrong: environment, input, version, configuration.
    pub(super) fn read(variable: &dyn Fn(&str) -> String, input: impl Read) -> Result<Self, Error> {
        let (cmd, command) = command(variable)?;
        let path = env::split_paths(&variable(CNI_PATH)).filter(|path| !path.as_os_str().is_empty()).collect();
        let config = Config::read(input, cmd == Cmd::Version)?;
        let standard = NetConf {
            cni_version: config.cni_version.clone().unwrap_or_default(),
            name: config.name.clone().unwrap_or_default(),
            ..NetConf::default()
        };
        // A runtime may ask in any version which ones there are.
        let version = if cmd == Cmd::Version {
            config.cni_version.as_deref().map_or(Ok(SpecVersion::CURRENT), str::parse)?
        } else {
            let version = PluginInfo::default().negotiate(&standard, cmd)?;
            standard.validate_name()?;
            version
        };
        Ok(Self { command, version, path, config })
    }
}

impl Config {
    fn read(mut input: impl Read, may_be_empty: bool) -> Result<Self, Error> {
        let mut json = Vec::new();
        input.read_to_end(&mut json).map_err(|error| {
            Error::IOFailure(format!("read the network configuration from standard input: {error}"))
        })?;
        if may_be_empty && json.trim_ascii().is_empty() {
            return Ok(Self::default());
        }
        serde_json::from_slice(&json).map_err(|error| {
            Error::FailedToDecode(format!(
                "the network configuration on standard input is no such JSON object: {error}"
            ))
        })
    }
}

/// `CNI_COMMAND`, and what it needs of the environment.
fn command(variable: &dyn Fn(&str) -> String) -> Result<(Cmd, Command), Error> {
    let cmd = variable(CNI_COMMAND).parse()?;
    let required: &[&str] = match cmd {
        Cmd::Add | Cmd::Check => &[CNI_CONTAINERID, CNI_NETNS, CNI_IFNAME],
        Cmd::Del => &[CNI_CONTAINERID, CNI_IFNAME],
        Cmd::Gc => &[CNI_PATH],
        Cmd::Status | Cmd::Version => &[],
    };
    let missing: Vec<_> = required.iter().copied().filter(|name| variable(name).is_empty()).collect();
    if !missing.is_empty() {
        return Err(Error::InvalidEnvValue(format!("not set: {}", missing.join(", "))));
    }
    let attachment = || -> Result<Attachment, Error> {
        Ok(Attachment {
            container: named(CNI_CONTAINERID, variable(CNI_CONTAINERID).try_into())?,
            interface: named(CNI_IFNAME, variable(CNI_IFNAME).try_into())?,
        })
    };
    let command = match cmd {
        Cmd::Add => Command::Add(attachment()?),
        Cmd::Del => Command::Del(attachment()?),
        Cmd::Check => Command::Check(attachment()?),
        Cmd::Status => Command::Status,
        Cmd::Gc => Command::Gc,
        Cmd::Version => Command::Version,
    };
    Ok((cmd, command))
}

/// The specification wants the names of invalid variables in the message.
fn named<T>(variable: &str, value: Result<T, Error>) -> Result<T, Error> {
    value.map_err(|error| Error::InvalidEnvValue(format!("{variable}: {}", error.details())))
}
